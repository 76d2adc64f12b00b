"""Gradient flow as a picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gatewise.diagnostics.gradient_flow import CLIP, Flow

_COLOURS = ("#b5533c", "#1f5fa8", "#3a8f5c", "#8a5aa8", "#9a7d1d", "#4b5563")
_FLOOR = 1e-16  # what lies below is nothing beside a gradient of 1
_BY_H, _BY_C = r"$|\partial loss_T/\partial h_t|$", r"$|\partial loss_T/\partial c_t|$"


def plot_gradient_flow(flows: Sequence[Flow], path: str | Path) -> None:
    """A PNG of six panels: h and c of every cell, the cut; forget biases, gains, clipping."""
    figure = Figure(figsize=(17, 9), layout="constrained")
    FigureCanvasAgg(figure)
    (h, c, cut), (forget, gain, clip) = figure.subplots(2, 3)
    cells = [f for f in flows if ", " not in f.network]
    biases = [f for f in flows if "forget bias" in f.network]
    gains = [f for f in flows if ", gain" in f.network]
    for axes, state in ((h, "h"), (c, "c")):
        for f, colour in _coloured(cells):
            if f.stage != "edges cut" and state in f.states:
                _curve(axes, f.states[state], _named(f), colour, "--" if f.updates else "-")
    for f, colour in _coloured(cells):
        # The way that is left: the cell state's, or that of h itself where there is no other.
        values = f.states.get("c") or f.states["h"]
        if f.stage != "trained":
            _curve(cut, values, f.label, colour, ":" if f.stage == "edges cut" else "-")
    for f, colour in _coloured(biases):
        if f.stage == "initial":
            _curve(forget, f.states["c"], f.network, colour, "-")
        elif f.stage == "edges cut":
            _curve(forget, f.states["c"], None, colour, "--")
            _curve(forget, f.forgotten or (), None, "black", "", marker=".", ms=5, every=8)
    for f, colour in _coloured(gains):
        if f.stage == "initial":
            _curve(gain, f.states["h"], f.network, colour, "-")
    for f, colour in _coloured([*cells, *gains], trained=True):
        norms = f.updates or ()
        _curve(clip, norms, f"{f.network} ({f.wrong:.0%} wrong)", colour, "-", lw=0.9)
        _curve(clip, [min(n, CLIP) for n in norms], None, colour, ":", lw=1.8)
    _finish(h, "Through the hidden state. Dashed: trained to recall", _BY_H)
    _finish(c, "Through the cell state. Dashed: trained to recall", _BY_C)
    _finish(cut, "Dotted: recurrent edges cut (the 1997 rule)", f"{_BY_C}, or by $h_t$")
    _finish(forget, "Forget gate. Dashed: edges cut; dots: product of f", _BY_C)
    _finish(gain, "A plain network vanishes or explodes", _BY_H)
    _finish(
        clip, f"Training, clipped at {CLIP:g} (dotted)", "norm of the weights' gradient", "update"
    )
    figure.savefig(path, format="png", dpi=100)


def _named(f: Flow) -> str:
    return f.label if f.wrong is None else f"{f.label} ({f.wrong:.0%} wrong)"


def _coloured(flows: Iterable[Flow], trained: bool = False) -> list[tuple[Flow, str]]:
    """Each flow with its network's colour."""
    chosen = [f for f in flows if f.updates or not trained]
    names = list(dict.fromkeys(f.network for f in chosen))
    return [(f, _COLOURS[names.index(f.network) % len(_COLOURS)]) for f in chosen]


def _curve(
    axes: Any,
    values: Sequence[float],
    label: str | None,
    colour: str,
    style: str,
    every: int = 1,
    **look: Any,
) -> None:
    points = [(k + 1, v) for k, v in enumerate(values) if v > 0][::every]  # no zero on a log axis
    if points:
        look = {"lw": 1.6} | look
        axes.plot(*zip(*points, strict=True), label=label, color=colour, ls=style, **look)


def _finish(axes: Any, title: str, what: str, along: str = "lag T - t (steps)") -> None:
    axes.set(title=title, xlabel=along, ylabel=what, yscale="log")
    # Not matplotlib's margins: they are a share of all decades, also of those below the floor.
    low, high = axes.dataLim.ymin, axes.dataLim.ymax
    if 0 < low <= high:
        axes.set_ylim(max(low / 2, _FLOOR), max(high, _FLOOR) * 5)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8)
