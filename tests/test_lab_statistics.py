"""Intervals against published values; verdicts by their stated rules."""

from __future__ import annotations

import pytest

from gatewise.lab import Experiment, Published, statistics
from gatewise.lab.baselines.search import Search
from gatewise.lab.experiment import Outcome, Spent
from gatewise.lab.store import Trial
from gatewise.lab.verdict import CONFIRMED, REFUTED, UNDECIDED, Summary, verdicts

pytest.importorskip("scipy", reason="the extra `lab` is not installed")


# Newcombe, Two-sided confidence intervals for the single proportion, 1998, table I, method 3.
@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson(successes: int, trials: int, low: float, high: float) -> None:
    found = statistics.rate(successes, trials)
    assert found == pytest.approx((successes / trials, low, high), abs=5e-5)


def test_students_interval() -> None:
    # Student, The probable error of a mean, 1908: ten differences in hours of sleep.
    hours = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
    assert statistics.mean(hours) == pytest.approx((1.58, 0.70, 2.46), abs=5e-3)
    assert statistics.mean([1.0]) is None


def test_fishers_tea() -> None:
    # Fisher, The design of experiments, 1935: three of four cups right, two-sided.
    assert statistics.same_rate(3, 4, 1, 4) == pytest.approx(0.4857, abs=5e-5)


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="successes must be in"):
        statistics.rate(3, 2)
    with pytest.raises(ValueError, match="trials must be positive"):
        statistics.rate(0, 0)


def summary(published: Published, ends: list[int | None], wanted: int | None = None) -> Summary:
    """Trials that needed so many sequences, or failed (None)."""
    experiment = Experiment(
        "x", "claims", "?", Search("adding-100", "bptt"), 10, 100, "?", (published,)
    )
    trials = tuple(
        Trial(Outcome(k, n is not None, n or 100, {"test_wrong": 2.0}), 0, (k, 1), 1.5)
        for k, n in enumerate(ends)
    )
    return Summary(experiment, trials, wanted or len(trials))


@pytest.mark.parametrize(
    ("claimed", "successes", "word"),
    [(0, 0, CONFIRMED), (0, 2, UNDECIDED), (0, 10, REFUTED), (10, 10, CONFIRMED), (10, 3, REFUTED)],
)
def test_verdict_on_a_rate(claimed: int, successes: int, word: str) -> None:
    ends = [50] * successes + [None] * (10 - successes)
    [found] = verdicts(summary(Published("successes", claimed, "S", 10), ends))
    assert found.word == word


@pytest.mark.parametrize(
    ("successes", "of", "word"),
    # Wilson's interval of 1 of 10 begins at 0.018, of 2 of 10 at 0.057; of 0 of 5 it ends at 0.43.
    [(0, 10, CONFIRMED), (0, 5, UNDECIDED), (1, 10, UNDECIDED), (2, 10, REFUTED)],
)
def test_verdict_on_a_failure_in_words(successes: int, of: int, word: str) -> None:
    ends = [50] * successes + [None] * (of - successes)
    [found] = verdicts(summary(Published("successes", 0, "S, in words"), ends))
    assert found.word == word


@pytest.mark.parametrize(
    ("printed", "word"), [(100, CONFIRMED), (112, CONFIRMED), (150, REFUTED), (60, REFUTED)]
)
def test_verdict_on_a_mean(printed: float, word: str) -> None:
    ends: list[int | None] = [80, 90, 95, 100, 105, 110, 120]
    [found] = verdicts(summary(Published("sequences", printed, "P", 7), ends))
    assert found.word == word and found.ours is not None
    assert found.ours.value == 100


def test_nothing_is_decided_while_trials_are_missing() -> None:
    published = Published("successes", 0, "S", 10)
    assert verdicts(summary(published, [None] * 9, wanted=10))[0].word == UNDECIDED


def test_a_bound_on_test_errors() -> None:
    ends: list[int | None] = [50] * 6
    assert verdicts(summary(Published("wrong", 3, "P"), ends))[0].word == CONFIRMED
    assert verdicts(summary(Published("wrong", 1, "P"), ends))[0].word == REFUTED


def test_time_of_trials_that_ran_together_counts_once() -> None:
    one = summary(Published("successes", 0, "S", 10), [None] * 2)
    together = tuple(Trial(t.outcome, 0, (0, 2), 3.0, 2.0) for t in one.trials)
    assert one.spent == Spent(3.0, None)  # of the processor, nothing was recorded
    assert Summary(one.experiment, together, 2).spent == Spent(3.0, 2.0)


@pytest.mark.parametrize(
    ("printed", "successes", "word"),
    # Of trials with a mean of 10, at most a tenth needs more than 100; of a mean of 80, 80 %.
    [(10, 0, REFUTED), (10, 6, REFUTED), (80, 0, UNDECIDED)],
)
def test_a_mean_is_refuted_where_too_many_fail(printed: float, successes: int, word: str) -> None:
    ends = [10] * successes + [None] * (10 - successes)
    [found] = verdicts(summary(Published("sequences", printed, "P", 10), ends))
    assert found.word == word
