"""Pictures of a run: the learning curve, and what the gates do while the model reads.

L = layers, T = characters of a sample, H = units.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

from gatewise.models.checkpoint import write_atomically
from gatewise.models.drift import Drift

_VISIBLE = {"\n": "↵", " ": "·", "\t": "→", "\r": "←"}
_UNITS = 20  # rows of a panel: more cannot be told apart
_DPI = 130
_COLOURS = ("#c0392b", "#1f5fa8", "#2a7f62", "#8e44ad", "#7a8896")


def plot_learning_curve(
    history: Sequence[Mapping[str, float]],
    path: str | Path,
    title: str,
    loss: str,
    metric: str,
    best_step: float,
) -> None:
    """The loss by step, on training and on held-out data, and the held-out metric, as a PNG."""
    panels = [loss] if metric == loss else [loss, metric]
    figure = new_figure(7.5, 4.5 + 2.5 * (len(panels) - 1))
    rows = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    steps = [h["step"] for h in history]
    best = steps.index(best_step)
    for axes, name in zip(rows, panels, strict=True):
        held = [h[f"held_out_{name}"] for h in history]
        train = [h[f"train_{name}"] for h in history] if name == loss else []
        if train:
            label = "training data (mean since the last point)"
            axes.plot(steps, train, "o-", color="#9aa5b1", ms=4, lw=1.5, label=label)
        axes.plot(steps, held, "o-", color="#1f5fa8", ms=5, lw=2, label="held-out data")
        axes.set_ylabel(name.replace("_", " "))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.annotate(
            f"{held[best]:.3f}",
            (steps[best], held[best]),
            xytext=(0, -14),
            textcoords="offset points",
            ha="center",
            color="#1f5fa8",
            weight="bold",
        )
        # The first points of training lie far above and would flatten the rest.
        low, high = min(*held, *train, held[0]), max(held)
        axes.set_ylim(low - 0.12 * (high - low + 0.1), high + 0.08 * (high - low + 0.1))
    rows[0].set_title(literal(title))
    rows[0].legend(frameon=False)
    rows[-1].set_xlabel("training step")
    rows[-1].set_xlim(left=0)
    write_figure(figure, path)


def plot_activity(
    tokens: Sequence[str],
    records: Mapping[str, torch.Tensor],
    path: str | Path,
    title: str,
    output: str = "h",
    layer: int = -1,
) -> None:
    """A heat map per gate and state, tokens from left to right, units from top to bottom.

    Of `records` (name -> [L, T, H]) the `layer` is shown, of that the units whose `output`
    varies most, those whose last-named state moves slowest first: a unit that remembers is a
    long bar at the top.
    """
    panels = {name: r[layer].float() for name, r in records.items()}  # [T, H]
    chosen = _choose_units(panels[output], list(panels.values())[-1])
    width = max(6.0, 2.2 + 0.155 * len(tokens))
    figure = new_figure(width, 1.0 + 1.55 * len(panels))
    rows = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, values) in zip(rows, panels.items(), strict=True):
        size = values.shape[1]  # a gate shared by a block has fewer rows than there are units
        shown = values[:, chosen if size > max(chosen) else slice(0, _UNITS)]
        image = axes.imshow(
            shown.T.numpy(), aspect="auto", interpolation="nearest", **_scale(shown)
        )
        axes.set_ylabel(name, rotation=0, ha="right", va="center", weight="bold")
        axes.set_yticks([])
        axes.tick_params(axis="x", length=0)
        figure.colorbar(image, ax=axes, pad=0.01, fraction=0.03, aspect=9)
    rows[-1].set_xticks(
        range(len(tokens)), [_label(t) for t in tokens], family="monospace", fontsize=9
    )
    rows[-1].set_xlabel("what the model reads (· space, ↵ line break)")
    rows[0].set_title(
        f"{literal(title)}\n{len(chosen)} units, one row each; the slowest at the top", fontsize=11
    )
    write_figure(figure, path)


def plot_attention(
    weights: torch.Tensor,
    source: Sequence[str],
    target: Sequence[str],
    path: str | Path,
    title: str,
) -> None:
    """An attention map [T, S]: what is said from top to bottom, what is read from left to right."""
    figure = new_figure(2.5 + 0.38 * len(source), 2.0 + 0.34 * len(target))
    axes = figure.subplots()
    image = axes.imshow(weights.numpy(), cmap="viridis", vmin=0.0, vmax=1.0, aspect="auto")
    axes.set_xticks(range(len(source)), [_label(t) for t in source], rotation=60, ha="right")
    axes.set_yticks(range(len(target)), [_label(t) for t in target])
    axes.tick_params(length=0)
    axes.set_title(literal(title), fontsize=10)
    figure.colorbar(image, ax=axes, pad=0.02, fraction=0.04)
    write_figure(figure, path)


def plot_drift(drifts: Mapping[str, Drift], path: str | Path, title: str) -> None:
    """Perplexity under the judge, repetition and state norm by step, for each model by name.

    Solid where it reads its own output, dashed on real text; what the judge says of real text, and
    how that repeats itself, is the same for all.
    """
    panels = {
        "perplexity": "perplexity under the judge",
        "repetition": "repeated 4-grams",
        "state_norm": "state, root mean square",
    }
    figure = new_figure(11.0, 4.0)
    for axes, (name, label) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for k, (model, drift) in enumerate(drifts.items()):
            colour = _COLOURS[k % len(_COLOURS)]
            own, text = getattr(drift.own, name), getattr(drift.text, name)
            axes.plot(
                drift.steps, own, "o-", color=colour, ms=4, label=f"{literal(model)}, own output"
            )
            if name == "state_norm":
                named = f"{literal(model)}, real text"
                axes.plot(drift.steps, text, "--", color=colour, label=named)
            elif k == 0:
                axes.plot(drift.steps, text, "--", color="#7a8896", label="real text")
        axes.set(xlabel="tokens after the prompt", title=label)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    entries = {
        label: handle
        for axes in figure.axes
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        entries.values(), entries.keys(), loc="outside lower center", ncols=5, frameon=False
    )
    figure.suptitle(literal(title))
    write_figure(figure, path)


def _choose_units(output: torch.Tensor, state: torch.Tensor) -> list[int]:
    """Units whose output [T, H] varies most, ordered by how slowly their state [T, H] moves."""
    chosen = output.std(dim=0, correction=0).topk(min(_UNITS, output.shape[1])).indices
    spread = state.std(dim=0, correction=0)
    moves = (state[1:] - state[:-1]).abs().mean(0) / (spread + 1e-6)
    return chosen[moves[chosen].argsort()].tolist()


def _scale(values: torch.Tensor) -> dict[str, Any]:
    """Colours: 0…1 for a gate; around 0 for what has a sign, cut at the outermost percent."""
    if values.numel() and float(values.min()) >= 0.0 and float(values.max()) <= 1.0:
        return {"vmin": 0.0, "vmax": 1.0, "cmap": "viridis"}
    bound = float(values.abs().flatten().quantile(0.99)) if values.numel() else 1.0
    return {"vmin": -bound or -1.0, "vmax": bound or 1.0, "cmap": "RdBu_r"}


def _label(token: str) -> str:
    font = get_font(findfont("monospace"))
    text = "".join(_VISIBLE.get(c, c) for c in token)
    text = "".join(c if font.get_char_index(ord(c)) else "□" for c in text)
    return literal(text)


def literal(text: str) -> str:
    """What shows as `text` in a picture: matplotlib reads `$…$` as mathematics."""
    return text.replace("$", r"\$")


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches; not pyplot's: no global state, no window system."""
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def write_figure(figure: Figure, path: str | Path) -> None:
    """The figure as a PNG, written as a whole or not at all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_atomically(Path(path), buffer.getvalue())
