"""A stack of layers over one batch: what each direction is asked, and what lies between layers.

Shapes: T = time, B = batch, I = input size, H = hidden units, P = projection size, O = P or H,
L = layers, D = directions (1, or 2 if bidirectional), N = size of a state. The replicas of a layer
come in front of every shape.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.nn.functional import layer_norm

from gatewise import executors
from gatewise.equations.layout import Layout
from gatewise.equations.trace import Trace
from gatewise.executors import Request, Result, Zoneout
from gatewise.executors.checkpoint import usual_length
from gatewise.layers import check, masks
from gatewise.layers.border import Batch, backward_resets

if TYPE_CHECKING:
    from gatewise.layers.recurrent import Recurrent

Runner = Callable[[Request], Result]


@dataclass(frozen=True)
class Direction:
    """One direction of one layer: its parameter shapes and where its parameters live."""

    layout: Layout
    names: tuple[tuple[str, str], ...]  # (name in shapes, attribute of the layer)
    shapes: dict[str, tuple[int, ...]]  # layout.shapes()
    index: int  # layer · D + direction: its place in states and records, its random stream
    reverse: bool


Plan = tuple[tuple[Direction, ...], ...]  # the directions of every layer


class Call(NamedTuple):
    """What one call of a layer asks for, checked and time first."""

    batch: Batch
    initial: dict[str, torch.Tensor]  # state -> [L*D, B, N]; absent where zero
    record: tuple[str, ...]
    seed: masks.Seed
    offset: int


def plan(
    trace: Trace,
    input_size: int,
    hidden_size: int,
    num_layers: int,
    bias: bool,
    bidirectional: bool,
    proj_size: int,
) -> Plan:
    """Parameter shapes and names of every direction of every layer."""
    count, width = 1 + bidirectional, input_size
    layers = []
    for layer in range(num_layers):
        layout = Layout(trace, width, hidden_size, proj_size, bias)
        shapes = layout.shapes()
        names = [(n, f"{n}_l{layer}") for n in shapes]
        layers.append(
            tuple(
                Direction(
                    layout,
                    tuple((local, name + "_reverse" * k) for local, name in names),
                    shapes,
                    layer * count + k,
                    reverse=k == 1,
                )
                for k in range(count)
            )
        )
        width = count * (proj_size or hidden_size)
    return tuple(layers)


def run(
    layer: Recurrent, plan: Plan, call: Call, runner: Runner | None
) -> tuple[torch.Tensor, list[Result]]:
    """All layers in turn: the last one's output [T, B, D*O] and every direction's result."""
    x, results = call.batch.x, []
    for level, directions in enumerate(plan):
        if level:
            x = _between(layer, level, x, call)
        fed = x
        if layer.training and (rate := _input_dropout(layer, level)):
            stream = masks.LAYER_INPUT + level
            fed = x * masks.dropout_mask(rate, call.seed, stream, range(1), x, x.shape[-1])
        requests = [_request(layer, d, fed, call) for d in directions]
        y, found = _run_level(layer, requests, runner)
        x = x + y if layer.residual and level else y
        results += found
    return x, results


def _input_dropout(layer: Recurrent, level: int) -> float:
    rates = layer.input_dropout
    return rates[level] if isinstance(rates, tuple) else rates


def _run_level(
    layer: Recurrent, requests: list[Request], runner: Runner | None
) -> tuple[torch.Tensor, list[Result]]:
    """The directions of one layer: their outputs side by side, and their results."""
    if runner is None and len(requests) == 2:
        return executors.run_both((requests[0], requests[1]), layer.executor, layer.strict)
    if runner is None:
        found = [executors.run(requests[0], layer.executor, layer.strict)]
    else:
        found = [runner(r) for r in requests]
    y = found[0].output if len(found) == 1 else torch.cat([r.output for r in found], -1)
    return y, found


def _between(layer: Recurrent, level: int, x: torch.Tensor, call: Call) -> torch.Tensor:
    """What the layer at `level` gets of the output below it: normalised, dropped."""
    if layer.layer_norm:
        x = _normalised(layer, level, x)
        if call.batch.live is not None:  # its bias must not fill steps that do not exist
            x = torch.where(call.batch.live, x, 0.0)
    if layer.dropout and layer.training:
        steps = range(call.offset, call.offset + x.shape[-3])
        stream = masks.BETWEEN_LAYERS + level
        x = x * masks.dropout_mask(layer.dropout, call.seed, stream, steps, x, x.shape[-1])
    return x


def _normalised(layer: Recurrent, level: int, x: torch.Tensor) -> torch.Tensor:
    norm: Any = layer.norms[level - 1]
    if not layer.replicas:
        return norm(x)
    rows = zip(x, norm.weight, norm.bias, strict=True)
    return torch.stack([layer_norm(r, r.shape[-1:], w, b, norm.eps) for r, w, b in rows])


def _request(layer: Recurrent, d: Direction, x: torch.Tensor, call: Call) -> Request:
    """One direction of one layer, as an executor takes it."""
    layout, batch = d.layout, call.batch
    tensors = layer.weights_of(d)
    check.weights(tensors, d.shapes, call.batch.x, layer.replicas)
    if layer.weight_dropout and layer.training:
        whole, stream = tensors["weight_hh"], masks.WEIGHTS + d.index
        mask = masks.weight_mask(layer.weight_dropout, call.seed, stream, whole)
        tensors["weight_hh"] = whole * mask
    weights = layout.weights(tensors)
    resets = batch.resets
    if resets is not None and d.reverse:
        resets = backward_resets(resets)
    mask = None
    if layer.recurrent_dropout and layer.training:
        mask = masks.dropout_mask(
            layer.recurrent_dropout,
            call.seed,
            masks.RECURRENT + d.index,
            range(1),
            x,
            weights.weight_hh.shape[-1],
        ).squeeze(-3)
    zoneout = None
    if layer.zoneout:
        zoneout = Zoneout(layer.zoneout, layer.training, call.seed, d.index, call.offset)
    return Request(
        layout.trace,
        weights,
        x,
        _state(d, x, call.initial),
        d.reverse,
        batch.lengths,
        resets,
        call.record,
        mask,
        zoneout,
        checkpoint=_chunk(layer.checkpoint, x.shape[-3]),
        held=layer.weights,
    )


def _chunk(checkpoint: bool | int, steps: int) -> int:
    """Steps per chunk: 0 for no chunks, √T for True."""
    return usual_length(steps) if checkpoint is True else int(checkpoint)


def _state(
    d: Direction, x: torch.Tensor, initial: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The states before the first step, name -> [B, H]."""
    layout = d.layout
    state = {}
    for s in layout.trace.states:
        if s in initial:
            state[s] = layout.expand_state(s, initial[s].select(-3, d.index))
        else:
            projected = layout.proj_size if s == layout.trace.output else 0
            size = projected or layout.hidden_size
            state[s] = x.new_zeros(*x.shape[:-3], x.shape[-2], size)
    return state
