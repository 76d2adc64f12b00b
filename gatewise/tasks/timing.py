"""Spikes whose distance in time is to be measured, or to be kept."""

from __future__ import annotations

import math

import torch

from gatewise.executors.lanes import Sequences
from gatewise.tasks.drawn import Drawn, below, check_range

SPIKES = 5  # intervals of a sequence


def spike_delays(length: int, spread: int = 1) -> Drawn:
    """How long is it since the last spike? Asked at every spike but the first.

    Spikes (input 1, else 0) lie `length` + I steps apart, I whole and uniform in 0 … `spread`, and
    drawn anew for each of five intervals; the target at an interval's end is its I, else NaN.

    Source: Gers, Schraudolph & Schmidhuber, Learning precise timing with LSTM recurrent networks,
    2002 (measuring spike delays).

    Raises:
        ValueError: `length` or `spread` below 1.
    """
    _check(length, spread)

    def make(u: torch.Tensor) -> Sequences:
        offset = below(u, spread + 1)  # [B, SPIKES]
        spike, interval, lengths = _train(length, offset)
        target = torch.where(spike, offset.gather(1, interval.T).T.float(), math.nan)
        target[:1] = math.nan
        return Sequences(spike.float().unsqueeze(-1), lengths, target.unsqueeze(-1))

    return Drawn(f"spike delays {length}", make, SPIKES, 1, 1)


def timed_spikes(length: int, spread: int = 1) -> Drawn:
    """Make a spike (target 1, else 0) whenever `length` + I steps have passed.

    `spike_delays` with the roles exchanged: the input is the I of the interval that is running,
    and nothing tells the network when it began.

    Source: as `spike_delays` (generating timed spikes).

    Raises:
        ValueError: `length` or `spread` below 1.
    """
    _check(length, spread)

    def make(u: torch.Tensor) -> Sequences:
        offset = below(u, spread + 1)
        spike, interval, lengths = _train(length, offset)
        x = offset.gather(1, interval.T).T.float() / spread
        return Sequences(x.unsqueeze(-1), lengths, spike.float().unsqueeze(-1))

    return Drawn(f"timed spikes {length}", make, SPIKES, 1, 1)


def _train(least: int, offset: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Spikes [T, B] bool, the interval that ends at or after each step, and lengths [B].

    The first spike is at step 0, the last one ends the sequence.
    """
    ends = (least + offset).cumsum(1)  # [B, SPIKES]
    lengths = ends[:, -1] + 1
    time = torch.arange(int(lengths.max()) if len(offset) else 0)
    interval = torch.searchsorted(ends, time.expand(len(offset), -1).contiguous()).T
    live = time.unsqueeze(1) < lengths
    interval = interval.clamp(max=SPIKES - 1)
    spike = (time.unsqueeze(1) == ends.gather(1, interval.T).T) | (time == 0).unsqueeze(1)
    return spike & live, interval, lengths


def _check(length: int, spread: int) -> None:
    check_range(length, length)
    if spread < 1:
        raise ValueError(f"spread must be positive, got {spread}")
