"""The eight benchmarks that claims are made about: a task family at a length.

Both the claims track and the modern one read this table.
"""

from __future__ import annotations

from dataclasses import dataclass

from gatewise.executors.lanes import Criterion
from gatewise.lab.families import FAMILIES, Family
from gatewise.lab.objective import Source


@dataclass(frozen=True)
class Benchmark:
    """A name in FAMILIES, and a length."""

    family: str
    length: int

    @property
    def of(self) -> Family:
        return FAMILIES[self.family]

    def task(self) -> Source:
        return self.of.make(self.length)

    @property
    def lengths(self) -> list[int]:
        """Of a curriculum that ends at its own."""
        return self.of.lengths(self.length)

    @property
    def criterion(self) -> Criterion:
        return self.of.criterion

    @property
    def words(self) -> str:
        """The criterion as a sentence."""
        return self.of.words


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

# The paper's other tasks, and the shortest lags at which anybody says that a baseline learns.
OTHERS: dict[str, Benchmark] = {
    "adding-26": Benchmark("adding", 26),  # no shorter: two of the first twelve are marked
    "order-50": Benchmark("order", 50),
    "order-200": Benchmark("order", 200),
    "classes-10": Benchmark("classes", 10),
    "classes-20": Benchmark("classes", 20),
    "classes-50": Benchmark("classes", 50),
    "classes-100": Benchmark("classes", 100),  # experiment 3a
    "parity-500": Benchmark("parity", 500),
    "two-4": Benchmark("two", 4),  # experiment 2a, with other lags too
    "two-10": Benchmark("two", 10),
    "two-100": Benchmark("two", 100),
}
ALL = BENCHMARKS | OTHERS
