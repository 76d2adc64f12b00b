"""The buffers of one call of a kernel: what the C functions take, as tensors.

Shapes: T = time, B = batch, I = input size, H = hidden units, P = H padded to whole vectors,
F = fed-back states, A = accumulators (gates, a split gate counting twice). Replicas come in front.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import pad

from gatewise.equations.layout import Weights
from gatewise.executors import reference
from gatewise.executors.cpu.kernel import Kernel, Networks, invoke
from gatewise.executors.cpu.packing import Packed, packed_weights, unprojected
from gatewise.executors.replicas import separate
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
    weights: Weights  # as packed
    kernel: Kernel
    x: torch.Tensor  # [T, B, I], last stride 1
    padded: int
    threads: int
    split: bool  # threads share the units, not the rows
    many: Networks
    numbers: list[int]
    hold: list[Any]  # the tensors the kernel is given, or None
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


def _share(products: int, steps: int, batch: int, vectors: int) -> tuple[int, bool]:
    """How many threads, and whether they split the units (few rows) or the rows."""
    threads = torch.get_num_threads()
    if threads == 1 or products < _PARALLEL_FROM:
        return 1, False
    if batch < 2 * threads and products >= _SPLIT_FROM * steps and vectors >= threads:
        return threads, True
    return min(threads, batch), False


def _share_networks(replicas: int, products: int) -> Networks:
    """Replicas are split over the threads; with fewer than that, each has all threads in turn."""
    threads = torch.get_num_threads()
    if replicas < threads or replicas * products < _PARALLEL_FROM:
        threads = 1
    return Networks(replicas, threads)


def _prepare(request: Request, made: Kernel) -> Call:
    trace, w = request.trace, unprojected(request.weights)
    training = made.backward is not None
    x = request.x.detach()
    if x.stride(-1) != 1 and x.shape[-1] != 1:
        x = x.contiguous()
    *front, steps, batch, inputs = x.shape
    hidden = w.weight_ih.shape[-2] // len(trace.gates)
    padded = padded_units(hidden, made)
    products = steps * batch * len(made.accumulators) * hidden * (inputs + hidden)
    threads, split = _share(products, steps, batch, padded // made.lanes)
    if made.collected:  # phases sum over all units of a row: they stay with one thread
        threads, split = min(threads, batch), False
    many = _share_networks(request.replicas, products)

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(*front, *shape, dtype=x.dtype)

    def new(*shape: int) -> torch.Tensor:
        """Zero at steps that do not exist."""
        return empty(*shape) if request.lengths is None else empty(*shape).zero_()

    learns_x = training and request.x.requires_grad
    packed = packed_weights(made, w, padded, threads, learns_x, many)
    states = [new(*((steps,) if history else ()), batch, padded) for history in made.history]
    first = [padded_rows(request.state[s], padded) for s in trace.states]
    last = [empty(batch, padded) for _ in trace.states]
    records = [new(steps, batch, padded) for _ in request.record]
    kept, kept_step = None, batch * made.width * padded if training else 0
    if training or made.collected:
        kept = empty(steps if training else 1, batch, made.width * padded)
    means = empty(steps, batch, made.means)
    params = per_unit(w, padded)
    resets = None if request.resets is None else request.resets.contiguous()
    lengths = None if request.lengths is None else request.lengths.to(torch.int64).contiguous()
    mask = request.feedback_mask if trace.feedback else None
    if mask is not None:  # [B, F, P]
        mask = padded_rows(mask.unflatten(-1, (len(trace.feedback), -1)), padded)
    cut_steps = None if request.cut_steps is None else request.cut_steps.contiguous()
    zero = _zeros(padded, x.dtype)
    zero = zero.expand(*front, padded) if front else zero
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
        x.stride(-3),
        x.stride(-2),
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
        w,
        made,
        x,
        padded,
        threads,
        split,
        many,
        numbers,
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
    return torch.stack([padded_rows(v, padded) for v in w.parameters.values()], -2)


def _keep(request: Request, state: str, padded: int) -> torch.Tensor | None:
    """How much of the previous `state` stays, [T, B, P]; None where it is not zoned out."""
    if request.zoneout is None or state not in request.zoneout.probability:
        return None
    if request.replicas:
        each = [_keep(r, state, padded) for r in separate(request)]
        return torch.stack([k for k in each if k is not None])
    steps, batch, _ = request.x.shape
    masks = reference.zoneout_masks(request)
    return padded_rows(masks[state].expand(steps, batch, request.state[state].shape[-1]), padded)


def forward(request: Request, made: Kernel) -> tuple[tuple[torch.Tensor, ...], Call]:
    """Run the kernel: (output, final states …, records …) and the buffers of the call."""
    call = _prepare(request, made)
    invoke(made.forward, call.numbers, call.hold, call.many)
    count, records = len(request.trace.states), len(request.record)
    last = call.hold[len(call.hold) - records - count : len(call.hold) - records]
    signals = call.hold[len(call.hold) - records :]
    tensors = (call.states[0], *last, *signals)
    sizes = sizes_of(call)
    return tuple(
        t if call.padded == n else t[..., :n].contiguous()
        for t, n in zip(tensors, sizes, strict=True)
    ), call


def sizes_of(call: Call) -> list[int]:
    """How many numbers of a row the output, each state and each record have."""
    request, hidden = call.request, call.numbers[3]
    size = {s: t.shape[-1] for s, t in request.state.items()}
    names = (request.trace.output, *request.trace.states, *request.record)
    return [size.get(n, hidden) for n in names]
