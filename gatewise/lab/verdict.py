"""What our trials say of a published figure, by one stated rule per kind of figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from gatewise.lab import statistics
from gatewise.lab.experiment import Experiment, Published
from gatewise.lab.statistics import Interval
from gatewise.lab.store import Trial

RULES = """\
A success rate is **refuted** where Fisher's exact test gives less than 5 % to so large a difference
between the published successes and ours, **confirmed** where it is not refuted, lies in our 95 %
Wilson interval and that interval is no wider than 0.35, and else **not decided**. A mean number of
sequences (or of test errors) is **confirmed** where it lies in the 95 % prediction interval for the
mean of as many trials drawn like ours, else **refuted**; it is **not decided** with fewer than five
trials of ours, or where that interval is wider than the mean itself, or the published number of
trials is unknown. A bound on test errors is confirmed where our mean is within it. While trials are
missing, nothing is decided. A claim in words that a method fails (of no number of trials) means
that it succeeds in at most one of 20: **confirmed** where none of ours does and that interval is no
wider than 0.35, **refuted** where the interval is wholly above 1 in 20, else **not decided**."""

CONFIRMED, REFUTED, UNDECIDED = "confirmed", "refuted", "not decided"
_FEWEST = 5
_RARELY = 1 / 20  # a method that succeeds more often than this does not fail


@dataclass(frozen=True)
class Summary:
    """The trials of one experiment, in numbers."""

    experiment: Experiment
    trials: tuple[Trial, ...]
    wanted: int

    @property
    def complete(self) -> bool:
        return len(self.trials) >= self.wanted

    @property
    def successes(self) -> int:
        return sum(t.outcome.success for t in self.trials)

    @property
    def rate(self) -> Interval | None:
        return statistics.rate(self.successes, len(self.trials)) if self.trials else None

    @property
    def sequences(self) -> list[int]:
        """To success, of the trials that succeeded, in order."""
        return sorted(t.outcome.sequences for t in self.trials if t.outcome.success)

    @property
    def median(self) -> float | None:
        return median(self.sequences) if self.sequences else None

    @property
    def mean(self) -> Interval | None:
        return statistics.mean(self.sequences)

    def numbers(self, name: str, solved: bool = False) -> list[float]:
        """One further measurement of every trial that has it."""
        found = (t.outcome for t in self.trials if t.outcome.success or not solved)
        return [o.numbers[name] for o in found if name in o.numbers]

    @property
    def seconds(self) -> float:
        """Of computing, all trials together: those of one piece of work ran at once."""
        last: dict[tuple[int, int, int], float] = {}
        for t in self.trials:
            key = (t.seed, *t.work)
            last[key] = max(last.get(key, 0.0), t.seconds)
        return sum(last.values())


@dataclass(frozen=True)
class Verdict:
    """A published figure, ours beside it, and what follows."""

    published: Published
    ours: Interval | None
    word: str


def verdicts(summary: Summary) -> list[Verdict]:
    """One for every published figure."""
    return [_verdict(summary, p) for p in summary.experiment.published]


def _verdict(summary: Summary, p: Published) -> Verdict:
    if p.figure == "successes":
        ours = summary.rate
        word = _of_rate(summary, p) if summary.complete else UNDECIDED
        return Verdict(p, ours, word)
    values: Sequence[float] = summary.sequences
    if p.figure == "wrong":
        values = summary.numbers("test_wrong", solved=True)
    ours = statistics.mean(values)
    if not summary.complete or len(values) < _FEWEST:
        return Verdict(p, ours, UNDECIDED)
    if p.figure == "wrong":
        within = sum(values) / len(values) <= p.value
        return Verdict(p, ours, CONFIRMED if within else REFUTED)
    return Verdict(p, ours, _of_mean(values, p))


def _of_rate(summary: Summary, p: Published) -> str:
    n, k = len(summary.trials), summary.successes
    if not p.trials:
        return _of_failure(k, n)
    if statistics.same_rate(round(p.value), p.trials, k, n) < 1 - statistics.LEVEL:
        return REFUTED
    _, low, high = statistics.rate(k, n)
    inside = low - 1e-9 <= p.value / p.trials <= high + 1e-9
    return CONFIRMED if inside and high - low <= statistics.MEANINGFUL else UNDECIDED


def _of_failure(k: int, n: int) -> str:
    _, low, high = statistics.rate(k, n)
    if low > _RARELY:
        return REFUTED
    return CONFIRMED if not k and high - low <= statistics.MEANINGFUL else UNDECIDED


def _of_mean(values: Sequence[float], p: Published) -> str:
    expected = statistics.another_mean(values, p.trials)
    if expected is None or expected.high - expected.low > expected.value:
        return UNDECIDED
    return CONFIRMED if expected.low <= p.value <= expected.high else REFUTED
