"""Figures of a stream, brought up to date with every value, in memory that does not grow."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence
from typing import Any


class Ceiling:
    """The k-th largest number so far, sinking by a share per step where it forgets.

    A number divided by it says how rare the number is, whatever the distribution's tail.

    >>> ceiling = Ceiling(2)
    >>> [ceiling.measure(x) for x in (4.0, 2.0, 1.0, 3.0)]
    [1000.0, 1000.0, 0.5, 1.5]
    """

    def __init__(self, k: int, forgets: float = 0.0) -> None:
        self._largest, self._growth = [0.0] * k, 1.0 + forgets
        self._scale = 1.0  # instead of shrinking what is kept, what comes is made larger

    def measure(self, x: float) -> float:
        """`x` ≥ 0 in units of the ceiling before it, at most 1000; then `x` counts too."""
        ceiling = self._largest[0] / self._scale
        ratio = min(1000.0, x / max(ceiling, 1e-3))
        if x * self._scale > self._largest[0]:
            heapq.heapreplace(self._largest, x * self._scale)
        self._scale *= self._growth
        if self._scale > 1e100:
            self._largest = [v / self._scale for v in self._largest]
            self._scale = 1.0
        return ratio

    def record(self) -> list[float]:
        """What it remembers, for `restore`."""
        return [self._scale, *sorted(self._largest)]

    def restore(self, record: Sequence[float]) -> None:
        """Go on from a `record`; ValueError for one of another size."""
        self._scale, *largest = floats(record, 1 + len(self._largest))
        self._largest = sorted(largest)


class Peaks:
    """Lets a number through where none of the last ones was as large: one alarm, not a burst.

    "Last" is a share of the stream so far, but at least `least` steps.

    >>> peaks = Peaks(least=2, share=0.0)
    >>> [peaks.keep(x) for x in (3.0, 1.0, 2.0, 2.5)]
    [3.0, 0.0, 0.0, 2.5]
    """

    def __init__(self, least: int, share: float) -> None:
        self._least, self._share, self._step = least, share, 0
        self._kept: deque[tuple[int, float]] = deque()  # falling: what may still be the largest

    def keep(self, x: float) -> float:
        """`x`, or 0."""
        oldest = self._step - max(self._least, self._share * self._step)
        while self._kept and self._kept[0][0] < oldest:
            self._kept.popleft()
        largest = self._kept[0][1] if self._kept else -math.inf
        while self._kept and self._kept[-1][1] <= x:
            self._kept.pop()
        self._kept.append((self._step, x))
        self._step += 1
        return x if x > largest else 0.0

    def record(self) -> list[float]:
        """What it remembers, for `restore`."""
        return [self._step, *(number for pair in self._kept for number in pair)]

    def restore(self, record: Sequence[float]) -> None:
        """Go on from a `record`."""
        step, *pairs = floats(record, None)
        self._step = int(step)
        self._kept = deque((int(k), x) for k, x in zip(pairs[::2], pairs[1::2], strict=True))


class Scale:
    """Running mean and spread of the values so far (Welford, 1962)."""

    def __init__(self) -> None:
        self.count, self.mean, self._squares = 0, 0.0, 0.0

    @property
    def std(self) -> float:
        """Never 0: a thousandth of the mean at least."""
        spread = math.sqrt(self._squares / self.count) if self.count else 0.0
        return max(spread, 1e-3 * max(abs(self.mean), 1e-6))

    def add(self, value: float) -> None:
        """Count `value` in."""
        self.count += 1
        before = value - self.mean
        self.mean += before / self.count
        self._squares += before * (value - self.mean)

    def record(self) -> list[float]:
        """What it remembers, for `restore`."""
        return [self.count, self.mean, self._squares]

    def restore(self, record: Sequence[float]) -> None:
        """Go on from a `record`; ValueError for one of another size."""
        count, self.mean, self._squares = floats(record, 3)
        if count < 0 or self._squares < 0:
            raise ValueError(f"a count and a sum of squares cannot be negative: {record}")
        self.count = int(count)


def floats(values: Any, count: int | None) -> list[float]:
    """So many finite numbers, or any number of them; ValueError or TypeError otherwise."""
    found = [v if isinstance(v, int) else float(v) for v in values]
    if (count is not None and len(found) != count) or not all(map(math.isfinite, found)):
        raise ValueError(f"expected finite numbers, got {values!s:.60}")
    return found
