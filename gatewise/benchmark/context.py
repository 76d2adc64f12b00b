"""A streamed token of two language models of equal size, by how much was read before it.

The state of a recurrent model is as large after ten thousand tokens as after one; the cache of a
Transformer that sees them all grows with each.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gatewise.benchmark.case import Case, Contest, Probed, Shape, Timed
from gatewise.models import LanguageModel, LanguageModelConfig
from gatewise.models.plots import new_figure, write_figure
from gatewise.models.token_model import TokenModel
from gatewise.models.transformer_model import TransformerConfig, TransformerModel

if TYPE_CHECKING:
    from gatewise.benchmark.report import Report, Row

SUITE, PEER = "context", "Transformer cache"
CONTEXTS = (64, 256, 1024, 4096, 8192)
_SYMBOLS = 65
_WIDTH, _LAYERS = 96, 3  # 0.35 million weights, as one LSTM layer of 256 units has
_SIDES = {"ours": ("LSTM, its state", "#1f5fa8"), "peer": ("Transformer, its cache", "#c0392b")}


def cases() -> list[Case]:
    """What a token takes, and what must be kept to go on, after so many tokens (T)."""
    return [
        Case(SUITE, PEER, Shape(n, 1, 64, 256), work, threads=1, quick=n <= 256)
        for n in CONTEXTS
        for work in ("token", "state")
    ]


def contest(case: Case) -> Contest:
    """Our language model's stream beside a Transformer's, both after T tokens.

    The Transformer's window is T, so that every one of its timed steps reads T tokens. What the
    streams give is not compared here: they are different models, and each one's stream is tested
    to be what the model itself computes.
    """
    context, _, embedding, hidden = case.shape
    torch.manual_seed(0)
    config = LanguageModelConfig(_SYMBOLS, case.cell, embedding, hidden, num_layers=1)
    control = TransformerConfig(_SYMBOLS, _WIDTH, _LAYERS, window=context)
    tokens = torch.randint(_SYMBOLS, (context,))
    ours = _after(LanguageModel(config).eval(), tokens)
    peer = _after(TransformerModel(control).eval(), tokens)
    executor = "reference" if ours.obstacles else "cpu"
    if case.work == "state":
        sizes = (ours.state_bytes / 1e6, peer.state_bytes / 1e6)
        mine, theirs = (Probed(lambda size=size: size) for size in sizes)
        return Contest(mine, theirs, unit="MB", executor=executor, rounds=1)
    mine, theirs = (Timed(lambda s=s: s(0), dict) for s in (ours, peer))
    return Contest(mine, theirs, unit="us", executor=executor)


def _after(model: TokenModel, tokens: torch.Tensor) -> Any:
    """The model's stream when it has read `tokens`."""
    stepper = model.stream()
    with torch.inference_mode():
        model.read(tokens, stepper)
    return stepper


def plot(report: Report, path: str | Path) -> None:
    """Microseconds and bytes of both models by context, as a PNG.

    Raises ValueError where nothing was measured.
    """
    rows = [r for r in report.rows if r.measured is not None]
    if not rows:
        raise ValueError("there is nothing to plot: no row was measured")
    figure = new_figure(9.0, 4.0)
    panels = {"token": "microseconds per streamed token", "state": "megabytes kept to go on"}
    for axes, (work, label) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        _panel(axes, [r for r in rows if r.case.work == work])
        axes.set(xscale="log", yscale="log", xlabel="tokens read before", title=label)
        axes.set_xticks(CONTEXTS, [str(n) for n in CONTEXTS])
        axes.minorticks_off()
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(frameon=False)
    h = report.header
    figure.suptitle(
        f"Language models of 0.35 million weights, one core of {h['processor']} ({h['vector']}), "
        f"{h['date']}",
        fontsize=10,
    )
    write_figure(figure, path)


def _panel(axes: Any, rows: list[Row]) -> None:
    contexts = [r.case.shape.T for r in rows]
    for side, (label, colour) in _SIDES.items():
        spreads = [getattr(r.measured, side) for r in rows]
        low, middle, high = (
            [r.shown(getattr(s, name)) for r, s in zip(rows, spreads, strict=True)]
            for name in ("q1", "median", "q3")
        )
        axes.fill_between(contexts, low, high, color=colour, alpha=0.2, lw=0)
        axes.plot(contexts, middle, "o-", color=colour, ms=4, label=label)
        for x, y in zip(contexts, middle, strict=True):
            text = f"{y:,.0f}" if y >= 10 else f"{y:.2g}"
            axes.annotate(text, (x, y), xytext=(0, 6), textcoords="offset points", fontsize=7.5,
                          ha="center", color=colour)  # fmt: skip
