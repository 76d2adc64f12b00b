"""The buffers of one call of a kernel: what the C functions take, as tensors.

Shapes: T = time, B = batch, I = input size, H = hidden units, P = H padded to whole vectors,
F = fed-back states, A = accumulators (gates, a split gate counting twice).
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.nn.functional import pad

from gatewise.equations.layout import Weights
from gatewise.executors import reference
from gatewise.executors.cpu.kernel import Kernel, parallel
from gatewise.executors.request import Request

# Below this many multiplications a second thread costs more than it brings (some 40 µs).
_PARALLEL_FROM = 1_000_000
# Few rows: threads share the units instead, and meet once a step, which costs some 0.3 µs.
_SPLIT_FROM = 60_000  # multiplications a step


@functools.lru_cache(maxsize=64)
def _zeros(padded: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.zeros(padded, dtype=dtype)


@dataclass
class Call:
    """The buffers of one forward call; backward reads them again."""

    request: Request
    kernel: Kernel
    x: torch.Tensor  # [T, B, I], last stride 1
    padded: int
    threads: int
    numbers: list[int]
    pointers: list[int]
    hold: list[Any]  # tensors the pointers point into
    states: list[torch.Tensor]  # [T, B, P], or [B, P] where no history is needed
    first: list[torch.Tensor]  # [B, P]
    kept: torch.Tensor | None
    packed: Packed | None


def padded_units(hidden: int, made: Kernel) -> int:
    """`hidden` rounded up to whole vectors."""
    return -(-hidden // made.lanes) * made.lanes


def padded_rows(t: torch.Tensor, padded: int) -> torch.Tensor:
    """[..., N] as contiguous rows of `padded` numbers, zeros at the end."""
    t = t.detach()
    if t.shape[-1] != padded:
        t = pad(t, (0, padded - t.shape[-1]))
    return t.contiguous()


def pointer(t: torch.Tensor | None) -> int:
    """The address of a tensor's first number; 0 (null in C) for None."""
    return 0 if t is None else t.data_ptr()


def invoke(function: Any, numbers: list[int], pointers: list[int]) -> None:
    """Call a C function with its argument lists and the thread pool."""
    n = (ctypes.c_int64 * len(numbers))(*numbers)
    p = (ctypes.c_void_p * len(pointers))(*pointers)
    function(n, p, parallel())


class Packed(NamedTuple):
    """Weights as the kernel reads them; see the head of kernel.c."""

    x: torch.Tensor
    h: torch.Tensor
    bias: torch.Tensor
    transposed: torch.Tensor | None  # for backward
    late: torch.Tensor | None
    late_transposed: torch.Tensor | None
    x_transposed: torch.Tensor | None  # for the gradient of the input


def pack(
    made: Kernel, w: Weights, padded: int, threads: int, training: bool, learns_x: bool = False
) -> Packed:
    """Copy the weights into the kernel's order."""
    hidden = w.weight_ih.shape[0] // made.gates
    inputs, fed = w.weight_ih.shape[1], w.weight_hh.shape[1]
    from_x = sum(a.from_input for a in made.accumulators)
    from_h = sum(a.from_feedback for a in made.accumulators)
    new = functools.partial(torch.empty, dtype=w.weight_ih.dtype)
    late = [new(len(made.late) * padded * hidden) if made.late else None for _ in range(2)]
    packed = Packed(
        new(padded * inputs * from_x),
        new(padded * fed * from_h),
        new(len(made.accumulators), padded),
        new(fed * padded * from_h) if training else None,  # F*P*H numbers per gate
        *late,
        new(-(-inputs // made.lanes) * made.lanes * hidden * from_x) if learns_x else None,
    )
    raw = [
        None if t is None else t.detach().contiguous()
        for t in (w.weight_ih, w.weight_hh, w.bias_ih, w.bias_hh)
    ]
    to = (packed.x, packed.h, packed.transposed, packed.bias, *late, packed.x_transposed)
    invoke(made.pack, [threads, inputs, hidden, padded], [pointer(t) for t in (*raw, *to)])
    return packed


def _share(products: int, steps: int, batch: int, vectors: int) -> tuple[int, bool]:
    """How many threads, and whether they split the units (few rows) or the rows."""
    threads = torch.get_num_threads()
    if threads == 1 or products < _PARALLEL_FROM:
        return 1, False
    if batch < 2 * threads and products >= _SPLIT_FROM * steps and vectors >= threads:
        return threads, True
    return min(threads, batch), False


def _prepare(request: Request, made: Kernel) -> Call:
    trace, w = request.trace, request.weights
    training = made.backward is not None
    x = request.x.detach()
    if x.stride(-1) != 1 and x.shape[-1] != 1:
        x = x.contiguous()
    steps, batch, inputs = x.shape
    hidden = w.weight_ih.shape[0] // len(trace.gates)
    padded = padded_units(hidden, made)
    products = steps * batch * len(made.accumulators) * hidden * (inputs + hidden)
    threads, split = _share(products, steps, batch, padded // made.lanes)
    if made.collected:  # phases sum over all units of a row: they stay with one thread
        threads, split = min(threads, batch), False

    new = functools.partial(
        torch.zeros if request.lengths is not None else torch.empty, dtype=x.dtype
    )
    packed = pack(made, w, padded, threads, training, training and request.x.requires_grad)
    states = [new(*((steps,) if history else ()), batch, padded) for history in made.history]
    first = [padded_rows(request.state[s], padded) for s in trace.states]
    last = [torch.empty(batch, padded, dtype=x.dtype) for _ in trace.states]
    records = [new(steps, batch, padded) for _ in request.record]
    kept, kept_step = None, batch * made.width * padded if training else 0
    if training or made.collected:
        kept = torch.empty(steps if training else 1, batch, made.width * padded, dtype=x.dtype)
    means = torch.empty(steps, batch, made.means, dtype=x.dtype)
    params = per_unit(w, padded)
    resets = None if request.resets is None else request.resets.contiguous()
    lengths = None if request.lengths is None else request.lengths.to(torch.int64).contiguous()
    mask = None if request.feedback_mask is None else request.feedback_mask.detach().contiguous()
    cut_steps = None if request.cut_steps is None else request.cut_steps.contiguous()
    zero = _zeros(padded, x.dtype)
    keep = [_keep(request, s, padded) for s in trace.states]

    numbers = [
        steps,
        batch,
        inputs,
        hidden,
        padded,
        int(request.reverse),
        threads,
        int(split),
        x.stride(0),
        x.stride(1),
        kept_step,
        *(batch * padded if history else 0 for history in made.history),
    ]
    hold = [
        x,
        packed.x,
        packed.h,
        packed.bias,
        params,
        kept,
        resets,
        lengths,
        mask,
        zero,
        cut_steps,
        means,
        packed.late,
        *keep,
        *first,
        *states,
        *last,
        *records,
    ]
    return Call(
        request,
        made,
        x,
        padded,
        threads,
        numbers,
        [pointer(t) for t in hold],
        hold,
        states,
        first,
        kept,
        packed,
    )


def per_unit(w: Weights, padded: int) -> torch.Tensor | None:
    """The per-unit parameters as the kernel reads them, [NP, P]."""
    if not w.parameters:
        return None
    return torch.stack([padded_rows(v, padded) for v in w.parameters.values()])


def _keep(request: Request, state: str, padded: int) -> torch.Tensor | None:
    """How much of the previous `state` stays, [T, B, P]; None where it is not zoned out."""
    if request.zoneout is None or state not in request.zoneout.probability:
        return None
    steps, batch, _ = request.x.shape
    masks = reference.zoneout_masks(request)
    return padded_rows(masks[state].expand(steps, batch, request.state[state].shape[-1]), padded)


def forward(request: Request, made: Kernel) -> tuple[tuple[torch.Tensor, ...], Call]:
    """Run the kernel: (output, final states …, records …) and the buffers of the call."""
    call = _prepare(request, made)
    invoke(made.forward, call.numbers, call.pointers)
    count, hidden = len(request.trace.states), request.state[request.trace.output].shape[-1]
    records = len(request.record)
    last = call.hold[len(call.hold) - records - count : len(call.hold) - records]
    signals = call.hold[len(call.hold) - records :]
    tensors = (call.states[0], *last, *signals)
    if call.padded != hidden:
        tensors = tuple(t[..., :hidden].contiguous() for t in tensors)
    return tensors, call
