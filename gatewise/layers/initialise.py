"""Initialisations by name: `gatewise.init`.

Each takes a layer and sets its parameters in place. H = units, I = input size.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from gatewise.equations.layout import Layout
    from gatewise.layers.recurrent import Recurrent

Init = str | Callable[["Recurrent"], Any]
Tensors = dict[str, torch.Tensor]


@torch.no_grad()
def torch_default(layer: Recurrent) -> None:
    """torch.nn's: every weight and bias from U(-1/√H, 1/√H), drawn in torch's order.

    Per-unit parameters (peepholes, gains) get their cell's initial value.
    """
    bound = 1.0 / math.sqrt(layer.hidden_size)
    for layout, tensors in _directions(layer):
        for name, t in tensors.items():
            if name in layout.trace.parameters:
                t.fill_(layout.trace.cell.parameters[name])
            else:
                t.uniform_(-bound, bound)


@torch.no_grad()
def uniform(layer: Recurrent, bound: float = 0.1) -> None:
    """Every weight and bias from U(-bound, bound); the 1997 paper's is 0.1 or 0.2.

    Per-unit parameters stay as they are.
    """
    if not bound >= 0:
        raise ValueError(f"bound must be zero or positive, got {bound}")
    for layout, tensors in _directions(layer):
        for name, t in tensors.items():
            if name not in layout.trace.parameters:
                t.uniform_(-bound, bound)


@torch.no_grad()
def orthogonal(layer: Recurrent, gain: float = 1.0) -> None:
    """Each gate's recurrent block is (semi-)orthogonal times `gain` (Saxe et al., 2014)."""
    for layout, tensors in _directions(layer):
        recurrent = tensors["weight_hh"]
        if not recurrent.shape[1]:
            raise ValueError(f"init 'orthogonal' needs recurrent weights; {_name(layout)} has none")
        sizes = [layout.gate_rows(g) for g in layout.trace.gates]
        for block in recurrent.split(sizes):
            # The QR inside knows single and double precision only.
            wide = torch.empty_like(block, dtype=torch.promote_types(block.dtype, torch.float32))
            block.copy_(torch.nn.init.orthogonal_(wide, gain))


@torch.no_grad()
def forget_bias(layer: Recurrent, value: float = 1.0) -> None:
    """The bias of every gate that keeps memory is `value` (Gers et al. 2000; Józefowicz 2015).

    That gate is the forget gate of an LSTM, the update gate of a GRU. Of two biases the
    first gets the value, the second zero.
    """
    for layout, tensors in _directions(layer):
        gates = [g for g, sign in layout.trace.cell.keeps.items() if sign > 0]
        found = _biased(layout, tensors, gates, "forget_bias")
        for g in found:
            _set_bias(layout, tensors, g, value)


@torch.no_grad()
def chrono(layer: Recurrent, longest: float) -> None:
    """Time scales up to `longest` steps: b_f = ln u, b_i = -b_f, u ~ U[1, longest - 1].

    A gate that keeps memory gets +ln u, one that overwrites it -ln u, with one u per unit.
    Source: Tallec & Ollivier, Can recurrent neural networks warp time?, 2018.
    """
    if not longest >= 2:
        raise ValueError(f"longest must be at least 2 steps, got {longest}")
    for layout, tensors in _directions(layer):
        keeps = layout.trace.cell.keeps
        found = _biased(layout, tensors, list(keeps), "chrono")
        like = tensors["weight_ih"]
        log_u = torch.empty(layout.hidden_size, dtype=like.dtype, device=like.device)
        log_u.uniform_(1.0, float(longest) - 1.0).log_()
        for g in found:
            per_row = log_u[:: layout.hidden_size // layout.gate_rows(g)]
            _set_bias(layout, tensors, g, keeps[g] * per_row)


def _directions(layer: Recurrent) -> Iterator[tuple[Layout, Tensors]]:
    return ((d.layout, layer.weights_of(d)) for d in layer.directions)


def _name(layout: Layout) -> str:
    return type(layout.trace.cell).__name__


def _biased(layout: Layout, tensors: Tensors, gates: list[str], init: str) -> list[str]:
    """Those of `gates` that exist and have a bias; ValueError where none does."""
    found = [g for g in gates if layout.bias_slice(g) is not None or f"bias_{g}" in tensors]
    if not found:
        raise ValueError(
            f"init {init!r} needs a gate that keeps memory and has a bias; "
            f"{_name(layout)}{'' if layout.bias else ' with bias=False'} has none"
        )
    return found


def _set_bias(layout: Layout, tensors: Tensors, gate: str, value: Any) -> None:
    rows = layout.bias_slice(gate)
    if rows is None:  # a cell that normalises adds its bias as a per-unit parameter
        tensors[f"bias_{gate}"][:] = value
        return
    tensors["bias" if "bias" in tensors else "bias_ih"][rows] = value
    if "bias_hh" in tensors:
        tensors["bias_hh"][rows] = 0.0


NAMES: dict[str, Callable[..., None]] = {
    "torch": torch_default,
    "forget_bias": forget_bias,
    "chrono": chrono,
    "orthogonal": orthogonal,
    "uniform": uniform,
}


def initialise(layer: Recurrent, init: Init | Sequence[Init]) -> None:
    """Apply one initialisation or several in order, after torch's default."""
    chosen = list(init) if isinstance(init, list | tuple) else [init]
    steps = [_parse(i) for i in chosen]
    if not steps or steps[0] is not torch_default:
        torch_default(layer)  # no parameter is left as allocated
    for step in steps:
        step(layer)


def _parse(init: Any) -> Callable[[Recurrent], Any]:
    """A function of the layer: "chrono(200)" -> chrono with longest=200."""
    if callable(init):
        return init
    if not isinstance(init, str):
        raise TypeError(f"init must be a name, a function or a list of these, got {init!r}")
    match = re.fullmatch(r"\s*(\w+)\s*(?:\(\s*([^()]*?)\s*\))?\s*", init)
    if match is None or match[1] not in NAMES:
        raise ValueError(f"init must be one of {', '.join(NAMES)}, got {init!r}")
    function = NAMES[match[1]]
    if not match[2]:
        if function is chrono:
            raise ValueError("init 'chrono' needs the longest time span, as in 'chrono(200)'")
        return function
    try:
        value = float(match[2])
    except ValueError:
        raise ValueError(f"init {match[1]!r} takes one number, got {match[2]!r}") from None
    if function is torch_default:
        raise ValueError(f"init 'torch' takes no number, got {init!r}")
    return lambda layer: function(layer, value)
