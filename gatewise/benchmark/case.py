"""What is compared: a case is data, a contest is the two sides made from it.

Shapes: T = time, B = batch, I = input size, H = hidden units.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

Clock = Callable[[], float]
Results = dict[str, torch.Tensor]


class Shape(NamedTuple):
    """Sizes of one call."""

    T: int
    B: int
    I: int  # noqa: E741 - the field's own letter
    H: int

    def __str__(self) -> str:
        return ", ".join(map(str, self))


@dataclass(frozen=True)
class Case:
    """One row of a table: our layer against one peer, at one shape, doing one kind of work."""

    suite: str
    peer: str  # a name in peers.PEERS
    shape: Shape
    work: str = "inference"  # "training": forward and backward; "training dx": of x as well
    cell: str = "lstm"
    target: float | None = None  # the peer's figure divided by ours should be at least this
    threads: int | None = None  # None: as many as the run has
    quick: bool = False  # part of a quick run
    options: dict[str, Any] = field(default_factory=dict)  # for the peer's builder
    looseness: float = 1.0  # times the usual difference that the two results may have
    networks: int = 1  # of one shape and with weights of their own, in one call of ours
    held: str = "full"  # how our layer holds its weights: its argument `weights`

    @property
    def training(self) -> bool:
        return self.work in ("training", "training dx")

    @property
    def title(self) -> str:
        """The work in words, with what makes it another: "inference, bf16"."""
        networks = [f"{self.networks} networks"] if self.networks > 1 else []
        held = [self.held] if self.held != "full" else []
        return ", ".join([self.work, *networks, *held])


class PeerMissingError(Exception):
    """The library of this peer is not installed, or it cannot do this case."""


@dataclass(frozen=True)
class Timed:
    """One side of a contest: work to be timed, and what it computes, by name.

    The time of one call is divided by `units`, for work whose cost is given per unit.
    """

    work: Callable[[], object]
    results: Callable[[], Results]
    units: int = 1

    def sampler(self, shortest: float, clock: Clock = time.perf_counter) -> Callable[[], float]:
        """A function that gives one sample in seconds, of as many calls as `shortest` needs.

        Many short calls make one sample because a call right after the other side's meets that
        side's spinning threads and caches. The calls before the clock starts take that.
        """
        start = clock()
        self.work()
        calls = max(1, round(shortest / max(clock() - start, 1e-9)))

        def sample() -> float:
            if calls > 1:
                self.work()
            start = clock()
            for _ in range(calls):
                self.work()
            return (clock() - start) / calls / self.units

        return sample


@dataclass(frozen=True)
class Probed:
    """One side of a contest that measures itself, or is a fixed limit."""

    probe: Callable[[], float]

    def results(self) -> Results:
        return {}

    def sampler(self, shortest: float, clock: Clock = time.perf_counter) -> Callable[[], float]:
        """The probe as it is."""
        return self.probe


@dataclass(frozen=True)
class Contest:
    """Two sides that do the same, and what the figures are."""

    ours: Timed | Probed
    peer: Timed | Probed
    unit: str = "ms"  # "ms", "us", "ns", "s" or "MB"
    executor: str = ""  # which of ours runs
    flops: float = 0.0  # of the products in our work, per timed unit; 0: not counted
    bytes: float = 0.0  # of weights read, per timed unit; 0: not counted
    rounds: int | None = None  # exactly so many; None: as the budget says
