"""Where each pass over a text is cut into the chunks of truncated BPTT.

Cut at the same places in every pass, a step would always look back equally far: the first of a
chunk would never learn from what came before it.
"""

from __future__ import annotations

import torch

_HALVED = 0.05  # of the chunks are half as long (Merity, Keskar & Socher, 2017)
_LEAST = 5.0  # steps, for a chunk of that kind


class Cuts:
    """The chunks of every pass: a function of the pass and the seed.

    Without `spread` each has `steps`, the last what is left. With it their lengths are drawn anew
    for each pass, from N(steps, spread²), of one chunk in twenty from N(steps / 2, spread²), at
    least 5 (Merity, Keskar & Socher, 2017), and stretched a little, so that all passes have
    equally many.

    Args:
        length: steps of a pass.
        steps: of a chunk.
        spread: standard deviation of a chunk's length, in steps.
        seed: of the draws.

    >>> Cuts(10, 4).span(0, 2)
    slice(8, 10, None)
    >>> cuts = Cuts(1000, 70, spread=5.0)
    >>> [cuts.span(epoch, 0).stop for epoch in range(4)], cuts.span(7, len(cuts) - 1).stop
    ([69, 60, 64, 33], 1000)
    """

    def __init__(self, length: int, steps: int, spread: float = 0.0, seed: int = 0) -> None:
        self.length, self.steps, self.spread, self.seed = length, steps, spread, seed
        self._count = -(-length // steps)
        if spread:
            self._count = max(1, round(length / max(1.0, steps * (1 - _HALVED / 2))))
        self._epoch, self._borders = -1, list[int]()

    def __len__(self) -> int:
        """Chunks in one pass."""
        return self._count

    def span(self, epoch: int, k: int) -> slice:
        """The steps of chunk `k` of the pass `epoch`."""
        if not self.spread:
            return slice(k * self.steps, min((k + 1) * self.steps, self.length))
        if epoch != self._epoch:
            self._epoch, self._borders = epoch, self._drawn(epoch)
        return slice(self._borders[k], self._borders[k + 1])

    def share(self, span: slice) -> float:
        """The length of a drawn chunk in that of the usual one: what its step's rate is times."""
        return (span.stop - span.start) / self.steps if self.spread else 1.0

    def _drawn(self, epoch: int) -> list[int]:
        count = self._count
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % (1 << 63))
        halved = torch.rand(count, generator=generator) < _HALVED
        drawn = torch.randn(count, generator=generator, dtype=torch.float64) * self.spread
        drawn = (drawn + torch.where(halved, self.steps / 2, self.steps)).clamp(min=_LEAST)
        # Every chunk has one step; the others are shared out as was drawn.
        ends = drawn.cumsum(0) / drawn.sum() * (self.length - count)
        return [0, *(k + round(end) for k, end in enumerate(ends.tolist(), 1))]
