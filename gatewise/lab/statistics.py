"""Intervals and verdicts, with SciPy; the level is 95 % throughout."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, NamedTuple

LEVEL = 0.95
MEANINGFUL = 0.35  # a rate is known well enough where its interval is no wider than this


class Interval(NamedTuple):
    """A value between two bounds."""

    value: float
    low: float
    high: float


def _stats() -> Any:
    try:
        return importlib.import_module("scipy.stats")
    except ImportError:
        raise ValueError("statistics need the package scipy: pip install 'gatewise[lab]'") from None


def rate(successes: int, trials: int) -> Interval:
    """A success rate with Wilson's score interval (Wilson, 1927).

    Raises:
        ValueError: no trials, or more successes than trials.

    >>> value, low, high = rate(9, 10)
    >>> print(f"{value:.2f} [{low:.3f}, {high:.3f}]")
    0.90 [0.596, 0.982]
    """
    if trials < 1:
        raise ValueError(f"trials must be positive, got {trials}")
    if not 0 <= successes <= trials:
        raise ValueError(f"successes must be in 0…{trials}, got {successes}")
    found = _stats().binomtest(successes, trials).proportion_ci(LEVEL, method="wilson")
    return Interval(successes / trials, float(found.low), float(found.high))


def mean(values: Sequence[float]) -> Interval | None:
    """A mean with Student's interval; None for fewer than two values.

    >>> print("{:.2f} [{:.2f}, {:.2f}]".format(*mean([1.0, 2.0, 3.0, 4.0])))
    2.50 [0.45, 4.55]
    """
    return _around_mean(values, 1 / len(values)) if len(values) > 1 else None


def another_mean(values: Sequence[float], trials: int) -> Interval | None:
    """Where the mean of `trials` further values of the same kind lies, in 95 of 100 cases."""
    if len(values) < 2 or trials < 1:
        return None
    return _around_mean(values, 1 / len(values) + 1 / trials)


def _around_mean(values: Sequence[float], variance: float) -> Interval:
    n = len(values)
    m = sum(values) / n
    spread = (sum((v - m) ** 2 for v in values) / (n - 1)) ** 0.5
    half = float(_stats().t.ppf((1 + LEVEL) / 2, n - 1)) * spread * variance**0.5
    return Interval(m, m - half, m + half)


def same_rate(a: int, of_a: int, b: int, of_b: int) -> float:
    """Fisher's exact probability of such a difference between two equal rates, two-sided."""
    return float(_stats().fisher_exact([[a, of_a - a], [b, of_b - b]])[1])


def at_least(count: int, trials: int, probability: float) -> float:
    """The chance of `count` or more among `trials` of this probability each.

    >>> at_least(2, 2, 0.5)
    0.25
    """
    return float(_stats().binomtest(count, trials, probability, alternative="greater").pvalue)
