"""How cost grows with a size: exponents fitted to rows of large calls beside a small one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING

from gatewise.benchmark.case import Shape

if TYPE_CHECKING:
    from gatewise.benchmark.report import Row

_EXPECTED = {"T": 1, "B": 1, "H": 2}  # what the figures of a row are divided by is size to this


@dataclass(frozen=True)
class Growth:
    """The time of a whole call grows with a size to this power."""

    work: str
    axis: str  # T, B or H
    smallest: int
    largest: int
    exponent: float

    def __str__(self) -> str:
        power = f"{self.axis}^{self.exponent:.2f}"
        return f"{self.work}: time ~ {power}, {self.smallest}…{self.largest}"


def growth(rows: Sequence[Row]) -> list[Growth]:
    """The exponent of every kind of work and size, by least squares on logarithms.

    Lines go through the smallest call, because each row is measured in turn with that one.
    """
    points: dict[tuple[str, str, int], list[tuple[int, float]]] = {}
    for row in rows:
        base = row.case.options.get("base")
        if row.ratio is None or not isinstance(base, Shape):
            continue
        axis = next(a for a in _EXPECTED if getattr(row.case.shape, a) != getattr(base, a))
        first, size = getattr(base, axis), getattr(row.case.shape, axis)
        times = (size / first) ** _EXPECTED[axis] / row.ratio
        points.setdefault((row.case.work, axis, first), []).append((size, times))
    found = []
    for (work, axis, first), ends in points.items():
        sizes = [log(size / first) for size, _ in ends]
        slope = sum(s * log(t) for s, (_, t) in zip(sizes, ends, strict=True))
        exponent = slope / sum(s * s for s in sizes)
        found.append(Growth(work, axis, first, max(size for size, _ in ends), exponent))
    return found
