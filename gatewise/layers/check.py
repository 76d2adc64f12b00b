"""What a layer refuses, before any work is done."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence

from gatewise.equations.cell import Cell
from gatewise.executors.counter import checked_seed


class ShapeError(ValueError, RuntimeError):
    """A tensor of the wrong shape.

    A ValueError like every bad argument here, and a RuntimeError because torch.nn raises that:
    code written for torch.nn catches it either way.
    """


def integer(name: str, value: Any, least: int, kind: str) -> int:
    """`value` if it is an int of at least `least`; `kind` says so in words."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be {kind}, got {value}")
    return value


def flag(name: str, value: Any) -> bool:
    """`value` if it is a bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return value


def chunk(name: str, value: Any) -> bool | int:
    """`value` if it is True, False or a number of steps."""
    return value if isinstance(value, bool) else integer(name, value, 1, "True, False or positive")


def probability(name: str, value: Any) -> float:
    """`value` as a float in [0, 1]."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} must be a number in [0, 1], got {value!r}")
    if not 0 <= value <= 1:  # also refuses NaN
        raise ValueError(f"{name} must be in [0, 1], got {value}")
    return float(value)


def per_layer(name: str, value: Any, num_layers: int) -> float | tuple[float, ...]:
    """`value` as a float in [0, 1], or as one for each layer; 0.0 where all of them are."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return probability(name, value)
    if len(value) != num_layers:
        raise ValueError(f"{name} must have {num_layers} numbers, one a layer, got {value!r}")
    rates = tuple(probability(f"{name} of layer {k}", p) for k, p in enumerate(value))
    return rates if any(rates) else 0.0


def one_of(name: str, value: Any, allowed: Iterable[str]) -> str:
    """`value` if it is one of `allowed`."""
    allowed = tuple(allowed)
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    return value


def projection(proj_size: Any, hidden_size: int) -> int:
    """`proj_size` if it is 0 (none) or smaller than `hidden_size`."""
    integer("proj_size", proj_size, 0, "zero (no projection) or positive")
    if proj_size >= hidden_size:
        raise ValueError(
            f"proj_size must be smaller than hidden_size {hidden_size}, got {proj_size}"
        )
    return proj_size


def floating(dtype: Any) -> torch.dtype | None:
    """`dtype` if it is None or a floating-point dtype."""
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise TypeError(f"dtype must be a floating-point torch.dtype, got {dtype!r}")
    return dtype


def dropout(value: Any, num_layers: int) -> float:
    """`dropout` as a float in [0, 1]; warns, as torch does, where it has no effect."""
    p = probability("dropout", value)
    if p > 0 and num_layers == 1:
        warnings.warn(
            "dropout option adds dropout after all but last recurrent layer, so non-zero "
            f"dropout expects num_layers greater than 1, but got dropout={value} and "
            "num_layers=1",
            stacklevel=4,
        )
    return p


def zoneout(value: Any, cell: Cell) -> dict[str, float]:
    """State -> probability: a number holds for every state that is not a gate's activation."""
    if not isinstance(value, Mapping):
        p = probability("zoneout", value)
        return {s: p for s in cell.states if s not in cell.gates} if p else {}
    unknown = [str(n) for n in value if n not in cell.states]
    if unknown:
        raise ValueError(
            f"zoneout must name states of {', '.join(cell.states)}, got {', '.join(unknown)}"
        )
    named = {n: probability(f"zoneout of {n}", p) for n, p in value.items()}
    return {n: p for n, p in named.items() if p}


def input_tensor(x: Any, input_size: int, like: torch.Tensor, any_dtype: bool) -> None:
    """Raise where `x` is not a [T, B, I] or [T, I] tensor of the parameters' dtype and device."""
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"input must be a tensor or a PackedSequence, got {type(x).__name__}")
    if x.dim() not in (2, 3):
        raise ShapeError(f"input must have 3 dimensions (2 unbatched), got {x.dim()}")
    tensor_like(x, input_size, like, any_dtype)


def replicated_input(
    x: Any, replicas: int, input_size: int, like: torch.Tensor, any_dtype: bool
) -> None:
    """Raise where `x` is not [replicas, T, B, I], or one [T, B, I] for all of them."""
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"input must be a tensor for a layer of replicas, got {type(x).__name__}")
    if x.dim() not in (3, 4) or (x.dim() == 4 and len(x) != replicas):
        raise ShapeError(
            f"input must be [T, B, {input_size}] for all replicas or [{replicas}, T, B, "
            f"{input_size}] (B before T if batch_first), got {tuple(x.shape)}"
        )
    tensor_like(x, input_size, like, any_dtype)


def replica_seeds(seed: Any, replicas: int) -> tuple[int, ...]:
    """`seed` as one int for each replica."""
    if not isinstance(seed, Sequence) or isinstance(seed, str):
        raise TypeError(f"seed must be a sequence of {replicas} ints for replicas, got {seed!r}")
    if len(seed) != replicas:
        raise ValueError(f"seed must have {replicas} ints, one for each replica, got {seed!r}")
    return tuple(checked_seed(one, f"seed of replica {k}") for k, one in enumerate(seed))


def tensor_like(x: torch.Tensor, input_size: int, like: torch.Tensor, any_dtype: bool) -> None:
    """Raise where `x` differs from the parameters in dtype or device, or in its last size."""
    if x.shape[-1] != input_size:
        raise ShapeError(
            f"input must have input_size {input_size} as its last size, got {tuple(x.shape)}"
        )
    if x.dtype != like.dtype and not (any_dtype and x.is_floating_point()):
        raise ValueError(
            f"input must have the dtype of the parameters, {like.dtype}, got {x.dtype}; "
            f"convert one of them with .to({like.dtype})"
        )
    if x.device != like.device:
        raise ValueError(f"input must be on {like.device} like the parameters, got {x.device}")


def weights(
    tensors: Mapping[str, torch.Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    like: torch.Tensor,
    replicas: int = 0,
) -> None:
    """Raise where a parameter has another shape, dtype or device than the layer needs.

    A parameter can be replaced, swapped in by functional_call or computed by a
    parametrisation; a kernel reads its memory as what it should be.
    """
    dtype, device = like.dtype, like.device
    for name, t in tensors.items():
        shape = (replicas, *shapes[name]) if replicas else shapes[name]
        if t.shape != shape:
            raise ShapeError(f"{name} must have shape {shape}, got {tuple(t.shape)}")
        if t.dtype != dtype or t.device != device:
            raise ValueError(
                f"{name} must be {dtype} on {device} like the input, got {t.dtype} on {t.device}"
            )


def lengths_tensor(given: Any, steps: int, rows: int, device: torch.device) -> torch.Tensor:
    """`lengths` as int64 [B] on `device`, each in 0…T."""
    try:
        t = given if isinstance(given, torch.Tensor) else torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"lengths must be integers, got {given!r}") from None
    if t.numel() == 0:
        t = t.to(torch.int64)  # an empty list has no integer type of its own
    if t.dtype == torch.bool or t.is_floating_point() or t.is_complex():
        raise TypeError(f"lengths must be integers, got {t.dtype}")
    if t.shape != (rows,):
        raise ShapeError(f"lengths must have shape ({rows},), got {tuple(t.shape)}")
    t = t.to(device, torch.int64)
    if rows:
        low, high = (int(v) for v in torch.aminmax(t))
        if low < 0 or high > steps:
            bad = low if low < 0 else high
            raise ValueError(f"lengths must be in 0…{steps} (the steps of input), got {bad}")
    return t


def resets_tensor(given: Any, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """`resets` as bool of `shape` on `device`."""
    if not isinstance(given, torch.Tensor):
        raise TypeError(f"resets must be a bool tensor, got {type(given).__name__}")
    if given.dtype != torch.bool:
        raise TypeError(f"resets must be a bool tensor, got {given.dtype}")
    if tuple(given.shape) != shape:
        raise ShapeError(f"resets must have shape {shape}, got {tuple(given.shape)}")
    return given.to(device)


def record_names(given: Any, allowed: Mapping[str, Any]) -> tuple[str, ...]:
    """`record` as a tuple of names of signals."""
    names = (given,) if isinstance(given, str) else tuple(given)
    for name in names:
        if name not in allowed:
            raise ValueError(f"record must name signals of {', '.join(allowed)}, got {name!r}")
    return tuple(dict.fromkeys(names))


def packed(given: PackedSequence) -> None:
    """Raise where the rows of a packed sequence are not those its batch sizes count."""
    sizes = given.batch_sizes
    if not len(sizes):
        raise ValueError("input must have at least one step in a PackedSequence, got none")
    if len(given.data) != int(sizes.sum()) or bool((sizes[1:] > sizes[:-1]).any()):
        raise ValueError(
            "input must be a PackedSequence whose batch_sizes fall and sum to its "
            f"{len(given.data)} rows, got {sizes.tolist()[:8]}"
        )


def step_offset(offset: Any) -> None:
    """Raise where `offset` is not a step below 2^62."""
    if integer("offset", offset, 0, "zero or positive") >= 1 << 62:  # room to count on from it
        raise ValueError(f"offset must be below 2^62, got {offset}")
