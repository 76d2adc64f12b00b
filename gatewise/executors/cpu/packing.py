"""The weights in the kernel's order, kept from call to call while they are the same numbers.

Packing costs as much as some steps of the recurrence, so calls on short sequences would mostly
pack. Whether the weights changed is told by a fingerprint of their numbers, which costs a tenth
of packing: a version counter would miss what is written through `.data`, NumPy or another process.

Shapes: I = input size, H = hidden units, P = H padded to whole vectors, F = fed-back states.
"""

from __future__ import annotations

import threading
from array import array
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakSet

import torch
from torch.nn.functional import pad
from torch.utils.weak import WeakTensorKeyDictionary

from gatewise.equations.layout import Weights
from gatewise.executors.cpu.kernel import ALONE, Kernel, Team, addresses, at, invoke, runtime


def unprojected(w: Weights) -> Weights:
    """Weights of the shapes the kernel knows, without a projection [P, H].

    A projected output lies in the first P of H units, so U has zeros in its other columns; the
    projection's rows follow the gates', as those of a late gate would.
    """
    if w.projection is None:
        return w
    hidden, size = w.projection.shape[-1], w.projection.shape[-2]
    rows = pad(w.projection.detach(), (0, 0, 0, hidden - size))
    wide = pad(w.weight_hh.detach(), (0, hidden - size))
    return replace(w, weight_hh=torch.cat([wide, rows], -2), projection=None)


@dataclass(eq=False)
class Packed:
    """Weights as the kernel reads them; see the head of kernel.c."""

    x: torch.Tensor
    h: torch.Tensor
    bias: torch.Tensor
    transposed: torch.Tensor | None  # for backward
    late: torch.Tensor | None
    late_transposed: torch.Tensor | None
    x_transposed: torch.Tensor | None  # for the gradient of the input


def pack(
    made: Kernel,
    w: Weights,
    padded: int,
    threads: int,
    learns_x: bool = False,
    room: Packed | None = None,
    team: Team = ALONE,
) -> Packed:
    """Copy the weights into the kernel's order, into `room` if it was packed for the same."""
    packed = room or _new_packed(made, w, padded, learns_x)
    hidden = w.weight_ih.shape[-2] // made.gates
    raw = [
        None if t is None else t.detach().contiguous()
        for t in (w.weight_ih, w.weight_hh, w.bias_ih, w.bias_hh)
    ]
    to = (packed.x, packed.h, packed.transposed, packed.bias)
    late = (packed.late, packed.late_transposed)
    numbers = [threads, w.weight_ih.shape[-1], hidden, padded]
    invoke(made.pack, numbers, [*raw, *to, *late, packed.x_transposed], team)
    return packed


def _new_packed(made: Kernel, w: Weights, padded: int, learns_x: bool) -> Packed:
    *front, rows, inputs = w.weight_ih.shape
    hidden, dtype = rows // made.gates, w.weight_ih.dtype
    from_x = sum(a.from_input for a in made.accumulators)
    from_h = sum(a.from_feedback for a in made.accumulators)
    groups = made.head - (-hidden // made.group)  # rounded up, as are those of x
    of_x = made.head - (-inputs // made.group)
    fed = w.weight_hh.shape[-1] // hidden * groups

    def new(*shape: int) -> torch.Tensor:
        return torch.empty(*front, *shape, dtype=dtype if made.group == 1 else torch.int32)

    late = len(made.late) * padded * groups
    return Packed(
        new(padded * of_x * from_x),
        new(padded * fed * from_h),
        torch.empty(*front, len(made.accumulators), padded, dtype=dtype),
        new(fed * padded * from_h) if made.backward else None,
        new(late) if late else None,
        new(late) if late else None,
        new(-(-inputs // made.lanes) * made.lanes * groups * from_x) if learns_x else None,
    )


@dataclass
class _Kept:
    """What a weight matrix was last packed for: one entry each, so that memory stays bounded."""

    purpose: tuple[Any, ...]
    fingerprint: int
    packed: Packed
    lent: WeakSet[Packed] = field(default_factory=WeakSet)  # to calls that still read it


_kept = WeakTensorKeyDictionary()  # weight_ih -> _Kept; gone when the parameter is
_lock = threading.Lock()


def packed_weights(
    made: Kernel,
    w: Weights,
    padded: int,
    threads: int,
    learns_x: bool = False,
    team: Team = ALONE,
) -> Packed:
    """`pack`, or what it gave the last time if the weights are what they were."""
    given = (w.weight_ih, w.weight_hh, w.bias_ih, w.bias_hh)
    held = [t for t in given if t is not None]
    if not (type(w.weight_ih) is torch.nn.Parameter and all(t.is_contiguous() for t in held)):
        return pack(made, w, padded, threads, learns_x, None, team)  # made for this call alone
    purpose = (made, learns_x, *(None if t is None else t.shape for t in given))
    now = fingerprint(held)
    with _lock:
        kept: _Kept | None = _kept.get(w.weight_ih)
        if kept is None or kept.purpose != purpose or kept.fingerprint != now:
            # Panels that no call reads any more are written again: no new memory to be cleared.
            reuse = kept is not None and kept.purpose == purpose and not kept.lent
            room = kept.packed if kept is not None and reuse else None
            kept = _Kept(purpose, now, pack(made, w, padded, threads, learns_x, room, team))
            _kept[w.weight_ih] = kept
        lent = Packed(**vars(kept.packed))
        kept.lent.add(lent)
        return lent


def fingerprint(tensors: list[torch.Tensor]) -> int:
    """64 bits that depend on every bit of contiguous tensors, and on their order."""
    places, sizes = addresses(tensors), array("q", [t.nbytes for t in tensors])
    return runtime().gw_fingerprint(len(tensors), at(places), at(sizes))
