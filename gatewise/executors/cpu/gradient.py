"""The kernel as one differentiable operation.

Shapes: T = time, B = batch, I = input size, H = hidden units, P = H padded to whole vectors,
F = fed-back states, A = accumulators (gates, a split gate counting twice). Replicas come in front.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch

from gatewise.equations.phases import PROJECTION
from gatewise.executors import reference
from gatewise.executors.cpu.buffers import Call, forward, padded_rows, sizes_of
from gatewise.executors.cpu.kernel import Kernel, invoke
from gatewise.executors.request import Request
from gatewise.executors.rerun import gradient, with_inputs

# Weight gradients up to this size (bytes per thread) are summed during the sweep, where what they
# are made of is in the cache; larger ones after it, so that threads share one set of sums.
_HOT_GRADIENT = 768 * 1024


class Recurrence(torch.autograd.Function):
    """The kernel as one differentiable operation.

    Its backward is itself a compiled kernel and cannot be differentiated; where a graph of the
    backward is asked for (create_graph=True), the reference computes it instead.
    """

    @staticmethod
    def forward(ctx: Any, request: Request, made: Kernel, *inputs: torch.Tensor | None) -> Any:
        outputs, call = forward(request, made)
        # The outputs will own this node: the node must not own the outputs.
        call.states = [t.detach() for t in call.states]
        call.hold = [t.detach() if isinstance(t, torch.Tensor) else t for t in call.hold]
        ctx.call = call
        ctx.save_for_backward(*inputs, outputs[0])
        ctx.set_materialize_grads(False)
        ctx.inputs = len(inputs)
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor | None) -> Any:
        inputs = ctx.saved_tensors[: ctx.inputs]  # also checks that none was changed in place
        needs = ctx.needs_input_grad[2:]
        request = ctx.call.request
        if torch.is_grad_enabled():
            found = gradient(reference.run, request, inputs, needs, grads, create_graph=True)
        else:
            call, ctx.call = ctx.call, _spent(ctx.call)
            if call.kept is None:  # a second backward: the first one consumed the kept values
                call = forward(with_inputs(request, inputs), call.kernel)[1]
            found = _gradient(call, needs, grads)
        return (None, None, *found)


def _spent(call: Call) -> Call:
    """The call without its large buffers: backward overwrites them."""
    return replace(call, kept=None, packed=None, hold=[], states=[], first=[])


def _gradient(call: Call, needs: Any, grads: Any) -> list[torch.Tensor | None]:
    """The backward kernel: everything a gradient is asked for, in the order of `inputs_of`."""
    request, trace, padded = call.request, call.request.trace, call.padded
    *front, _, batch, _ = call.x.shape
    count = len(trace.states)
    d_output, d_last, d_records = grads[0], grads[1 : 1 + count], grads[1 + count :]
    # [T, B, P]: as contiguous rows the kernel can read
    d_steps = [None if g is None else padded_rows(g, padded) for g in (d_output, *d_records)]

    def zeros(*shape: int) -> torch.Tensor:
        return torch.zeros(*front, *shape, dtype=call.x.dtype)

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(*front, *shape, dtype=call.x.dtype)

    carry = [zeros(batch, padded) if g is None else padded_rows(g, padded).clone() for g in d_last]
    made, accumulators = call.kernel, call.kernel.accumulators
    d_bias = zeros(call.threads, len(accumulators), padded)
    d_param = zeros(call.threads, len(trace.parameters), padded)
    collected = empty(batch, made.collected, padded)
    d_means = empty(batch, made.means)
    needs_x, needs_ih, needs_hh, needs_b_ih, needs_b_hh, needs_hr, *needs_rest = needs
    new = empty if request.lengths is None else zeros
    d_input = new(*call.x.shape[-3:]) if needs_x else None
    panels = _Panels.of(call) if needs_ih or needs_hh or needs_hr else None
    assert call.packed is not None
    extra = [call.packed.transposed, *d_steps, *carry, d_bias, d_param]
    extra += [panels and panels.x, panels and panels.h, call.packed.x_transposed, d_input]
    extra += [call.packed.late_transposed, collected, d_means]
    later = int(panels is not None and panels.later)
    numbers = [*call.numbers, later]
    invoke(call.kernel.backward, numbers, [*call.hold, *extra], call.many)

    hidden = call.numbers[3]
    from_x = [k for k, a in enumerate(accumulators) if a.from_input]
    has_b_hh = [k for k, a in enumerate(accumulators) if a.from_feedback or a.gate in made.late]
    weights = (None, None, None) if panels is None else _unpack(call, panels)
    total = d_bias.sum(-3)[..., :hidden]
    per_unit = d_param.sum(-3)[..., :hidden]
    found = [
        d_input,
        *weights[:2],
        total[..., from_x, :].flatten(-2) if needs_b_ih else None,
        total[..., has_b_hh, :].flatten(-2) if needs_b_hh else None,
        weights[2],
    ]
    sizes = sizes_of(call)[1 : 1 + count]
    rest = [*per_unit.unbind(-2), *(c[..., :n] for c, n in zip(carry, sizes, strict=True))]
    return found + [g if need else None for g, need in zip(rest, needs_rest, strict=True)]


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


def _unpack(call: Call, panels: _Panels) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """The weights' gradients, summed over the sets, in the shape of W, U and the projection."""
    weights, hidden = call.weights, call.numbers[3]
    # What comes later in a step has rows of its own, which no panel holds.
    new = torch.zeros if call.kernel.late else torch.empty
    d_ih = torch.empty(weights.weight_ih.shape, dtype=call.x.dtype)
    d_hh = new(weights.weight_hh.shape, dtype=call.x.dtype)
    numbers = [call.threads, call.x.shape[-1], hidden, call.padded, panels.x.shape[-2]]
    invoke(call.kernel.unpack, numbers, [panels.x, panels.h, d_ih, d_hh], call.many)
    gates = (*call.request.trace.gates, PROJECTION)
    rows = {g: k * hidden for k, g in enumerate(gates)}
    for q, gate in enumerate(call.kernel.late):
        d, source = _late_pair(call, q, hidden)
        d_hh.narrow(-2, rows[gate], hidden).copy_(_product(d, source))
    projection = call.request.weights.projection
    if projection is None:
        return d_ih, d_hh, None
    size, first = projection.shape[-2], rows[PROJECTION]
    return d_ih, d_hh[..., :first, :size], d_hh[..., first : first + size, :]


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
