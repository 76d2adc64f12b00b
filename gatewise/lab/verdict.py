"""What our trials say of a published figure, by one stated rule per kind of figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from gatewise.lab import statistics
from gatewise.lab.experiment import Experiment, Published, Spent
from gatewise.lab.statistics import Interval
from gatewise.lab.store import Trial

RULES = (
    "A success rate is refuted where Fisher's exact test gives less than 5 % to so large a "
    "difference between the published successes and ours; confirmed where it is not refuted, lies "
    "in our 95 % Wilson interval, and that interval is no wider than 0.35; else not decided.",
    "A claim in words that a method fails means that it succeeds in at most one of 20 trials: "
    "confirmed where none of ours does and that interval is no wider than 0.35, refuted where the "
    "interval is wholly above 1 in 20, else not decided.",
    "A mean number of sequences to success is confirmed where it lies in the 95 % prediction "
    "interval for the mean of as many trials drawn like ours, else refuted; not decided where "
    "fewer than five of our trials succeeded, that interval is wider than the mean itself, or the "
    "published number of trials is unknown.",
    "A mean m of sequences is refuted, too, where more of our trials fail than it allows: at most "
    "the share m / L of trials can need more than L sequences (Markov's inequality), with L our "
    "limit, and a binomial test compares. Where no rate is published, all trials are taken to have "
    "succeeded.",
    "A bound on test errors is confirmed where the mean of our networks that succeeded is within "
    "it, else refuted; not decided with fewer than five of them.",
    "While trials are missing, nothing is decided.",
)

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
    def spent(self) -> Spent:
        """All trials together: those of one piece of work ran at once."""
        last: dict[tuple[int, int, int], Spent] = {}
        for t in self.trials:
            place = (t.seed, *t.work)
            if place not in last or t.seconds > last[place].clock:
                last[place] = Spent(t.seconds, t.cpu)
        return sum(last.values(), Spent())


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
    if p.figure == "sequences" and summary.complete and _too_many_fail(summary, p):
        return Verdict(p, ours, REFUTED)
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


def _too_many_fail(summary: Summary, p: Published) -> bool:
    """Do more trials fail than a mean as small as the published one allows?"""
    e, n = summary.experiment, len(summary.trials)
    told = [q for q in e.published if (q.figure, q.source) == ("successes", p.source) and q.trials]
    stated = told[0].value / told[0].trials if told else 1.0
    allowed = 1 - stated * (1 - min(1.0, p.value / e.limit))
    return statistics.at_least(n - summary.successes, n, allowed) < 1 - statistics.LEVEL


def _of_mean(values: Sequence[float], p: Published) -> str:
    expected = statistics.another_mean(values, p.trials)
    if expected is None or expected.high - expected.low > expected.value:
        return UNDECIDED
    return CONFIRMED if expected.low <= p.value <= expected.high else REFUTED
