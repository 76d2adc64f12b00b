"""The kernel as one differentiable operation.

Shapes: T = time, B = batch, I = input size, H = hidden units, P = H padded to whole vectors,
F = fed-back states, A = accumulators (gates, a split gate counting twice).
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import torch

from gatewise.executors import reference
from gatewise.executors.cpu.buffers import Call, forward, invoke, padded_rows, pointer
from gatewise.executors.cpu.kernel import Kernel
from gatewise.executors.request import Request
from gatewise.executors.rerun import gradient, with_inputs

# Weight gradients up to this size (bytes per thread) are summed in the kernel, where what they
# are made of is in the cache; larger ones are one product over all steps afterwards.
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
    return replace(call, kept=None, packed=None, hold=[], pointers=[], states=[], first=[])


def _gradient(call: Call, needs: Any, grads: Any) -> list[torch.Tensor | None]:
    """The backward kernel, then the products over all steps at once."""
    request, trace, padded = call.request, call.request.trace, call.padded
    dtype, batch = call.x.dtype, call.x.shape[1]
    count = len(trace.states)
    d_output, d_last, d_records = grads[0], grads[1 : 1 + count], grads[1 + count :]
    # [T, B, P]: as contiguous rows the kernel can read
    d_steps = [None if g is None else padded_rows(g, padded) for g in (d_output, *d_records)]
    carry = [
        torch.zeros(batch, padded, dtype=dtype) if g is None else padded_rows(g, padded).clone()
        for g in d_last
    ]
    made, accumulators = call.kernel, call.kernel.accumulators
    d_bias = torch.zeros(call.threads, len(accumulators), padded, dtype=dtype)
    d_param = torch.zeros(call.threads, len(trace.parameters), padded, dtype=dtype)
    collected = torch.empty(batch, made.collected, padded, dtype=dtype)
    d_means = torch.empty(batch, made.means, dtype=dtype)
    needs_x, needs_ih, needs_hh, needs_b_ih, needs_b_hh, _, *needs_rest = needs
    hot = _hot_gradients(call) if needs_ih or needs_hh else (None, None)
    assert call.packed is not None
    extra = [call.packed.transposed, *d_steps, *carry, d_bias, d_param, *hot]
    extra += [call.packed.late_transposed, collected, d_means]
    invoke(call.kernel.backward, call.numbers, call.pointers + [pointer(t) for t in extra])

    hidden = request.state[trace.output].shape[-1]
    from_x = [k for k, a in enumerate(accumulators) if a.from_input]
    from_h = [k for k, a in enumerate(accumulators) if a.from_feedback]
    has_b_hh = [k for k, a in enumerate(accumulators) if a.from_feedback or a.gate in made.late]
    found: list[torch.Tensor | None] = [None] * 6
    d_acc = _kept_units(call, 0, len(accumulators), hidden)  # [T*B, A*H], strided
    if needs_x:
        parts = [d_acc[:, a * hidden : b * hidden] for a, b in _runs(from_x)]
        joined = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        found[0] = torch.mm(joined, request.weights.weight_ih.detach()).view(call.x.shape)
    if hot[0] is not None and hot[1] is not None:
        found[1:3] = _unpack(call, hot[0], hot[1])
    else:
        if needs_ih:
            found[1] = _input_weight_gradient(call, d_acc, from_x, hidden)
        if needs_hh:
            found[2] = _recurrent_weight_gradient(call, d_acc, from_h, hidden)
    total = d_bias.sum(0)[:, :hidden]
    if needs_b_ih:
        found[3] = total[from_x].reshape(-1)
    if needs_b_hh:
        found[4] = total[has_b_hh].reshape(-1)
    per_unit = d_param.sum(0)[:, :hidden]
    rest = [*per_unit.unbind(0), *(c[:, :hidden] for c in carry)]
    return found + [g if need else None for g, need in zip(rest, needs_rest, strict=True)]


def _hot_gradients(call: Call) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Zeroed panels for the kernel to sum weight gradients in, one set per thread."""
    accumulators, fan_in, hidden = call.kernel.accumulators, call.x.shape[2], call.numbers[3]
    size_x = call.padded * fan_in * sum(a.from_input for a in accumulators)
    size_h = call.padded * hidden * len(call.request.trace.feedback)
    size_h *= sum(a.from_feedback for a in accumulators)
    if call.kernel.collected or (size_x + size_h) * call.x.element_size() > _HOT_GRADIENT:
        return None, None
    new = functools.partial(torch.zeros, dtype=call.x.dtype)
    return new(call.threads, max(1, size_x)), new(call.threads, max(1, size_h))


def _unpack(call: Call, d_x: torch.Tensor, d_h: torch.Tensor) -> list[torch.Tensor | None]:
    """The weights' gradients from the kernel's panels, summed over threads."""
    weights = call.request.weights
    d_ih = torch.empty(weights.weight_ih.shape, dtype=call.x.dtype)
    d_hh = torch.empty(weights.weight_hh.shape, dtype=call.x.dtype)
    invoke(
        call.kernel.unpack,
        [1, call.x.shape[2], call.numbers[3], call.padded, call.threads],
        [pointer(t) for t in (d_x, d_h, d_ih, d_hh)],
    )
    return [d_ih, d_hh]


def _input_weight_gradient(
    call: Call, d_acc: torch.Tensor, from_x: list[int], hidden: int
) -> torch.Tensor:
    """dW = Σ_t d_acc_t ⊗ x_t, [G*H, I]."""
    inputs = _existing(call.request, call.x).flatten(0, 1)
    parts = [torch.mm(d_acc[:, a * hidden : b * hidden].T, inputs) for a, b in _runs(from_x)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _kept_units(call: Call, first: int, count: int, hidden: int) -> torch.Tensor:
    """`count` entries of the kept buffer from `first` on, [T*B, count*H]."""
    assert call.kept is not None
    steps, batch, width = call.kept.shape
    flat = call.kept.view(steps * batch, width)
    if call.padded == hidden:
        return flat[:, first * hidden : (first + count) * hidden]
    wide = flat.view(steps * batch, -1, call.padded)[:, first : first + count, :hidden]
    return wide.reshape(steps * batch, count * hidden)


def _runs(indices: list[int]) -> list[tuple[int, int]]:
    """Consecutive indices as half-open ranges: [0, 1, 3] -> [(0, 2), (3, 4)]."""
    runs: list[tuple[int, int]] = []
    for k in indices:
        if runs and runs[-1][1] == k:
            runs[-1] = (runs[-1][0], k + 1)
        else:
            runs.append((k, k + 1))
    return runs


def _existing(request: Request, x: torch.Tensor) -> torch.Tensor:
    """x with zeros at steps that do not exist, whatever the padding holds (it may be NaN)."""
    if request.lengths is None:
        return x
    gone = torch.arange(len(x)).unsqueeze(1) >= request.lengths
    return x.masked_fill(gone.unsqueeze(-1), 0.0)


def _recurrent_weight_gradient(
    call: Call, d_acc: torch.Tensor, from_h: list[int], hidden: int
) -> torch.Tensor:
    """dU = Σ_t d_acc_t ⊗ r_{t-1}, [G*H, F*H]; of a late gate Σ_t d_product_t ⊗ source_t."""
    trace, made = call.request.trace, call.kernel
    total = torch.zeros_like(call.request.weights.weight_hh)
    rows = {g: k * hidden for k, g in enumerate(trace.gates)}
    for f, name in enumerate(trace.feedback):
        columns = slice(f * hidden, (f + 1) * hidden)
        for a, b in _runs(from_h):
            start = rows[made.accumulators[a].gate]
            d = d_acc[:, a * hidden : b * hidden]
            total[start : start + (b - a) * hidden, columns] = _feedback_product(call, d, f, name)
    first = len(made.accumulators)
    for q, gate in enumerate(made.late):
        d = _kept_units(call, first + q, 1, hidden)
        source = _kept_units(call, first + len(made.late) + q, 1, hidden)
        total[rows[gate] : rows[gate] + hidden] = torch.mm(d.T, source)
    return total


def _feedback_product(call: Call, d: torch.Tensor, f: int, name: str) -> torch.Tensor:
    """Σ_t d_t ⊗ r_{t-1} for the fed-back state `name`, d [T*B, N] to [N, H]."""
    request, batch = call.request, call.x.shape[1]
    s, hidden = request.trace.states.index(name), call.numbers[3]
    history, first = call.states[s][..., :hidden], call.first[s][:, :hidden]
    if _previous_is_shifted(request):
        # r_{t-1} is the history one step on: no copy of it is made
        if request.reverse:
            first_d, rest_d, rest = d[-batch:], d[:-batch], history[1:]
        else:
            first_d, rest_d, rest = d[:batch], d[batch:], history[:-1]
        total = torch.mm(first_d.T, first)
        return total.addmm_(rest_d.T, rest.reshape(-1, hidden))
    fed = _previous(request, history, first)
    if request.feedback_mask is not None:
        fed = fed * request.feedback_mask[:, f * hidden : (f + 1) * hidden]
    return torch.mm(d.T, fed.reshape(-1, hidden))


def _previous_is_shifted(request: Request) -> bool:
    return (
        request.resets is None
        and request.feedback_mask is None
        and not (request.reverse and request.lengths is not None)
    )


def _previous(request: Request, history: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
    """The fed-back state before every step, [T, B, H]."""
    if not request.reverse:
        previous = torch.cat([first.unsqueeze(0), history[:-1]])
    else:
        previous = torch.cat([history[1:], first.unsqueeze(0)])
        if request.lengths is not None:
            starts = torch.arange(len(history)).unsqueeze(1) == request.lengths - 1
            previous = torch.where(starts.unsqueeze(-1), first, previous)
    if request.resets is not None:
        previous = previous.masked_fill(request.resets.unsqueeze(-1), 0.0)
    return previous
