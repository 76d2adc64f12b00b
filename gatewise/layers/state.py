"""A layer's states as the user sees them: named, in one tuple, torch's shapes.

Shapes: L = layers, D = directions, B = batch, S = size of the state (H, or P if projected).
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import torch

from gatewise.layers.check import ShapeError


@cache
def state_type(names: tuple[str, ...]) -> Any:
    """The tuple class with these fields: `h, c = state` and `state.c` both work."""
    cls = namedtuple("State", names)
    # The class has no importable name; its instances pickle as names and values.
    cls.__reduce__ = lambda self: (make_state, (names, tuple(self)))
    return cls


def make_state(names: tuple[str, ...], values: Iterable[Any]) -> Any:
    """A state tuple from its field names and values.

    >>> state = make_state(("h", "c"), (1, 2))
    >>> state.c
    2
    """
    return state_type(names)(*values)


def read_state(given: Any, names: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """A state given as a tensor, tuple or mapping, by name; names left out start at zero."""
    if given is None:
        return {}
    if isinstance(given, torch.Tensor):
        if len(names) > 1:
            raise TypeError(
                f"state must be a tuple of {len(names)} tensors ({', '.join(names)}), "
                "got one tensor"
            )
        return dict(zip(names, (given,), strict=True))
    if isinstance(given, Mapping):
        unknown = [str(n) for n in given if n not in names]
        if unknown:
            raise ValueError(f"state must name only {', '.join(names)}, got {', '.join(unknown)}")
        found = dict(given)
    elif isinstance(given, tuple | list):
        if len(given) != len(names):
            raise ValueError(
                f"state must hold {len(names)} tensors ({', '.join(names)}), got {len(given)}"
            )
        found = dict(zip(names, given, strict=True))
    else:
        raise TypeError(
            f"state must be a tensor, a tuple or a dict of tensors, got {type(given).__name__}"
        )
    for name, value in found.items():
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"state {name} must be a tensor, got {type(value).__name__}")
    return found


def check_state(name: str, t: torch.Tensor, shape: tuple[int, ...], like: torch.Tensor) -> None:
    """Raise where a given state has another shape, dtype or device than the layer needs."""
    if tuple(t.shape) != shape:
        raise ShapeError(f"state {name} must have shape {shape}, got {tuple(t.shape)}")
    if t.dtype != like.dtype:
        raise ValueError(f"state {name} must have dtype {like.dtype}, got {t.dtype}")
    if t.device != like.device:
        raise ValueError(f"state {name} must be on {like.device}, got {t.device}")


# A saved state loads as torch.nn's does, with torch.load's default of weights only.
torch.serialization.add_safe_globals([make_state])
