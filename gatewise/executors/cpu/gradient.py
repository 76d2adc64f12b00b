"""The kernel as one differentiable operation.

Shapes: T = time, B = batch, I = input size, H = hidden units, P = H padded to whole vectors,
F = fed-back states, A = accumulators (gates, a split gate counting twice). Replicas come in front.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import torch

from gatewise.equations.phases import PROJECTION
from gatewise.executors import reference
from gatewise.executors.cpu.buffers import Call, forward, padded_rows, sizes_of
from gatewise.executors.cpu.kernel import Job, Kernel, Works, together
from gatewise.executors.request import Request
from gatewise.executors.rerun import gradient, with_inputs

# Weight gradients up to this size (bytes per thread) are summed during the sweep, where what they
# are made of is in the cache; larger ones after it, so that threads share one set of sums.
_HOT_GRADIENT = 768 * 1024


class Recurrence(torch.autograd.Function):
    """The kernel as one differentiable operation, on requests that share an input.

    Its backward is itself a compiled kernel and cannot be differentiated; where a graph of the
    backward is asked for (create_graph=True), the reference computes it instead.
    """

    @staticmethod
    def forward(
        ctx: Any, requests: Sequence[Request], made: Kernel, *inputs: torch.Tensor | None
    ) -> Any:
        outputs, calls = forward(requests, made)
        for call in calls:  # the output will own this node: the node must not own the output
            call.states[0] = call.states[0].detach()
        ctx.calls, ctx.requests, ctx.made = calls, requests, made
        ctx.save_for_backward(*inputs, outputs[0])
        ctx.set_materialize_grads(False)
        ctx.inputs = len(inputs)
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor | None) -> Any:
        inputs = ctx.saved_tensors[: ctx.inputs]  # also checks that none was changed in place
        calls, count = ctx.calls, len(ctx.requests)
        each_inputs = parts(inputs, inputs[:1] * count)
        each_needs = parts(ctx.needs_input_grad[2:], ctx.needs_input_grad[2:3] * count)
        each_grads = parts(grads, _halves(grads[0], count))
        if torch.is_grad_enabled():
            found = [
                gradient(reference.run, *given, create_graph=True)
                for given in zip(ctx.requests, each_inputs, each_needs, each_grads, strict=True)
            ]
        else:
            ctx.calls = []  # their large buffers go: this backward overwrites them
            if not calls:  # a second backward
                requests = [with_inputs(*r) for r in zip(ctx.requests, each_inputs, strict=True)]
                calls = forward(requests, ctx.made)[1]
            works = [_gradient(*work) for work in zip(calls, each_needs, each_grads, strict=True)]
            found = together(works, calls[0].team)
        d_x = [own[0] for own in found if own[0] is not None]
        return (None, None, _sum(d_x), *(g for own in found for g in own[1:]))


T = TypeVar("T")


def parts(values: Sequence[T], firsts: Sequence[T]) -> list[tuple[T, ...]]:
    """Of each request: its own first value, then its share of those that follow the first."""
    many = (len(values) - 1) // len(firsts)
    return [(first, *values[1 + k * many : 1 + (k + 1) * many]) for k, first in enumerate(firsts)]


def _halves(d_output: torch.Tensor | None, count: int) -> Sequence[torch.Tensor | None]:
    """The part of each request in the rows of the outputs, side by side."""
    if count == 1 or d_output is None:
        return [d_output] * count
    return d_output.contiguous().chunk(count, -1)


def _sum(tensors: list[torch.Tensor]) -> torch.Tensor | None:
    """Of the gradients by the input that requests share; the first one is overwritten if it may."""
    add = torch.Tensor.add if torch.is_grad_enabled() else torch.Tensor.add_
    return functools.reduce(add, tensors) if tensors else None


def _gradient(call: Call, needs: Any, grads: Any) -> Works[list[torch.Tensor | None]]:
    """The backward kernel: everything a gradient is asked for, in the order of `inputs_of`."""
    trace, padded = call.request.trace, call.padded
    *front, _, batch, _ = call.x.shape
    count = len(trace.states)
    d_output, d_last, d_records = grads[0], grads[1 : 1 + count], grads[1 + count :]
    d_output, output_row = _rows(d_output, padded)
    d_records = [None if g is None else padded_rows(g, padded) for g in d_records]

    def zeros(*shape: int) -> torch.Tensor:
        return torch.zeros(*front, *shape, dtype=call.x.dtype)

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(*front, *shape, dtype=call.x.dtype)

    carry = [zeros(batch, padded) if g is None else padded_rows(g, padded).clone() for g in d_last]
    made, accumulators = call.kernel, call.kernel.accumulators
    d_bias = zeros(call.threads, len(accumulators), padded)
    d_param = zeros(call.threads, len(trace.parameters), padded) if trace.parameters else None
    collected = empty(batch, made.collected, padded) if made.collected else None
    d_means = empty(batch, made.means) if made.means else None
    needs_x, needs_ih, needs_hh, _, _, needs_hr, *_ = needs
    d_input = empty(*call.x.shape[-3:]) if needs_x else None
    panels = _Panels.of(call) if needs_ih or needs_hh or needs_hr else None
    assert call.packed is not None
    extra = [call.packed.transposed, d_output, *d_records, *carry, d_bias, d_param]
    extra += [panels and panels.x, panels and panels.h, call.packed.x_transposed, d_input]
    extra += [call.packed.late_transposed, collected, d_means]
    later = int(panels is not None and panels.later)
    yield Job(call.kernel.backward, [*call.numbers, later, output_row], [*call.hold, *extra])

    weights = yield from _unpack(call, panels, [d_bias, d_param], needs)
    sizes = sizes_of(call)[1 : 1 + count]
    states = [
        None if not need else c if n == padded else c[..., :n]
        for c, n, need in zip(carry, sizes, needs[len(needs) - count :], strict=True)
    ]
    return [d_input, *weights, *states]


def _rows(t: torch.Tensor | None, padded: int) -> tuple[torch.Tensor | None, int]:
    """[T, B, P] as the kernel reads it, and how far its rows lie apart."""
    if t is None:
        return None, 0
    *_, step, row, number = t.stride()
    if t.shape[-1] == padded and number == 1 and step == t.shape[-2] * row:
        return t, row
    return padded_rows(t, padded), padded


class _Panels(NamedTuple):
    """Room for the weights' gradients in the kernel's order."""

    x: torch.Tensor  # [sets, numbers in packed.x]
    h: torch.Tensor
    later: bool  # one set, filled after the sweep; else one per thread, filled on the way

    @classmethod
    def of(cls, call: Call) -> _Panels:
        weights, summed = call.weights, call.kernel.accumulators
        x = call.padded * weights.weight_ih.shape[-1] * sum(a.from_input for a in summed)
        h = call.padded * weights.weight_hh.shape[-1] * sum(a.from_feedback for a in summed)
        later = (x + h) * call.x.element_size() > _HOT_GRADIENT
        shape = (*call.x.shape[:-3], 1 if later else call.threads)
        # Threads that split the units fill one set between them; if they cannot, a set each.
        new = torch.zeros if call.split else torch.empty
        x, h = (new(*shape, max(1, n), dtype=call.x.dtype) for n in (x, h))
        return cls(x, h, later)


def _unpack(
    call: Call, panels: _Panels | None, sums: list[torch.Tensor | None], needs: Any
) -> Works[list[torch.Tensor | None]]:
    """Gradients in torch's shapes: W, U, both biases, the projection, the per-unit parameters.

    Of `panels`, and of the derivatives of accumulators and parameters, each a set per thread.
    """
    w, made, hidden, dtype = call.weights, call.kernel, call.numbers[3], call.x.dtype
    d_ih = d_hh = d_hr = None
    if panels is not None:
        d_ih = torch.empty(w.weight_ih.shape, dtype=dtype)
        # What comes later in a step has rows of its own, which no panel holds.
        d_hh = (torch.zeros if made.late else torch.empty)(w.weight_hh.shape, dtype=dtype)
    d_b_ih, d_b_hh = (
        torch.empty(b.shape, dtype=dtype) if b is not None and need else None
        for b, need in ((w.bias_ih, needs[3]), (w.bias_hh, needs[4]))
    )
    many = len(w.parameters)
    d_units = torch.empty(*w.weight_ih.shape[:-2], many, hidden, dtype=dtype) if many else None
    sets = 1 if panels is None else panels.x.shape[-2]
    numbers = [call.threads, call.x.shape[-1], hidden, call.padded, sets]
    found = [panels and panels.x, panels and panels.h, *sums, d_ih, d_hh, d_b_ih, d_b_hh, d_units]
    yield Job(made.unpack, numbers, found)
    if d_hh is not None and made.late:
        d_hh, d_hr = _with_late(call, d_hh)
    units = () if d_units is None else d_units.unbind(-2)
    return [d_ih, d_hh, d_b_ih, d_b_hh, d_hr, *units]


def _with_late(call: Call, d_hh: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The gradient of U with that of the products later in a step, and that of the projection."""
    hidden = call.numbers[3]
    gates = (*call.request.trace.gates, PROJECTION)
    rows = {g: k * hidden for k, g in enumerate(gates)}
    for q, gate in enumerate(call.kernel.late):
        d, source = _late_pair(call, q, hidden)
        d_hh.narrow(-2, rows[gate], hidden).copy_(_product(d, source))
    projection = call.request.weights.projection
    if projection is None:
        return d_hh, None
    size, first = projection.shape[-2], rows[PROJECTION]
    return d_hh[..., :first, :size], d_hh[..., first : first + size, :]


def _product(d: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """Σ d ⊗ source over the samples; of replicas one by one, because torch.bmm rounds otherwise."""
    if d.dim() == 2:
        return torch.mm(d.T, source)
    return torch.stack([_product(*pair) for pair in zip(d, source, strict=True)])


def _late_pair(call: Call, q: int, hidden: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the q-th late gate: its product's derivative and what it multiplied, both [T*B, H]."""
    assert call.kept is not None
    slots = call.kept.flatten(-3, -2).unflatten(-1, (-1, call.padded))[..., :hidden]
    first = len(call.kernel.accumulators) + q
    return slots.select(-2, first), slots.select(-2, first + len(call.kernel.late))
