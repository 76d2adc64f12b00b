"""The judge: the cell's own step, in a plain loop over time, with PyTorch's autograd.

Any device, any floating dtype, every option; differentiable any number of times and usable
under torch.func. All other executors are compared with this one in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch.nn.functional import linear

from gatewise.equations.trace import Trace, evaluate
from gatewise.executors.counter import uniform
from gatewise.executors.replicas import in_turn
from gatewise.executors.request import Request, Result, blank_input, live_steps
from gatewise.executors.rounding import rounded


def run(request: Request) -> Result:
    """Unroll the cell over time."""
    if request.replicas:
        return in_turn(run, request)
    request = blank_input(rounded(request))
    trace, weights, x = request.trace, request.weights, request.x
    steps, live = len(x), live_steps(request)
    projected = linear(x, weights.weight_ih, weights.bias_ih)  # [T, B, G*H]
    keep = zoneout_masks(request)

    state = dict(request.state)
    outputs: list[Any] = [None] * steps
    records: dict[str, list[Any]] = {name: [None] * steps for name in request.record}
    for t in reversed(range(steps)) if request.reverse else range(steps):
        if request.resets is not None:
            gone = request.resets[t] if live is None else request.resets[t] & live[t]
            gone = gone.unsqueeze(-1)  # [B, 1]; a step that does not exist resets nothing
            state = {n: torch.where(gone, torch.zeros_like(s), s) for n, s in state.items()}
        new, signals = _step(request, projected[t], state, _sever(request, t))
        for name, mask in keep.items():
            new[name] = mask[t] * state[name] + (1 - mask[t]) * new[name]
        if live is not None:
            on = live[t].unsqueeze(-1)
            new = {n: torch.where(on, s, state[n]) for n, s in new.items()}
            outputs[t] = torch.where(on, new[trace.output], torch.zeros_like(new[trace.output]))
        else:
            on = None
            outputs[t] = new[trace.output]
        for name in request.record:
            value = new[name] if name in new else signals(name)
            records[name][t] = value if on is None else torch.where(on, value, 0.0)
        state = new
    if not steps:
        empty = x.new_zeros(0, *state[trace.output].shape)
        wide = x.new_zeros(0, x.shape[1], _hidden(request))
        return Result(empty, state, dict.fromkeys(request.record, wide))
    return Result(torch.stack(outputs), state, {n: torch.stack(v) for n, v in records.items()})


def _hidden(request: Request) -> int:
    return request.weights.weight_ih.shape[0] // len(request.trace.gates)


class _CutWeight:
    """Stands for a per-unit recurrent weight whose edge is cut: what it multiplies is constant."""

    def __init__(self, weight: torch.Tensor, sever: Callable[[Any], Any]) -> None:
        self.weight, self.sever = weight, sever

    def __mul__(self, value: Any) -> Any:
        return self.weight * self.sever(value)

    __rmul__ = __mul__


def _sever(request: Request, t: int) -> Callable[[Any], Any]:
    """What step t does to a value that an edge in `cut` carries: no gradient flows past it."""
    if request.cut_steps is None:
        return lambda value: value.detach()
    here = request.cut_steps[t].unsqueeze(-1)  # [B, 1]
    return lambda value: torch.where(here, value.detach(), value)


def _step(
    request: Request,
    from_input: torch.Tensor,
    state: dict[str, torch.Tensor],
    sever: Callable[[Any], Any],
) -> Any:
    """One step: the new states [B, H] by name, and a function name -> recorded value."""
    trace, weights, cut = request.trace, request.weights, request.cut
    hidden = _hidden(request)
    fed = [sever(state[s]) if s in cut else state[s] for s in trace.feedback]
    fed_back = torch.cat([from_input.new_zeros(len(from_input), 0), *fed], -1)  # [B, R]
    params: dict[str, Any] = {
        p: _CutWeight(w, sever) if p in cut else w for p, w in weights.parameters.items()
    }
    if request.feedback_mask is not None:
        fed_back = fed_back * request.feedback_mask
    x_parts = dict(zip(trace.gates, from_input.split(hidden, -1), strict=True))
    values: dict[str, torch.Tensor] = {f"{s}_prev": v for s, v in state.items()}
    values |= {f"p_{p}": v for p, v in weights.parameters.items()}
    gates: dict[str, Any] = dict.fromkeys(trace.cell.gates)
    rows = {g: slice(k * hidden, (k + 1) * hidden) for k, g in enumerate(trace.gates)}

    def late_gate(g: str) -> Any:
        def product(value: torch.Tensor) -> torch.Tensor:
            if cut:
                value = sever(value)
            if request.feedback_mask is not None:
                value = value * request.feedback_mask
            values[f"a_{g}"] = x_parts[g] + linear(value, *_part(weights, rows[g]))
            return values[f"a_{g}"]

        return product

    recurrent = linear(fed_back, weights.weight_hh, weights.bias_hh)  # [B, G*H]
    for g, h_part in zip(trace.gates, recurrent.split(hidden, -1), strict=True):
        if g in trace.cell.split:
            values[f"a_{g}_x"], values[f"a_{g}_h"] = x_parts[g], h_part
            gates[g] = SimpleNamespace(input=x_parts[g], recurrent=h_part)
        elif g in trace.cell.late:
            gates[g] = late_gate(g)
        else:
            values[f"a_{g}"] = gates[g] = x_parts[g] + h_part

    result = trace.cell.run_step(
        SimpleNamespace(**_absent(trace, gates)),
        SimpleNamespace(**state),
        SimpleNamespace(**dict.fromkeys(trace.cell.parameters, 0.0) | params),
    )
    shape = (len(from_input), hidden)
    new = {s: _whole(result[s], shape, from_input) for s in trace.states}
    if weights.projection is not None:
        new[trace.output] = linear(new[trace.output], weights.projection)

    def signal(name: str) -> torch.Tensor:
        value = result[name] if name in result else evaluate(trace.signals[name], values)
        return _whole(value, shape, from_input)

    return new, signal


def _part(weights: Any, rows: slice) -> tuple[torch.Tensor, torch.Tensor | None]:
    bias = weights.bias_hh
    return weights.weight_hh[rows], None if bias is None else bias[rows]


def _absent(trace: Trace, gates: dict[str, Any]) -> dict[str, Any]:
    """A gate the equations do not use has no pre-activation; its function ignores this 0."""
    return {
        g: (SimpleNamespace(input=0.0, recurrent=0.0) if g in trace.cell.split else 0.0)
        if v is None
        else v
        for g, v in gates.items()
    }


def _whole(value: Any, shape: tuple[int, int], like: torch.Tensor) -> torch.Tensor:
    """A constant a step returned, as a tensor."""
    if isinstance(value, torch.Tensor) and value.shape == shape:
        return value
    return torch.as_tensor(value, dtype=like.dtype, device=like.device).expand(shape)


def zoneout_masks(request: Request) -> dict[str, torch.Tensor]:
    """State -> how much of the previous value stays, [T, B, H] (or a constant per step)."""
    z, x = request.zoneout, request.x
    if z is None:
        return {}
    steps, batch, _ = x.shape
    masks = {}
    assert isinstance(z.seed, int)
    for k, name in enumerate(request.trace.states):
        p = z.probability.get(name, 0.0)
        if p == 0.0:
            continue
        size = request.state[name].shape[-1]
        if z.training:
            # States take separate ranges of units, so that their masks are independent.
            stream = z.stream * len(request.trace.states) + k
            span = range(z.offset, z.offset + steps)
            mask = (uniform(z.seed, stream, span, batch, size, x.device) < p).to(x.dtype)
        else:
            mask = x.new_full((steps, 1, 1), p)
        masks[name] = mask
    return masks
