"""Between the forms a user may give and the one form inside: time first, batched, padded.

Shapes: T = time, B = batch, I = input size, O = output size, L = layers, D = directions. The
replicas of a layer come in front of every shape.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from gatewise.layers import check


class Batch(NamedTuple):
    """What forward was given, time first, and how to hand results back in the form it came."""

    x: torch.Tensor  # [T, B, I]
    lengths: torch.Tensor | None  # [B] int64
    live: torch.Tensor | None  # [T, B, 1] bool: which steps exist; None: all
    resets: torch.Tensor | None  # [T, B] bool, never set where a step does not exist
    batch_first: bool = False
    unbatched: bool = False
    packed: PackedSequence | None = None

    def output(self, y: torch.Tensor) -> Any:
        """[T, B, O] in the input's form."""
        if self.packed is not None:
            return _pack(y, self.lengths, self.packed)
        if self.unbatched:
            return y.squeeze(1)
        return y.transpose(-3, -2) if self.batch_first else y

    def state(self, s: torch.Tensor) -> torch.Tensor:
        """[L*D, B, size], or without B."""
        return s.squeeze(1) if self.unbatched else s

    def record(self, r: torch.Tensor) -> torch.Tensor:
        """[L*D, T, B, size] in the input's form; a packed input's records are padded."""
        if self.unbatched:
            return r.squeeze(2)
        return r.transpose(-3, -2) if self.batch_first else r


def read_input(
    given: Any,
    input_size: int,
    batch_first: bool,
    like: torch.Tensor,
    autocast: bool,
    lengths: Any,
    resets: Any,
) -> Batch:
    """Check `given` and the masks that go with it, and turn them time first."""
    packed, unbatched = None, False
    if isinstance(given, PackedSequence):
        if lengths is not None:
            raise ValueError("lengths must be None for a PackedSequence, which has its own")
        check.tensor_like(given.data, input_size, like, autocast)
        check.packed(given)
        packed = given
        x, own = pad_packed_sequence(given)
        ragged = given.batch_sizes[0] != given.batch_sizes[-1]
        lengths = own if ragged else None
    else:
        check.input_tensor(given, input_size, like, autocast)
        x, unbatched = given, given.dim() == 2
        if unbatched:
            if lengths is not None:
                raise ValueError("lengths must be None for unbatched input, which has one row")
            x = given.unsqueeze(1)
        elif batch_first:
            x = given.transpose(0, 1)
    if x.dtype != like.dtype:  # only under autocast
        x = x.to(like.dtype)
    swapped = batch_first and not unbatched
    live = None
    if lengths is not None or resets is not None:
        lengths, live, resets = _masks(x, lengths, resets, swapped, unbatched)
    return Batch(x, lengths, live, resets, swapped, unbatched, packed)


def read_replicas(
    given: Any,
    replicas: int,
    input_size: int,
    batch_first: bool,
    like: torch.Tensor,
    autocast: bool,
    lengths: Any,
    resets: Any,
) -> Batch:
    """The same for [replicas, T, B, I], or [T, B, I] for all; likewise lengths and resets."""
    check.replicated_input(given, replicas, input_size, like, autocast)

    def spread(t: Any, dims: int) -> Any:
        t = torch.as_tensor(t)
        return t.expand(replicas, *t.shape) if t.dim() == dims else t

    x = spread(given, 3)
    if lengths is None and resets is None:
        x = x.transpose(1, 2) if batch_first else x
        return Batch(x.to(like.dtype), None, None, None, batch_first)
    none = [None] * replicas
    each = [
        read_input(one, input_size, batch_first, like, autocast, *masks)
        for one, *masks in zip(
            x,
            none if lengths is None else spread(lengths, 1),
            none if resets is None else spread(resets, 2),
            strict=True,
        )
    ]

    def stacked(values: list[Any]) -> torch.Tensor | None:
        return None if values[0] is None else torch.stack(values)

    return Batch(
        torch.stack([b.x for b in each]),
        stacked([b.lengths for b in each]),
        stacked([b.live for b in each]),
        stacked([b.resets for b in each]),
        batch_first,
    )


def _masks(
    x: torch.Tensor, lengths: Any, resets: Any, swapped: bool, unbatched: bool
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """Lengths [B], live steps [T, B, 1] and resets [T, B], checked."""
    steps, rows, _ = x.shape
    live = None
    if lengths is not None:
        lengths = check.lengths_tensor(lengths, steps, rows, x.device)
        live = (torch.arange(steps, device=x.device)[:, None] < lengths).unsqueeze(-1)
    if resets is not None:
        if unbatched:
            resets = check.resets_tensor(resets, (steps,), x.device).unsqueeze(1)
        elif swapped:
            resets = check.resets_tensor(resets, (rows, steps), x.device).transpose(0, 1)
        else:
            resets = check.resets_tensor(resets, (steps, rows), x.device)
        if live is not None:  # a step that does not exist resets nothing
            resets = resets & live.squeeze(-1)
    return lengths, live, resets


def backward_resets(resets: torch.Tensor) -> torch.Tensor:
    """[T, B] for the reverse direction: a piece that begins at t is left before step t - 1."""
    later = resets.narrow(-2, 1, resets.shape[-2] - 1) if resets.shape[-2] else resets
    return torch.cat([later, torch.zeros_like(resets[..., :1, :])], -2)


def _pack(y: torch.Tensor, lengths: torch.Tensor | None, like: PackedSequence) -> PackedSequence:
    """[T, B, O] packed exactly as `like` is."""
    order = like.sorted_indices
    if order is not None:
        y = y.index_select(1, order)
    if lengths is None:
        data = y.flatten(0, 1)
    else:
        by_row = lengths if order is None else lengths[order]
        data = y[torch.arange(len(y), device=y.device)[:, None] < by_row]
    return PackedSequence(data, like.batch_sizes, order, like.unsorted_indices)
