"""How good translations are: BLEU of all, and by the length of what was translated."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from gatewise.models.extras import require
from gatewise.models.plots import literal, new_figure, write_figure

_BORDERS = (
    0,
    8,
    12,
    16,
    20,
    1 << 30,
)  # words of the source: few captions have more than 20
_RESAMPLED = 300  # times that an interval draws the sentences again
_MOST = 10_000  # sentences that an interval is computed for: of more it would tell nothing


def bleu(said: Sequence[str], truth: Sequence[str]) -> float:
    """BLEU of whole sentences with case and punctuation, as sacrebleu counts it, 0 to 100."""
    return float(library().corpus_bleu(list(said), [list(truth)]).score)


def library() -> Any:
    """sacrebleu; ModuleNotFoundError where it is missing."""
    return require("sacrebleu", "nlp", "BLEU")


def bleu_scores(
    source: Sequence[str], said: Sequence[str], truth: Sequence[str]
) -> dict[str, float]:
    """`bleu` of all, then of the sentences of each length, with `_interval` and `_sentences`.

    The interval is half of what holds 95 % of the figures when the sentences are drawn again and
    again with replacement (Koehn, 2004).
    """
    words = [len(s.split()) for s in source]
    scores = _measured("bleu", said, truth)
    for name, (low, high) in _groups().items():
        chosen = [k for k, n in enumerate(words) if low < n <= high]
        if chosen:
            parts = ([s[k] for k in chosen] for s in (said, truth))
            scores |= _measured(f"bleu_{name}_words", *parts)
    return scores


def plot_bleu(found: Mapping[str, Mapping[str, float]], path: Path, title: str) -> None:
    """BLEU by length of the source with intervals, a line for each model by its name, as a PNG."""
    figure = new_figure(7.5, 4.6)
    axes = figure.subplots()
    groups = list(_groups())
    for n, (model, scores) in enumerate(found.items()):
        places, values, spreads = [], [], []
        for k, group in enumerate(groups):
            name = f"bleu_{group}_words"
            if name in scores:
                places.append(k + 0.06 * (n - (len(found) - 1) / 2))
                values.append(scores[name])
                spreads.append(scores.get(f"{name}_interval", 0.0))
        label = f"{literal(model)}: {scores['bleu']:.1f} over all"
        axes.errorbar(places, values, spreads, fmt="o-", lw=1.8, ms=5, capsize=3, label=label)
    counts = next(iter(found.values()))
    labels = [_label(g, counts.get(f"bleu_{g}_words_sentences")) for g in groups]
    axes.set_xticks(np.arange(len(groups)), labels)
    axes.set(xlabel="words of the source", ylabel="BLEU", title=literal(title))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="best")
    write_figure(figure, path)


def _groups() -> dict[str, tuple[int, int]]:
    """Name of each group of lengths -> above how many words, up to how many."""
    return {
        f"over_{low}" if high == _BORDERS[-1] else f"{low + 1}_to_{high}": (low, high)
        for low, high in pairwise(_BORDERS)
    }


def _label(group: str, sentences: float | None) -> str:
    words = group.replace("_to_", "–").replace("over_", "over ")
    return words if sentences is None else f"{words}\n({sentences:,.0f} sentences)"


def _measured(name: str, said: Sequence[str], truth: Sequence[str]) -> dict[str, float]:
    metric = library().BLEU()
    drawn = _RESAMPLED if 1 < len(said) <= _MOST else 1
    score = metric.corpus_score(list(said), [list(truth)], n_bootstrap=drawn)
    told = json.loads(score.format(width=6, is_json=True, signature=str(metric.get_signature())))
    figures = {name: float(score.score)}
    if "confidence_var" in told:
        figures[f"{name}_interval"] = float(told["confidence_var"])
    return figures | {f"{name}_sentences": float(len(said))}
