"""The eight benchmarks that claims are made about: a task family at a length.

Both the claims track and the modern one read this table.
"""

from __future__ import annotations

from dataclasses import dataclass

from gatewise.executors.lanes import Criterion
from gatewise.lab.families import FAMILIES
from gatewise.lab.objective import Source


@dataclass(frozen=True)
class Benchmark:
    """A name in FAMILIES, and a length."""

    family: str
    length: int

    def task(self) -> Source:
        return FAMILIES[self.family].make(self.length)

    @property
    def criterion(self) -> Criterion:
        return FAMILIES[self.family].criterion

    @property
    def words(self) -> str:
        """The criterion as a sentence."""
        return FAMILIES[self.family].words


BENCHMARKS: dict[str, Benchmark] = {
    "reber": Benchmark("reber", 1),
    "adding-100": Benchmark("adding", 100),
    "multiplication-100": Benchmark("multiplication", 100),
    "order-100": Benchmark("order", 100),
    "order-noisy-1000": Benchmark("order-noisy", 1000),
    "order-5-100": Benchmark("order-5", 100),
    "adding-1000": Benchmark("adding", 1000),
    "multiplication-1000": Benchmark("multiplication", 1000),
    # Beside the eight: the paper's experiment 6b, and its 6a over 1000 steps.
    "order-3-100": Benchmark("order-3", 100),
    "order-1000": Benchmark("order", 1000),
}
