"""Many layers of one shape as one: N independent networks, run together.

Shapes: N = replicas, T = time, B = batch, I = input size, O = output size, L = layers,
D = directions, S = size of a state.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from gatewise.executors.counter import checked_seed
from gatewise.layers.check import ShapeError
from gatewise.layers.recurrent import Recurrent

Layer = TypeVar("Layer", bound=Recurrent)


def replicate(make: Callable[[], Layer], seeds: Iterable[int]) -> Layer:
    """N layers that differ in their seed alone, as one layer that runs them together.

    Args:
        make: makes one layer, `lambda: gw.LSTM(3, 32)`.
        seeds: N ints. Replica k starts as `torch.manual_seed(seeds[k])` and `make()` would;
            torch's own generator is left as it was.

    Returns:
        what `join` returns.

    Raises:
        TypeError, ValueError: a seed that is no int in 0…2^63 - 1, or what `join` refuses.

    >>> import torch
    >>> import gatewise as gw
    >>> nets = gw.replicate(lambda: gw.LSTM(3, 5), seeds=range(10))
    >>> output, state = nets(torch.zeros(10, 7, 2, 3))
    >>> output.shape, state.c.shape
    (torch.Size([10, 7, 2, 5]), torch.Size([10, 1, 2, 5]))
    >>> torch.equal(gw.replica(nets, 4)(torch.zeros(7, 2, 3))[0], output[4])
    True
    """
    layers = []
    for seed in [checked_seed(s, f"seeds[{k}]") for k, s in enumerate(seeds)]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers.append(make())
    return join(layers)


def join(layers: Sequence[Layer]) -> Layer:
    """Copies of `layers` as one layer that runs them together; they may differ in weights alone.

    Every parameter [...] becomes [N, ...], so one optimiser step trains all of them. The layer
    takes input [N, T, B, I], or one [T, B, I] for all (B before T if batch_first), and returns
    output [N, T, B, D*O], states [N, L*D, B, S] and records [N, L*D, T, B, S]; lengths are [N, B]
    or [B], resets [N, T, B] or [T, B], and a `seed` is N ints. Replica k computes what its layer
    alone computes; one call of the compiled kernel runs all of them, split over the threads.

    Raises:
        TypeError, ValueError: no layers, or layers of different kinds or shapes.
    """
    layers = list(layers)
    if not layers:
        raise ValueError("layers must hold at least one layer, got none")
    first = layers[0]
    for k, layer in enumerate(layers):
        if not isinstance(layer, Recurrent):
            raise TypeError(f"layers must be gatewise layers, got {type(layer).__name__}")
        if layer.replicas or is_parametrized(layer):
            raise ValueError(
                f"layers must be plain layers, layer {k} has replicas or is parametrised"
            )
        if type(layer) is not type(first) or repr(layer) != repr(first):
            raise ValueError(f"layers must be alike, layer 0 is {first}, layer {k} is {layer}")
    whole = copy.deepcopy(first)
    parts = [dict(layer.named_parameters()) for layer in layers]

    def stacked(name: str) -> torch.Tensor:
        return torch.stack([p[name].detach() for p in parts])

    _replace(whole, {name: stacked(name) for name in parts[0]})
    whole.replicas = len(layers)
    return whole


def replica(layer: Layer, k: int) -> Layer:
    """A copy of one replica as an ordinary layer.

    Raises ValueError where there is no such replica.
    """
    _check_index(layer, k)
    one = copy.deepcopy(layer)
    one.replicas = 0
    _replace(one, {n: p.detach()[k].clone() for n, p in layer.named_parameters()})
    return one


def load_replica(layer: Recurrent, k: int, state_dict: Mapping[str, torch.Tensor]) -> None:
    """Set the weights of one replica, in place, to those of an ordinary layer's `state_dict`.

    Raises ValueError where there is no such replica, or another name or shape.
    """
    _check_index(layer, k)
    own = dict(layer.named_parameters())
    if own.keys() != state_dict.keys():
        different = ", ".join(sorted(own.keys() ^ state_dict.keys()))
        raise ValueError(f"state_dict must have the layer's parameters, different: {different}")
    for name, p in own.items():
        if state_dict[name].shape != p.shape[1:]:
            raise ShapeError(
                f"{name} must have shape {tuple(p.shape[1:])}, got {tuple(state_dict[name].shape)}"
            )
    with torch.no_grad():
        for name, p in own.items():
            p[k].copy_(state_dict[name])


def _check_index(layer: Recurrent, k: int) -> None:
    if not 0 <= k < layer.replicas:
        raise ValueError(f"k must be a replica of the layer, below {layer.replicas}, got {k}")


def _replace(layer: nn.Module, values: Mapping[str, torch.Tensor]) -> None:
    """Give the module new parameters under the same names."""
    for name, value in values.items():
        path, _, own = name.rpartition(".")
        module = layer.get_submodule(path)
        needs_grad = layer.get_parameter(name).requires_grad
        setattr(module, own, nn.Parameter(value, needs_grad))
