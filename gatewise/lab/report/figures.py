"""Pictures of the page, as SVG text that can stand in it."""

from __future__ import annotations

import base64
import io
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from gatewise.diagnostics import Flow, plot_gradient_flow
from gatewise.lab.experiment import Activity
from gatewise.lab.store import Trial

_SOLVED, _FAILED = "#1f6fb2", "#c0392b"
_LINES = ("#1f6fb2", "#d9822b", "#2e8b57", "#8e44ad", "#c0392b", "#546e7a")


def curves(trials: Sequence[Trial], name: str) -> str:
    """Error by training sequences, a line per trial; a dot where it succeeded."""
    shown = [t.outcome for t in trials if len(t.outcome.curve) > 1]
    if not shown:
        return ""
    figure, axes = _figure(6.4, 3.0)
    for o in shown:
        colour = _SOLVED if o.success else _FAILED
        kept = [(n, e) for n, e in o.curve if e > 0]
        axes.plot(*zip(*kept, strict=True), color=colour, lw=0.9, alpha=0.65)
        if o.success and kept:
            axes.plot(*kept[-1], "o", color=colour, ms=3.5)
    axes.set(xlabel="training sequences", ylabel="error", yscale="log")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlim(left=0)
    for colour, label, some in (
        (_SOLVED, "succeeded", any(o.success for o in shown)),
        (_FAILED, "did not", not all(o.success for o in shown)),
    ):
        if some:
            axes.plot([], [], color=colour, label=label)
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure, f"curves of {name}")


def activity(shown: Activity, name: str) -> str:
    """A panel per value, over the steps of one sequence; marks as vertical lines."""
    count = len(shown.lines)
    figure = Figure(figsize=(6.4, 0.5 + 0.95 * count), layout="constrained")
    FigureCanvasSVG(figure)
    panels = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
    for k, (axes, (label, values)) in enumerate(zip(panels, shown.lines.items(), strict=True)):
        for at in shown.marks:
            axes.axvline(at, color="#d9822b", lw=1.2, alpha=0.55)
        axes.plot(values, color=_LINES[k % len(_LINES)], lw=1.1)
        if "gate" in label:  # what opens and what stays shut can be seen only on one scale
            axes.set_ylim(-0.05, 1.05)
        axes.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("step")
    return _svg(figure, f"activity of {name}")


def gradients(flows: Sequence[Flow]) -> str:
    """The picture of `gatewise gradients` as a PNG inside an <img>."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "flow.png"
        plot_gradient_flow(flows, path)
        data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="gradient norms by lag" src="data:image/png;base64,{data}">'


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Figure, title: str) -> str:
    """The <svg> element; its inner names are its own, so that several stand in one page."""
    out = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|href="#|url\(#)', lambda m: m[1] + _word(title) + "-", text)
    text = re.sub(r'(<svg [^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg [^>]*?) height="[^"]*"', r"\1", text, count=1)
    return text.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)


def _word(title: str) -> str:
    return re.sub(r"\W+", "-", title)
