"""The one runner: both sides in turn, checked to be equal first, medians and ratios with spread.

It knows no suite, no layer and no peer.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median, quantiles

import torch

from gatewise.benchmark.case import Clock, Contest, Results

# Both sides round in float32: outputs then differ by some 1e-6 of their norm, and gradients,
# which sum over all steps and rows, by ten times that.
_OUTPUT_TOLERANCE = 1e-5
_GRADIENT_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Budget:
    """How long to measure one row."""

    seconds: float  # of samples, after warming up
    least: int  # pairs, even where they take longer
    most: int
    shortest: float  # seconds: shorter calls are put together to one sample

    def enough(self, pairs: int, seconds: float) -> bool:
        return pairs >= self.most or (pairs >= self.least and seconds >= self.seconds)


FULL = Budget(seconds=0.8, least=5, most=100, shortest=5e-3)
QUICK = Budget(seconds=0.25, least=3, most=30, shortest=2e-3)


@dataclass(frozen=True)
class Spread:
    """Samples as their minimum, quartiles and median."""

    minimum: float
    q1: float
    median: float
    q3: float

    @classmethod
    def of(cls, samples: list[float]) -> Spread:
        if len(samples) < 2:
            return cls(*samples * 4)
        q1, _, q3 = quantiles(samples, n=4, method="inclusive")
        return cls(min(samples), q1, median(samples), q3)


@dataclass(frozen=True)
class Deviation:
    """How far our results are from the peer's, relative to the root mean square of these.

    The worst of several results.
    """

    rms: float
    largest: float


@dataclass(frozen=True)
class Measurement:
    """Both sides, and the ratio peer / ours of each pair: above 1, ours is the faster."""

    ours: Spread
    peer: Spread
    ratio: Spread
    pairs: int
    deviation: Deviation | None = None  # None where nothing was compared


class DifferentResultsError(Exception):
    """The two sides do not compute the same, so their times cannot be compared."""


def measure(
    contest: Contest,
    budget: Budget,
    clock: Clock = time.perf_counter,
    looseness: float = 1.0,
) -> Measurement:
    """Time both sides in turn, A B A B …, after checking that they give the same results.

    Raises DifferentResultsError.
    """
    deviation = check_equal(contest.ours.results(), contest.peer.results(), looseness)
    ours = contest.ours.sampler(budget.shortest, clock)
    peer = contest.peer.sampler(budget.shortest, clock)
    pairs: list[tuple[float, float]] = []
    with _no_collection():
        start = clock()
        while not _done(contest, budget, len(pairs), clock() - start):
            pairs.append((ours(), peer()))
    return summarise(pairs, deviation)


def _done(contest: Contest, budget: Budget, pairs: int, seconds: float) -> bool:
    if contest.rounds is not None:
        return pairs >= contest.rounds
    return budget.enough(pairs, seconds)


def summarise(pairs: list[tuple[float, float]], deviation: Deviation | None = None) -> Measurement:
    """Statistics of (ours, peer) pairs; the ratio is taken per pair, so that drift cancels."""
    return Measurement(
        Spread.of([a for a, _ in pairs]),
        Spread.of([b for _, b in pairs]),
        Spread.of([b / a for a, b in pairs]),
        len(pairs),
        deviation,
    )


def check_equal(ours: Results, peer: Results, looseness: float = 1.0) -> Deviation | None:
    """Compare by name: outputs, and gradients where there are any ("grad …").

    Raises DifferentResultsError for a name that one side lacks, a shape, or a difference
    beyond float32's rounding (times `looseness`), relative and norm-wise.
    """
    if ours.keys() != peer.keys():
        raise DifferentResultsError(f"only one side has {sorted(ours.keys() ^ peer.keys())}")
    found = {n: _deviation(n, ours[n], peer[n]) for n in ours}
    for name, deviation in found.items():
        usual = _GRADIENT_TOLERANCE if name.startswith("grad ") else _OUTPUT_TOLERANCE
        allowed = usual * looseness
        if not deviation.rms <= allowed:  # also where it is no number
            raise DifferentResultsError(
                f"{name} differs by {deviation.rms:.1e}, allowed {allowed:.0e}"
            )
    if not found:
        return None
    return Deviation(max(d.rms for d in found.values()), max(d.largest for d in found.values()))


def _deviation(name: str, ours: torch.Tensor, peer: torch.Tensor) -> Deviation:
    if ours.shape != peer.shape:
        raise DifferentResultsError(f"{name}: {list(ours.shape)} and {list(peer.shape)}")
    if not ours.numel():  # a cell without recurrent weights: nothing to differ in
        return Deviation(0.0, 0.0)
    apart, usual = ours.double() - peer.double(), peer.double().square().mean().sqrt()
    scale = usual.clamp(min=1e-30)
    return Deviation(float(apart.square().mean().sqrt() / scale), float(apart.abs().max() / scale))


@contextmanager
def _no_collection() -> Iterator[None]:
    gc.collect()
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


@contextmanager
def threads(count: int | None) -> Iterator[int]:
    """While inside, torch and gatewise use so many threads; None leaves them as they are."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
