"""The pictures of the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from gatewise.diagnostics import Flow
from gatewise.lab.experiment import Activity
from gatewise.lab.report.rows import Row
from gatewise.lab.store import Trial

INK = "#101112"  # text and axes; a page may put its own colour there
BLUE, RED, ORANGE, GREEN, GREY = "#2f7fc1", "#d0493a", "#dd8a1f", "#3a9a68", "#8a96a3"
_LINES = (BLUE, ORANGE, GREEN, "#9b62b8", RED, GREY)
_WIDTH = 4.6  # inches: read on a phone at the size it has, on a screen somewhat larger
_MARGINS = (0.62, 0.3, 0.2, 0.42)  # left, right, top, bottom; inches
_POINTS = 800  # of the lines of a picture, together
LOOK: dict[Any, Any] = {
    "font.size": 9.0,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
}


@mpl.rc_context(LOOK)
def overview(rows: Sequence[Row]) -> Figure:
    """Sequences to success of every trial, a line per experiment, the published mean beside."""
    figure, axes = _fitted(1.25 + 0.21 * len(rows))
    for y, row in enumerate(rows):
        solved, s = row.summary.sequences, row.summary
        failed = len(s.trials) - len(solved)
        axes.plot(solved, [y] * len(solved), "o", color=BLUE, ms=3.6, alpha=0.45, mew=0)
        if solved:
            axes.plot(sum(solved) / len(solved), y, "|", color=BLUE, ms=11, mew=2)
        if failed:
            axes.plot(row.experiment.limit, y, "x", color=RED, ms=4.5, mew=1.3)
        for v in row.of("sequences"):
            axes.plot(v.published.value, y, "D", color=ORANGE, ms=4.2, mfc="none", mew=1.3)
        axes.text(1.02, y, row.solved, transform=axes.get_yaxis_transform(), va="center", size=8)
    axes.set_yticks(range(len(rows)), [r.name for r in rows])
    axes.set(ylim=(len(rows) - 0.4, -0.6), xscale="log", xlabel="training sequences to success")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.3)
    axes.text(1.02, 1.0, "solved", transform=axes.transAxes, va="bottom", size=8)
    for marker, colour, label in (
        ("o", BLUE, "a trial"),
        ("|", BLUE, "our mean"),
        ("D", ORANGE, "published mean"),
        ("x", RED, "limit that trials failed at"),
    ):
        axes.plot([], [], marker, color=colour, mfc="none" if marker == "D" else None, label=label)
    figure.legend(loc="outside upper left", ncols=2, handletextpad=0.1, columnspacing=1.0)
    return figure


@mpl.rc_context(LOOK)
def curves(trials: Sequence[Trial]) -> Figure | None:
    """Error by training sequences, a line per trial; a dot where it succeeded."""
    shown = [t.outcome for t in trials if len(t.outcome.curve) > 1]
    if not shown:
        return None
    figure, axes = _figure(2.5)
    for success, colour, label in ((True, BLUE, "succeeded"), (False, RED, "did not")):
        lines = [o.curve for o in shown if o.success is success]
        if not lines:
            continue
        # One path for all: what stands between two lines is not drawn.
        points = [p for line in lines for p in (*_thinned(line, len(shown)), (0, math.nan))]
        drawn = [(n, e if 0 < e < math.inf else math.nan) for n, e in points]
        axes.plot(*zip(*drawn, strict=True), color=colour, lw=0.9, alpha=0.6, label=label)
        if success:
            axes.plot(*zip(*(line[-1] for line in lines), strict=True), "o", color=colour, ms=3.5)
    axes.set(xlabel="training sequences", ylabel="error", yscale="log")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.tick_params(which="minor", left=False)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _thinned(line: Sequence[tuple[int, float]], lines: int) -> Sequence[tuple[int, float]]:
    """Every so many-th point and the last, where there are more than can be told apart."""
    every = max(1, len(line) * lines // _POINTS)
    return [*line[:-1:every], line[-1]]


@mpl.rc_context(LOOK)
def activity(shown: Activity) -> Figure:
    """A panel per kind of value over the steps of one sequence; marked steps as vertical lines."""
    kinds: dict[str, dict[str, list[float]]] = {}
    for label, values in shown.lines.items():
        kind, _, number = label.rpartition(" ")
        kind, number = (kind, number) if number.isdigit() else (label, "")
        kinds.setdefault(kind, {})[number] = values
    figure, panels = _figure(0.35 + 0.85 * len(kinds), rows=len(kinds))
    panels = np.atleast_1d(panels)
    for axes, (kind, lines) in zip(panels, kinds.items(), strict=True):
        for at in shown.marks:
            axes.axvline(at, color=ORANGE, lw=5, alpha=0.3)
        for k, (number, values) in enumerate(lines.items()):
            axes.plot(values, color=_LINES[k % len(_LINES)], lw=1.2, label=number)
        if "gate" in kind:  # what opens and what stays shut can be seen only on one scale
            axes.set_ylim(-0.05, 1.05)
        axes.set_title(f"{kind}s", loc="left", size=8.5, pad=2)
        if len(lines) > 1:
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=0.8, borderpad=0)
    panels[-1].set_xlabel("step")
    return figure


@mpl.rc_context(LOOK)
def gradients(flows: Sequence[Flow]) -> Figure:
    """Norm of the last loss's derivative by an earlier state: what vanishes and what arrives."""
    by = {f.label: f for f in flows}
    lines = (
        ("rnn, gain 2, initial", "h", "plain RNN, large weights", RED, "-"),
        ("rnn, initial", "h", "plain RNN", ORANGE, "-"),
        ("lstm, initial", "c", "LSTM of today, as initialised", BLUE, "-"),
        ("lstm, forget bias 5, initial", "c", "LSTM of today, forget bias 5", BLUE, "--"),
        ("lstm-1997, initial", "c", "1997 cell, whole gradient", GREEN, ":"),
        ("lstm-1997, edges cut", "c", "1997 cell, its truncated rule", GREEN, "-"),
    )
    figure, axes = _fitted(3.2)
    for label, state, title, colour, style in lines:
        if label in by:
            norms = [(k + 1, v) for k, v in enumerate(by[label].states[state]) if v > 0]
            axes.plot(*zip(*norms, strict=True), style, color=colour, lw=1.6, label=title)
    axes.set(yscale="log", xlabel="steps back", ylabel="norm of the gradient")
    axes.set_ylim(max(axes.get_ylim()[0], 1e-14), min(axes.get_ylim()[1], 1e8))
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, columnspacing=1.0)
    return figure


def _fitted(height: float) -> tuple[Figure, Any]:
    """A figure whose margins are made for what stands beside its axes."""
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _figure(height: float, rows: int = 1) -> tuple[Figure, Any]:
    """A figure of that many inches, and its axes, one above the other, that share x.

    Margins are fixed, in inches: to try them out for hundreds of pictures takes minutes.
    """
    figure = Figure(figsize=(_WIDTH, height))
    FigureCanvasAgg(figure)
    left, right, top, bottom = _MARGINS
    edges = {"left": left / _WIDTH, "right": 1 - right / _WIDTH}
    edges |= {"top": 1 - top / height, "bottom": bottom / height}
    panels = figure.subplots(rows, 1, sharex=True, gridspec_kw=edges | {"hspace": 0.45})
    return figure, panels
