"""The Numenta Anomaly Benchmark: its series, its windows, its scoring (Lavin & Ahmad, 2015).

A detector gives every row of every series a score between 0 and 1. One threshold for the whole
corpus turns scores into alarms, and it is the best one there is. In a window around an anomaly the
first alarm counts, the more the earlier it comes; outside, every alarm costs:

    σ(y) = 2 / (1 + e^{5y}) - 1

with y = -1 at the window's left edge, 0 just behind its right edge, and on beyond it in widths of
the window; from y = 3 on, and before the first window, an alarm costs the whole weight. The sum is
scaled so that no alarm at all is 0 and the earliest alarm in every window and no other is 100.

N = rows of a series.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from math import erfc, sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gatewise.models.anomaly import AnomalyDetector, DetectorConfig
from gatewise.models.table import read_table, read_times

Floats = NDArray[np.float64]
_PROBATION, _LONGEST = 0.15, 5000  # the share of a series that is not scored; of so many rows


@dataclass(frozen=True)
class Profile:
    """What an alarm in a window, an alarm outside and a missed window weigh."""

    hit: float = 1.0
    false_alarm: float = 0.11
    miss: float = 1.0


PROFILES = {
    "standard": Profile(),
    "reward_low_FP_rate": Profile(false_alarm=0.22),
    "reward_low_FN_rate": Profile(miss=2.0),
}


@dataclass(frozen=True)
class Series:
    """One series of the corpus."""

    name: str  # folder/file.csv
    times: list[datetime]
    values: Floats  # [N]
    windows: tuple[tuple[int, int], ...]  # first and last row of each

    @property
    def probation(self) -> int:
        """Rows at the beginning that are for learning and not scored."""
        return min(int(_PROBATION * len(self.values)), int(_PROBATION * _LONGEST))

    def window_of(self) -> NDArray[np.int64]:
        """The number of the window each row is in, -1 outside: [N]."""
        inside = np.full(len(self.values), -1)
        for k, (first, last) in enumerate(self.windows):
            inside[first : last + 1] = k
        return inside

    def credit(self) -> Floats:
        """What an alarm at each row is worth, unweighted: 0…1 in a window, -1…0 outside. [N]."""
        row = np.arange(len(self.values))
        position = np.full(len(row), 3.0)
        for first, last in self.windows:
            width = last - first + 1
            position[last + 1 :] = (row[last + 1 :] - last) / max(1, width - 1)
        position[position >= 3] = np.inf
        for first, last in self.windows:
            inside = slice(first, last + 1)
            position[inside] = -(last - row[inside] + 1) / (last - first + 1)
        credit = 2 / (1 + np.exp(np.minimum(5 * position, 700))) - 1
        return np.where(self.window_of() >= 0, credit / (2 / (1 + np.exp(-5)) - 1), credit)


@dataclass(frozen=True)
class Result:
    """A detector's score, the threshold it has it at, and what happens there."""

    score: float
    threshold: float
    windows: int
    detected: int
    false_alarms: int  # rows


def read_nab(folder: str | Path) -> list[Series]:
    """The corpus in `folder`: data/*/*.csv and labels/combined_windows.json.

    Raises ValueError or OSError for a folder that is not the benchmark's.
    """
    labels = Path(folder) / "labels" / "combined_windows.json"
    if not labels.is_file():
        raise ValueError(f"{folder} is not the benchmark's folder: it has no {labels.name}")
    try:
        windows: Any = json.loads(labels.read_text("utf-8"))
        return [_read_series(Path(folder), name, windows[name]) for name in sorted(windows)]
    except (TypeError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{labels} is damaged: {error}") from None


def _read_series(folder: Path, name: str, windows: list[list[str]]) -> Series:
    path = folder / "data" / name
    times = read_times(path, "timestamp")
    values = read_table(path, ["value"]).values[:, 0]
    found = []
    for limits in windows:
        first, last = (datetime.fromisoformat(w) for w in limits)
        if first not in times or last not in times:
            raise ValueError(f"{path} has no row at a limit of its window {first} to {last}")
        found.append((times.index(first), times.index(last)))
    return Series(name, times, values, tuple(found))


def score(
    corpus: list[Series], scores: Mapping[str, Floats], profile: Profile = PROFILES["standard"]
) -> Result:
    """The benchmark's figure for a detector's `scores`, [N] for each series by its name.

    Raises ValueError for scores that are missing, of another length, or not finite, and where
    there is no window to be found.
    """
    alarms, worth, window = _rows(corpus, scores, profile)
    order = np.argsort(-alarms, kind="stable")
    alarms, worth, window = alarms[order], worth[order], window[order]
    gain = np.where(window < 0, worth, 0.0)  # of each further row that is an alarm
    first = np.zeros(len(alarms), dtype=bool)  # is it the first in its window?
    count = int(window.max(initial=-1)) + 1
    if not count:
        raise ValueError("scores cannot be judged: no series has a window that is scored")
    for k in range(count):
        rows = np.flatnonzero(window == k)
        if not len(rows):  # all of it in the rows that are not scored, or in another window
            continue
        best = np.maximum.accumulate(np.concatenate([[-profile.miss], worth[rows]]))
        gain[rows], first[rows[0]] = np.diff(best), True
    last = np.append(alarms[1:] != alarms[:-1], True)  # rows of equal score are alarms together
    totals = np.concatenate([[0.0], gain.cumsum()[last]])
    thresholds = np.concatenate([[np.inf], alarms[last]])
    at = int(totals.argmax())
    above = alarms >= thresholds[at]
    return Result(
        score=100 * float(totals[at]) / ((profile.hit + profile.miss) * count),
        threshold=float(thresholds[at]),
        windows=count,
        detected=int(first[above].sum()),
        false_alarms=int((window[above] < 0).sum()),
    )


def _rows(
    corpus: list[Series], scores: Mapping[str, Floats], profile: Profile
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """All scored rows: the detector's score, an alarm's worth there, the window or -1."""
    parts, windows = [], 0
    for series in corpus:
        given = scores.get(series.name)
        if given is None or given.shape != series.values.shape or not np.isfinite(given).all():
            raise ValueError(
                f"scores must hold {len(series.values)} finite numbers for {series.name}"
            )
        inside, credit = series.window_of(), series.credit()
        worth = credit * np.where(inside >= 0, profile.hit, profile.false_alarm)
        number = np.where(inside >= 0, inside + windows, -1)
        windows += len(series.windows)
        parts.append((given, worth, number, series.probation))
    if not parts:
        raise ValueError("scores cannot be judged: the benchmark has no series")
    joined = [np.concatenate([p[k][p[3] :] for p in parts]) for k in range(3)]
    return joined[0], joined[1], joined[2]


def draw(corpus: list[Series], scores: Mapping[str, Floats], out: Path, detector: str) -> None:
    """A picture of every series with its windows and scores, folder-file.png, into `out`.

    The threshold is the one that the standard profile has its figure at.
    """
    from gatewise.models.series_plots import plot_anomalies

    threshold = score(corpus, scores).threshold
    out.mkdir(parents=True, exist_ok=True)
    for series in corpus:
        path = out / series.name.replace("/", "-").replace(".csv", ".png")
        plot_anomalies(
            series.times,
            series.values.tolist(),
            scores[series.name].tolist(),
            path,
            f"{series.name} ({detector})",
            windows=series.windows,
            threshold=threshold,
        )


def windowed_gaussian(values: Floats, size: int = 6400, step: int = 100) -> Floats:
    """The benchmark's simple detector: how far a value lies in a Gaussian's tails, [N] in 0…1.

    1 - Q(|x - μ| / σ), with μ and σ of all values before, and from `size` values on of a window of
    so many that moves every `step`.
    """
    row = np.arange(len(values))
    moved = np.maximum(0, (row - size) // step * step)
    first, last = moved, np.where(row < size, row, moved + size)
    offset = values - values[0]
    sums = [np.concatenate([[0.0], np.cumsum(offset**power)]) for power in (1, 2)]
    count = np.maximum(1, last - first)
    mean, square = ((s[last] - s[first]) / count for s in sums)
    std = np.sqrt(np.maximum(0, square - mean**2))
    z = np.abs(offset - mean) / np.where(std > 0, std, 1e-6)
    tail = np.array([erfc(x / sqrt(2)) / 2 for x in z])
    return np.where(row > 0, 1 - tail, 0.0)


def recurrent(series: Series, config: DetectorConfig | None = None) -> Floats:
    """`AnomalyDetector` over one series, untrained at its beginning: [N] in 0…1."""
    detector = AnomalyDetector(config)
    steps = zip(series.times, series.values.tolist(), strict=True)
    return np.array([detector.step(time, value).score for time, value in steps])


DETECTORS: dict[str, Callable[[Series, int], Floats]] = {
    "recurrent": lambda series, seed: recurrent(series, DetectorConfig(seed=seed)),
    "windowed-gaussian": lambda series, seed: windowed_gaussian(series.values),
    "random": lambda series, seed: np.random.default_rng([seed, len(series.values)]).random(
        len(series.values)
    ),
    "null": lambda series, seed: np.full(len(series.values), 0.5),
}
