"""Training in chunks of time: forward keeps the states between them, backward runs each again.

T steps in chunks of √T keep √T states at the borders and, during backward, what the √T steps of
one chunk keep: memory grows with √T where it grew with T, for one more run forward.
(Chen et al., Training deep nets with sublinear memory cost, 2016; Gruslys et al., 2016.)

A chunk is a request like any other, to whatever executor: its part of the input, the lengths left
at its beginning, the masks counted on from there. So it computes what the uncut run computes.

Shapes: T = time, B = batch, N = size of a state.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch

from gatewise.executors.request import Request, Result
from gatewise.executors.rerun import (
    Execute,
    Tensors,
    gradient,
    inputs_of,
    transformed,
    wants_gradient,
)


def usual_length(steps: int) -> int:
    """√T, rounded up: as many chunks as a chunk has steps.

    >>> usual_length(100_000)
    317
    """
    return math.isqrt(max(steps - 1, 0)) + 1


def note(request: Request) -> str:
    """What `checkpoint` does to the request, in words; empty where it was not asked for."""
    length, steps = request.checkpoint, request.x.shape[-3]
    if not length or not wants_gradient(request):
        return ""
    if _unseen(request):
        return "checkpoint has no effect inside torch.func transforms and tracing"
    if length >= steps:
        return ""
    return f"in chunks of {length} steps, run again in backward"


def applies(request: Request) -> bool:
    """Is the request to be run in chunks? Without a gradient nothing is kept anyway."""
    return (
        0 < request.checkpoint < request.x.shape[-3]
        and wants_gradient(request)
        and not _unseen(request)
    )


def _unseen(request: Request) -> bool:
    return transformed(request.x) or torch._C._get_tracing_state() is not None


def run(request: Request, execute: Execute) -> Result:
    """Run the request on `execute`, chunk by chunk; differentiable."""
    flat = _Chunks.apply(request, execute, *inputs_of(request))
    count = len(request.trace.states)
    return Result(
        flat[0],
        dict(zip(request.trace.states, flat[1 : 1 + count], strict=True)),
        dict(zip(request.record, flat[1 + count :], strict=True)),
    )


def chunks(request: Request) -> list[range]:
    """Where the chunks lie in time, in the order in which they run."""
    steps = request.x.shape[-3]
    starts = range(0, steps, request.checkpoint)
    found = [range(s, min(s + request.checkpoint, steps)) for s in starts]
    return found[::-1] if request.reverse else found


def _steps(t: torch.Tensor, chunk: range) -> torch.Tensor:
    """The steps of `chunk` in t [..., T, B, size], a view."""
    return t.narrow(-3, chunk.start, len(chunk))


def _mask_steps(t: torch.Tensor | None, chunk: range) -> torch.Tensor | None:
    """The same of t [..., T, B]."""
    return None if t is None else t.narrow(-2, chunk.start, len(chunk))


def part(request: Request, chunk: range) -> Request:
    """The steps of `chunk`, from the states of `request`."""
    lengths, zoneout = request.lengths, request.zoneout
    if lengths is not None:
        lengths = (lengths - chunk.start).clamp(0, len(chunk))
    if zoneout is not None:
        zoneout = replace(zoneout, offset=zoneout.offset + chunk.start)
    return replace(
        request,
        x=_steps(request.x, chunk),
        lengths=lengths,
        zoneout=zoneout,
        resets=_mask_steps(request.resets, chunk),
        cut_steps=_mask_steps(request.cut_steps, chunk),
        checkpoint=0,
    )


class _Chunks(torch.autograd.Function):
    """All chunks as one differentiable operation that keeps the states at their borders.

    Where the gradient itself is to be differentiated (create_graph=True), it is taken through the
    uncut request, in memory that grows with T.
    """

    @staticmethod
    def forward(ctx: Any, request: Request, execute: Execute, *inputs: torch.Tensor | None) -> Any:
        ctx.request, ctx.execute = request, execute
        steps, borders, whole = request.x.shape[-3], [], []
        for chunk in chunks(request):
            found = execute(part(request, chunk))
            states = [s.clone() for s in found.state.values()]  # not views into a whole chunk
            borders.append(states)
            per_step = (found.output, *found.record.values())
            whole = whole or [t.new_empty(*t.shape[:-3], steps, *t.shape[-2:]) for t in per_step]
            for to, t in zip(whole, per_step, strict=True):
                _steps(to, chunk).copy_(t)
            request = replace(request, state=dict(zip(found.state, states, strict=True)))
        ctx.inputs = len(inputs)
        ctx.save_for_backward(*inputs, *(s for states in borders[:-1] for s in states))
        ctx.set_materialize_grads(False)
        return whole[0], *borders[-1], *whole[1:]

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor | None) -> Any:
        inputs, borders = ctx.saved_tensors[: ctx.inputs], ctx.saved_tensors[ctx.inputs :]
        needs = ctx.needs_input_grad[2:]
        if torch.is_grad_enabled():
            uncut = replace(ctx.request, checkpoint=0)
            found = gradient(ctx.execute, uncut, inputs, needs, grads, create_graph=True)
        else:
            found = _sweep(ctx.request, ctx.execute, inputs, borders, needs, grads)
        return (None, None, *found)


def _sweep(
    request: Request,
    execute: Execute,
    inputs: Tensors,
    borders: Tensors,
    needs: Any,
    grads: Tensors,
) -> list[torch.Tensor | None]:
    """The gradient, chunk by chunk from the last to the first."""
    count = len(request.trace.states)
    first = inputs[len(inputs) - count :]
    starts = [first, *(borders[k : k + count] for k in range(0, len(borders), count))]
    # Of the states every chunk but the first needs a gradient, to hand on to the one before.
    wanted = [*needs[: len(needs) - count], *[True] * count]
    leaves = [
        None if t is None else t.detach().requires_grad_(need)
        for t, need in zip(inputs, wanted, strict=True)
    ]
    x = leaves[0]
    assert x is not None
    d_x = torch.zeros_like(x) if needs[0] else None
    totals: list[torch.Tensor | None] = [None] * (len(inputs) - count)
    d_states = list(grads[1 : 1 + count])
    for chunk, states in reversed(list(zip(chunks(request), starts, strict=True))):
        leaves[0] = _steps(x.detach(), chunk).requires_grad_(needs[0])
        leaves[len(leaves) - count :] = [
            None if s is None else s.detach().requires_grad_() for s in states
        ]
        from_above = [
            None if grads[0] is None else _steps(grads[0], chunk),
            *d_states,
            *(None if g is None else _steps(g, chunk) for g in grads[1 + count :]),
        ]
        found = gradient(
            execute, part(request, chunk), leaves, wanted, from_above, create_graph=False
        )
        d_states = found[len(found) - count :]
        if d_x is not None and found[0] is not None:
            _steps(d_x, chunk).copy_(found[0])
        for k, g in enumerate(found[1 : len(totals)], 1):
            if g is not None:
                so_far = totals[k]
                totals[k] = g if so_far is None else so_far.add_(g)
    return [d_x, *totals[1:], *d_states]
