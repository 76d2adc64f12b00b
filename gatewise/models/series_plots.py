"""Pictures of series: forecasts with intervals over the truth, anomaly scores over a stream.

F = horizon, S = series, K = outputs of a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import torch
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num

from gatewise.models.forecaster import Forecaster
from gatewise.models.plots import literal, new_figure, write_figure

_PANELS = 3  # windows shown of each series
_SERIES = 4  # series shown


def plot_forecasts(
    model: Forecaster,
    rows: torch.Tensor,
    starts: torch.Tensor,
    names: Sequence[str],
    path: str | Path,
    title: str,
) -> None:
    """Forecasts from three of the rows `starts`, over the truth in `rows` [N, S], as a PNG.

    The last series are shown, because tables put what is to be forecast last.
    """
    config = model.config
    shown = range(max(0, config.series - _SERIES), config.series)
    chosen = starts[torch.linspace(0, len(starts) - 1, _PANELS + 2).long()[1:-1]].tolist()
    figure = new_figure(4.4 * _PANELS, 0.7 + 2.1 * len(shown))
    grid = figure.subplots(len(shown), _PANELS, sharex=True, squeeze=False)
    ahead = range(config.horizon)
    past = range(-min(config.look_back, 2 * config.horizon), 0)
    for column, start in enumerate(chosen):
        y = model.forecast(rows[:start])  # [F, S, K]
        truth = rows[start + past.start : start + config.horizon]
        for axes, series in zip(grid[:, column], shown, strict=True):
            axes.plot([*past, *ahead], truth[:, series], color="#2b2b2b", lw=1.2, label="truth")
            axes.plot(ahead, y[:, series, 0], color="#1f5fa8", lw=1.8, label="forecast")
            if len(config.quantiles) > 1:
                low, high = config.quantiles[0], config.quantiles[-1]
                axes.fill_between(
                    ahead,
                    y[:, series, 1],
                    y[:, series, -1],
                    color="#1f5fa8",
                    alpha=0.2,
                    lw=0,
                    label=f"{low:.0%} to {high:.0%}",
                )
            axes.axvline(0, color="#9aa5b1", lw=0.8)
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(alpha=0.2)
    for axes, series in zip(grid[:, 0], shown, strict=True):
        axes.set_ylabel(literal(names[series]))
    for axes, start in zip(grid[-1], chosen, strict=True):
        axes.set_xlabel(f"rows from row {start:,}")
    figure.suptitle(literal(title))
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    write_figure(figure, path)


def plot_anomalies(
    times: Sequence[datetime],
    values: Sequence[float],
    scores: Sequence[float],
    path: str | Path,
    title: str,
    *,
    expected: Sequence[float] = (),
    windows: Sequence[tuple[int, int]] = (),
    threshold: float | None = None,
) -> None:
    """A stream, what was expected of it if that is known, its anomaly score below, as a PNG.

    `windows` are first and last rows of labelled anomalies, shaded; there may be none. Scores
    below the `threshold` are pale.
    """
    figure = new_figure(11, 5)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    x = date2num(list(times))
    above.plot(x, values, color="#2b2b2b", lw=0.7, label="stream")
    if len(expected):
        above.plot(x, expected, color="#1f5fa8", lw=0.6, alpha=0.7, label="expected")
    low, high = np.quantile(values, [0.0, 1.0])
    above.set_ylim(low - 0.1 * (high - low or 1), high + 0.25 * (high - low or 1))
    loud = np.array(scores) >= (0.0 if threshold is None else threshold)
    for rows, colour in ((~loud, "#e3b5b0"), (loud, "#c0392b")):
        below.vlines(x[rows], 0, np.array(scores)[rows], color=colour, lw=1.2)
    if threshold is not None and threshold <= 1:
        below.axhline(threshold, color="#5f6b76", lw=0.8, ls="--", label="threshold")
        below.legend(frameon=False, loc="upper left")
    below.set(ylabel="anomaly score", ylim=(0, 1))
    for axes in (above, below):
        for k, (first, last) in enumerate(windows):
            label = "labelled anomaly" if k == 0 and axes is above else None
            axes.axvspan(x[first], x[last], color="#e6a817", alpha=0.3, lw=0, label=label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.2)
    locator = AutoDateLocator()
    below.xaxis.set_major_locator(locator)
    below.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    above.legend(frameon=False, ncols=3, loc="upper left")
    above.set_title(literal(title))
    write_figure(figure, path)
