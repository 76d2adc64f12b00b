"""Gradient flow as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gatewise.diagnostics.gradient_flow import Flow

_COLOURS = ("#b5533c", "#1f5fa8", "#3a8f5c", "#8a5aa8", "#9a7d1d", "#4b5563")
_STYLES = {"initial": "-", "trained": "--", "edges cut": ":"}
_FLOOR = 1e-16  # what lies below is nothing beside a gradient of 1


def plot_gradient_flow(flows: Sequence[Flow], path: str | Path) -> None:
    """A PNG of four panels: h and c of every cell, forget biases, recurrent gains."""
    figure = Figure(figsize=(12, 8.4), layout="constrained")
    FigureCanvasAgg(figure)
    (h, c), (forget, gain) = figure.subplots(2, 2)
    cells = [f for f in flows if f.label.rpartition(", ")[2] in _STYLES]
    names = list(dict.fromkeys(f.label.rpartition(", ")[0] for f in cells))
    for f in cells:
        name, _, what = f.label.rpartition(", ")
        look = {"color": _COLOURS[names.index(name) % len(_COLOURS)], "ls": _STYLES[what]}
        for axes, state in ((h, "h"), (c, "c")):
            # With every edge cut nothing flows back through h of a cell with a carousel.
            if any(f.states.get(state, ())):
                _curve(axes, f.states[state], label=f.label, **look)
    others = [f for f in flows if f not in cells]
    for k, f in enumerate(f for f in others if f.kept is not None):
        _curve(forget, f.states["c"], label=f.label, color=_COLOURS[k])
        _curve(forget, f.kept or [], color=_COLOURS[k], ls=":")
    for k, f in enumerate(f for f in others if f.kept is None):
        label = f"{f.label}: weights' gradient {f.weight_norm:.1e}, clipped {f.clipped_norm:.1e}"
        _curve(gain, f.states["h"], label=label, color=_COLOURS[k])
    titles = {
        h: ("Through the hidden state", r"$|\partial loss_T/\partial h_t|$"),
        c: ("Through the cell state", r"$|\partial loss_T/\partial c_t|$"),
        forget: (
            "The forget gate's value (dotted: product of f)",
            r"$|\partial loss_T/\partial c_t|$",
        ),
        gain: ("Vanishing and exploding in a plain network", r"$|\partial loss_T/\partial h_t|$"),
    }
    for axes, (title, what) in titles.items():
        axes.set(title=title, xlabel="lag T - t (steps)", ylabel=what, yscale="log")
        drawn = [v for line in axes.get_lines() for v in line.get_ydata()]
        if drawn:
            axes.set_ylim(max(min(drawn), _FLOOR) / 2, 5 * max(*drawn, _FLOOR))
        axes.set_xlim(left=0)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, format="png", dpi=110)


def _curve(axes: Any, values: Sequence[float], **look: Any) -> None:
    points = [(k + 1, v) for k, v in enumerate(values) if v > 0]  # a log axis has no zero
    if points:
        axes.plot(*zip(*points, strict=True), lw=1.6, **look)
