"""The buffers of one call of a kernel: what the C functions take, as tensors.

Shapes: T = time, B = batch, I = input size, H = hidden units, P = H padded to whole vectors,
F = fed-back states, A = accumulators (gates, a split gate counting twice). Replicas come in front.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from gatewise.equations.layout import Weights
from gatewise.executors import reference
from gatewise.executors.cpu.kernel import Job, Kernel, Team, Works, together
from gatewise.executors.cpu.packing import Packed, packed_weights, unprojected
from gatewise.executors.cpu.share import Share, Work, share
from gatewise.executors.replicas import separate
from gatewise.executors.request import Request


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
    team: Team
    numbers: list[int]
    read: list[torch.Tensor | None]  # what the kernel is given first
    states: list[torch.Tensor]  # [T, B, P], or [B, P] where no history is needed; output first
    ends: Sequence[torch.Tensor | None]  # final states, records; None once handed out
    kept: torch.Tensor | None
    packed: Packed | None

    @property
    def hold(self) -> list[torch.Tensor | None]:
        """The kernel's arguments."""
        return [*self.read, *self.states, *self.ends]


def padded_units(hidden: int, made: Kernel) -> int:
    """`hidden` rounded up to whole vectors."""
    return -(-hidden // made.lanes) * made.lanes


def padded_rows(t: torch.Tensor, padded: int) -> torch.Tensor:
    """[..., N] as contiguous rows of `padded` numbers, zeros at the end; `t` itself where it is."""
    if t.shape[-1] != padded:
        return pad(t.detach(), (0, padded - t.shape[-1]))
    return t if t.is_contiguous() else t.detach().contiguous()


def _prepare(request: Request, made: Kernel, given: Share, output: torch.Tensor) -> Call:
    trace, w = request.trace, unprojected(request.weights)
    training = made.backward is not None
    x = request.x
    if x.stride(-1) != 1 and x.shape[-1] != 1:
        x = x.detach().contiguous()
    *front, steps, batch, inputs = x.shape
    hidden = w.weight_ih.shape[-2] // len(trace.gates)
    padded = padded_units(hidden, made)
    team, threads, split = given

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(*front, *shape, dtype=x.dtype)

    learns_x = training and request.x.requires_grad
    packers = threads if request.replicas else threads * team.crews
    packed = packed_weights(made, w, padded, packers, learns_x, team)
    states = [empty(*((steps,) if history else ()), batch, padded) for history in made.history[1:]]
    # Whole vectors are written: straight into the output where these fill its rows.
    straight = output.shape[-1] == padded
    states.insert(0, output if straight else empty(steps, batch, padded))
    first = [padded_rows(request.state[s], padded) for s in trace.states]
    last = [empty(batch, padded) for _ in trace.states]
    records = [empty(steps, batch, padded) for _ in request.record]
    kept, kept_step = None, batch * made.width * padded if training else 0
    if training or made.collected:
        kept = empty(steps if training else 1, batch, made.width * padded)
    means = empty(steps, batch, made.means) if made.means else None
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
        states[0].stride(-2),
        *(s.stride(-3) if history else 0 for s, history in zip(states, made.history, strict=True)),
    ]
    read = [
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
    ]
    return Call(
        request,
        w,
        made,
        x,
        padded,
        threads,
        split,
        team,
        numbers,
        read,
        states,
        [*last, *records],
        kept,
        packed,
    )


def per_unit(w: Weights, padded: int) -> torch.Tensor | None:
    """The per-unit parameters as the kernel reads them, [NP, P]."""
    if not w.parameters:
        return None
    return torch.stack([padded_rows(v.detach(), padded) for v in w.parameters.values()], -2)


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


def forward(
    requests: Sequence[Request], made: Kernel
) -> tuple[tuple[torch.Tensor, ...], list[Call]]:
    """Run the kernel on requests that have an input and a shape in common.

    The outputs side by side in rows [T, B, requests·O], then each request's final states and
    records; and the buffers of each call.
    """
    given, request = share(Work.of(requests, made)), requests[0]
    count, size = len(requests), request.state[request.trace.output].shape[-1]
    output = torch.empty(*request.x.shape[:-1], count * size, dtype=request.x.dtype)
    parts = [output] if count == 1 else [output.narrow(-1, k * size, size) for k in range(count)]
    calls = [_prepare(r, made, given, part) for r, part in zip(requests, parts, strict=True)]
    works = [_run(call, part) for call, part in zip(calls, parts, strict=True)]
    found = together(works, given.team)
    return (output, *(t for own in found for t in own)), calls


def _run(call: Call, output: torch.Tensor) -> Works[list[torch.Tensor]]:
    """Fill `output`; the final states and the records."""
    yield Job(call.kernel.forward, call.numbers, call.hold)
    sizes = sizes_of(call)
    if call.states[0] is not output:
        output.copy_(call.states[0][..., : sizes[0]])
    ends, call.ends = call.ends, [None] * len(call.ends)
    return [
        t if call.padded == n else t[..., :n].contiguous()
        for t, n in zip(ends, sizes[1:], strict=True)
        if t is not None
    ]


def sizes_of(call: Call) -> list[int]:
    """How many numbers of a row the output, each state and each record have."""
    request, hidden = call.request, call.numbers[3]
    size = {s: t.shape[-1] for s, t in request.state.items()}
    names = (request.trace.output, *request.trace.states, *request.record)
    return [size.get(n, hidden) for n in names]
