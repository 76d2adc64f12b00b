"""The picture of a run: a row per case, its ratio with spread, and the target it should reach."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gatewise.benchmark import context
from gatewise.benchmark.growth import growth
from gatewise.benchmark.report import Report, Row
from gatewise.models.plots import new_figure, write_figure

_REACHED, _SHORT, _FREE = "#2a7f62", "#c8553d", "#7a8896"
_TARGET = "#1c2733"
_AGAINST = {
    "loop": "the cell as a Python loop",
    "limit": "a fixed limit",
    "nn.LSTM memory": "nn.LSTM",
    "root of time": "the same layer at 1000 steps, both divided by √T",
    "same layer": "the same layer at the smallest size",
    "narrow layer": "a layer of the smallest width",
    "nn.LSTM in turn": "as many nn.LSTM in turn",
    "nn.GRU in turn": "as many nn.GRU in turn",
    "nn.RNN in turn": "as many nn.RNN in turn",
    "same layers in turn": "the same layers in turn",
    "full weights": "the same layer with full weights (off: RMS difference / RMS output)",
}
_ROW_INCHES = 0.21
_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)


def plot(report: Report, path: str | Path) -> None:
    """Ratios with quartiles on a logarithmic axis, targets marked, grouped by peer, as a PNG.

    The suite `context` alone is drawn as `context.plot` does.

    Raises ValueError where nothing was measured.
    """
    if {r.case.suite for r in report.rows} == {context.SUITE}:
        context.plot(report, path)
        return
    groups = _groups([r for r in report.rows if r.measured is not None])
    if not groups:
        raise ValueError("there is nothing to plot: no row was measured")
    heights = [len(rows) + 1.2 for rows in groups.values()]
    figure = new_figure(9.0, 1.5 + _ROW_INCHES * sum(heights))
    panels = figure.subplots(
        len(groups), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
    )[:, 0]
    low, high = _limits([r for rows in groups.values() for r in rows])
    for axes, (title, rows) in zip(panels, groups.items(), strict=True):
        fitted = [str(g) for g in growth(rows)]
        _panel(axes, "\n".join([title, *fitted]), rows)
    panels[-1].set_xlim(low, high)
    ticks = [t for t in _TICKS if low <= t <= high]
    panels[-1].set_xticks(ticks, [f"{t:g}×" for t in ticks])
    panels[-1].set_xlabel("peer's figure divided by ours, median and quartiles of pairs")
    figure.suptitle(_title(report.header), fontsize=10, x=0.01, ha="left")
    _legend(figure)
    write_figure(figure, path)


def _groups(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        peer = _AGAINST.get(row.case.peer, row.case.peer)
        found.setdefault(f"{row.case.suite}: against {peer}", []).append(row)
    return found


def _limits(rows: Sequence[Row]) -> tuple[float, float]:
    found = [1.0]
    for row in rows:
        if row.measured is not None:
            found += [row.measured.ratio.q1, row.measured.ratio.q3]
        if row.case.target is not None:
            found.append(row.case.target)
    return 0.75 * min(found), 1.9 * max(found)  # room for the figures on the right


def _panel(axes: Any, title: str, rows: Sequence[Row]) -> None:
    axes.set_xscale("log")
    axes.minorticks_off()
    for y, row in enumerate(rows):
        assert row.measured is not None
        ratio, colour = row.measured.ratio, _colour(row)
        axes.barh(y, ratio.median - 1.0, left=1.0, height=0.62, color=colour, alpha=0.35)
        axes.plot([ratio.q1, ratio.q3], [y, y], color=colour, lw=2.2, solid_capstyle="butt")
        axes.plot(ratio.median, y, "o", color=colour, ms=4)
        right = ratio.q3
        if row.case.target is not None:
            axes.plot([row.case.target] * 2, [y - 0.42, y + 0.42], color=_TARGET, lw=1.8)
            if 0.7 < row.case.target / ratio.q3 < 1.6:  # keep the figure clear of the mark
                right = max(right, row.case.target)
        axes.annotate(
            f"{ratio.median:.2f}" if ratio.median < 9.95 else f"{ratio.median:.1f}",
            (right, y),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
            color=colour,
            weight="bold",
        )
    axes.axvline(1.0, color="#9aa5b1", lw=1.0, zorder=0)
    axes.set_yticks(range(len(rows)), [label(r) for r in rows], fontsize=7.5)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", length=0, labelsize=8)
    axes.set_title(title, loc="left", fontsize=9, weight="bold", pad=3)
    axes.spines[:].set_visible(False)


def label(row: Row) -> str:
    """A row in a few words: cell, work, T, B, I, H, and what rounded weights cost."""
    apart = row.measured and row.measured.deviation if row.case.held != "full" else None
    off = f"   {apart.rms:.1%} off" if apart else ""
    return f"{row.case.cell} {row.case.title}   {row.case.shape}{off}"


def _colour(row: Row) -> str:
    if row.reached is None:
        return _FREE
    return _REACHED if row.reached else _SHORT


def _title(header: dict[str, Any]) -> str:
    return (
        f"gatewise ({header['gatewise']}) beside its peers, {header['date']}\n"
        f"{header['processor']} ({header['vector']}), {header['threads']} threads, "
        f"torch {header['torch']}, sgemm {header['sgemm_gflops']:.0f} GFLOP/s, "
        f"load {header['load']}"
    )


def _legend(figure: Any) -> None:
    from matplotlib.lines import Line2D

    def dot(colour: str, text: str) -> Line2D:
        return Line2D([], [], color=colour, marker="o", ms=4, lw=2.2, label=text)

    marks = [
        dot(_REACHED, "target reached"),
        dot(_SHORT, "target missed"),
        dot(_FREE, "no target"),
        Line2D([], [], color=_TARGET, marker="|", ms=10, mew=1.8, lw=0, label="target"),
    ]
    figure.legend(handles=marks, loc="outside lower right", ncols=4, frameon=False, fontsize=8)
