"""All steps at once, for cells whose states are affine in their past: a parallel scan over time.

Where the gates do not see the state, s_t = a_t ∘ s_{t-1} + b_t with a_t and b_t known for all t
beforehand. Two such steps compose to a third, (a₂a₁, a₂b₁ + b₂), and composition is associative:
so T steps take about 2·16·log₁₆ T operations on tensors, whatever the device, instead of T.
(Blelloch, Prefix sums and their applications, 1990; Martin & Cundy, 2018; Feng et al., 2024.)

a and b come from the traced equations, by SymPy: a = ∂new/∂s_prev, b = new at s_prev = 0.

Shapes: T = time, B = batch, H = hidden units, K = steps scanned one by one, N = T/K.
"""

from __future__ import annotations

import functools
from typing import Any

import sympy
import torch
from torch.nn.functional import linear

from gatewise.equations.trace import Trace, evaluate, symbol
from gatewise.executors import reference
from gatewise.executors.replicas import in_turn
from gatewise.executors.request import Request, Result, blank_input, live_steps
from gatewise.executors.rounding import rounded

_K = 16  # steps one by one: more means fewer levels, and fewer numbers at work at once
_DTYPES = (torch.float32, torch.float64)


@functools.lru_cache(maxsize=256)
def affine(trace: Trace) -> dict[str, tuple[sympy.Expr, sympy.Expr]]:
    """State -> (a, b) with new = a · previous + b, for every state that later steps read.

    Empty where the cell has another form: gates that see a state, a product or mean over units,
    a state that is not affine in its past, or one that reads another state's past.
    """
    if trace.feedback or not trace.pointwise:
        return {}
    past = {s: symbol(f"{s}_prev") for s in trace.states}
    read = {n for e in trace.new_states.values() for n in e.free_symbols}
    found = {}
    for s, previous in past.items():
        if previous not in read:
            continue  # computed from the others, at every step for itself
        new = trace.new_states[s]
        a = sympy.diff(new, previous)
        if any(p in a.free_symbols for p in past.values()):
            return {}
        b = new.subs(previous, 0)
        if any(p in b.free_symbols for p in past.values()):
            return {}
        found[s] = (a, b)
    return found


def obstacles(request: Request) -> list[str]:
    """Why time cannot be scanned for `request`; empty where it can."""
    trace, name = request.trace, type(request.trace.cell).__name__
    recurrent = affine(trace)
    if not recurrent:
        return [f"time cannot be scanned: the gates of {name} see its state"]
    found = []
    if request.x.dtype not in _DTYPES:
        found.append(f"the scan computes in float32 or float64, the input is {request.x.dtype}")
    if request.cut:
        found.append("the scan cuts no edges")
    if request.zoneout is not None:
        zoned = [s for s, p in request.zoneout.probability.items() if p and s not in recurrent]
        if zoned:
            found.append(f"the scan has no zoneout of {', '.join(zoned)}")
    return found


def run(request: Request) -> Result:
    """Run all steps at once; differentiable where an input requires it.

    Raises ValueError where there are `obstacles`.
    """
    request = rounded(request)
    why = obstacles(request)
    if why:
        raise ValueError("; ".join(why))
    if not request.x.numel():
        return reference.run(request)  # nothing to compute; the reference knows the shapes
    if request.replicas:
        return in_turn(run, request)
    request, trace = blank_input(request), request.trace
    live, gone = _masks(request)
    keep = reference.zoneout_masks(request)
    values = _gates(request)
    states: dict[str, torch.Tensor] = {}
    before: dict[str, torch.Tensor] = {}
    for s, (a, b) in affine(trace).items():
        shape = (*request.x.shape[:2], request.state[s].shape[-1])
        slope, offset = (_whole(evaluate(e, values), shape, request.x) for e in (a, b))
        if s in keep:
            slope, offset = keep[s] + (1 - keep[s]) * slope, (1 - keep[s]) * offset
        if gone is not None:
            # What zoneout keeps is the state after the reset, so the whole slope goes.
            slope = torch.where(gone, 0.0, slope)
        if live is not None:
            slope, offset = torch.where(live, slope, 1.0), torch.where(live, offset, 0.0)
        states[s] = _over_time(slope, offset, request.state[s], request.reverse)
        before[s] = _previous(states[s], request.state[s], gone, request.reverse)
    last = 0 if request.reverse else -1
    final = {s: v[last] for s, v in states.items()}
    if len(states) < len(trace.states) or request.record:
        rest = _steps(request, before)
        ended = _ended(request)
        for s in trace.states:
            if s not in states:
                states[s] = rest[s]
                final[s] = torch.where(ended[1], rest[s][ended[0]], request.state[s])
    else:
        rest = {}
    rest |= states  # a state that zoneout keeps is not what its step alone makes of it
    wanted = {n: rest[n] for n in dict.fromkeys((trace.output, *request.record))}
    if live is not None:
        wanted = {n: torch.where(live, v, 0.0) for n, v in wanted.items()}
    return Result(
        wanted[trace.output],
        {s: final[s] for s in trace.states},
        {n: wanted[n] for n in request.record},
    )


def _masks(request: Request) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """[T, B, 1] bool: steps that exist, and those before which the state is zeroed."""
    live, gone = live_steps(request), request.resets
    if live is not None:
        gone = None if gone is None else gone & live
    return (
        None if live is None else live.unsqueeze(-1),
        None if gone is None else gone.unsqueeze(-1),
    )


def _gates(request: Request) -> dict[str, Any]:
    """Every pre-activation [T, B, H] and parameter by its symbol; no gate sees a state."""
    trace, w = request.trace, request.weights
    hidden = w.weight_ih.shape[0] // len(trace.gates)
    sums = linear(request.x, w.weight_ih, w.bias_ih).split(hidden, -1)
    biases = (None,) * len(sums) if w.bias_hh is None else w.bias_hh.split(hidden)
    values: dict[str, Any] = {f"p_{p}": v for p, v in w.parameters.items()}
    for g, total, bias in zip(trace.gates, sums, biases, strict=True):
        if g in trace.cell.split:
            values[f"a_{g}_x"] = total
            values[f"a_{g}_h"] = torch.zeros_like(total) if bias is None else bias
        else:
            values[f"a_{g}"] = total if bias is None else total + bias
    return values


def _steps(request: Request, before: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """States and records of every step, by the cell's own step, all steps as rows of one."""
    steps, batch, inputs = request.x.shape
    flat = {s: v.flatten(0, 1) for s, v in before.items()}
    blank = request.x.new_zeros(steps * batch, 1)
    for s, v in request.state.items():
        flat.setdefault(s, blank.expand(-1, v.shape[-1]))  # read by no step
    one = Request(
        request.trace,
        request.weights,
        request.x.reshape(1, steps * batch, inputs),
        flat,
        record=request.record,
    )
    done = reference.run(one)
    found = {s: v.unflatten(0, (steps, batch)) for s, v in done.state.items()}
    return found | {n: v[0].unflatten(0, (steps, batch)) for n, v in done.record.items()}


def _ended(request: Request) -> tuple[Any, torch.Tensor]:
    """Where each row's last step lies, and [B, 1]: whether it has any."""
    steps, batch, _ = request.x.shape
    rows = torch.arange(batch, device=request.x.device)
    lengths = request.lengths
    lengths = torch.full_like(rows, steps) if lengths is None else lengths.to(rows.device)
    at = torch.zeros_like(rows) if request.reverse else (lengths - 1).clamp(min=0)
    return (at, rows), (lengths > 0).unsqueeze(-1)


def _previous(
    states: torch.Tensor, first: torch.Tensor, gone: torch.Tensor | None, reverse: bool
) -> torch.Tensor:
    """[T, B, H]: what each step finds."""
    parts = [states[1:], first.unsqueeze(0)] if reverse else [first.unsqueeze(0), states[:-1]]
    found = torch.cat(parts)
    return found if gone is None else torch.where(gone, 0.0, found)


def _over_time(a: torch.Tensor, b: torch.Tensor, first: torch.Tensor, reverse: bool) -> Any:
    if reverse:
        return scan(a.flip(0), b.flip(0), first).flip(0)
    return scan(a, b, first)


def _whole(value: Any, shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """A constant coefficient, as a tensor."""
    return torch.as_tensor(value, dtype=like.dtype, device=like.device).expand(shape)


def scan(a: torch.Tensor, b: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
    """s_t = a_t ∘ s_{t-1} + b_t for all t, from s_{-1} = first.

    Args:
        a, b: [T, ...], T > 0.
        first: [...].

    Returns:
        s [T, ...]. Differentiable any number of times; the derivative is a scan backwards in time:
        with d_t = dL/ds_t from outside, g_t = d_t + a_{t+1} ∘ g_{t+1}, dL/db_t = g_t and
        dL/da_t = g_t ∘ s_{t-1}.

    A product of slopes beyond the range of the dtype can make NaN of a state that is still 0.

    >>> import torch
    >>> scan(torch.full((4,), 0.5), torch.ones(4), torch.tensor(2.0))
    tensor([2., 2., 2., 2.])
    """
    return _Scan.apply(a, b, first)


class _Scan(torch.autograd.Function):
    generate_vmap_rule = True  # usable under torch.func

    @staticmethod
    def forward(a: torch.Tensor, b: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        return _composed(a, b, first)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: torch.Tensor) -> None:
        a, _, first = inputs
        ctx.save_for_backward(a, first, output)
        ctx.save_for_forward(a, first, output)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (d,) = grads
        a, first, s = ctx.saved_tensors
        later = torch.cat([a[1:], torch.zeros_like(a[:1])])  # a_{t+1}
        g = scan(later.flip(0), d.flip(0), torch.zeros_like(first)).flip(0)
        before = torch.cat([first.unsqueeze(0), s[:-1]])
        return g * before, g, g[0] * a[0]

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        d_a, d_b, d_first = tangents
        a, first, s = ctx.saved_tensors
        before = torch.cat([first.unsqueeze(0), s[:-1]])
        return scan(a, d_a * before + d_b, d_first)


def _composed(a: torch.Tensor, b: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
    """`scan` without a graph: pieces of K steps side by side, their ends by the same means."""
    steps = len(a)
    if steps <= 2 * _K:
        found = []
        for t in range(steps):
            first = torch.addcmul(b[t], a[t], first)
            found.append(first)
        return torch.stack(found)
    pieces = -(-steps // _K)
    missing = pieces * _K - steps
    if missing:
        a = torch.cat([a, a.new_ones(missing, *a.shape[1:])])
        b = torch.cat([b, b.new_zeros(missing, *b.shape[1:])])
    a = a.unflatten(0, (pieces, _K))  # [N, K, ...]
    b = b.unflatten(0, (pieces, _K))
    slopes, offsets = [a[:, 0]], [b[:, 0]]  # of each piece's first k steps
    for k in range(1, _K):
        slopes.append(a[:, k] * slopes[-1])
        offsets.append(torch.addcmul(b[:, k], a[:, k], offsets[-1]))
    ends = _composed(slopes[-1][:-1], offsets[-1][:-1], first)
    starts = torch.cat([first.unsqueeze(0), ends])  # [N, ...]
    found = [torch.addcmul(o, p, starts) for p, o in zip(slopes, offsets, strict=True)]
    return torch.stack(found, 1).flatten(0, 1)[:steps]
