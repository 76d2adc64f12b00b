"""The picture of a classifier: which class it takes for which.

B = examples, C = classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from gatewise.models.plots import literal, new_figure, write_figure

_COUNTED = 30  # classes up to which every cell shows its count


def plot_confusion(
    targets: torch.Tensor,
    guesses: torch.Tensor,
    classes: Sequence[str],
    path: str | Path,
    title: str,
) -> None:
    """How often each class [B] was taken for which, as a PNG: rows truth, columns the model."""
    size = len(classes)
    known = targets >= 0
    cells = targets[known] * size + guesses[known]
    counts = torch.bincount(cells, minlength=size * size).reshape(size, size)  # [C, C]
    share = counts / counts.sum(1, keepdim=True).clamp(min=1)
    side = 2.2 + 0.42 * min(size, 40)
    figure = new_figure(side + 0.9, side)
    axes = figure.subplots()
    image = axes.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the true class", fraction=0.045)
    if size <= _COUNTED:
        for i, j in counts.nonzero().tolist():
            colour = "white" if share[i, j] > 0.5 else "#2b2b2b"
            axes.text(j, i, str(int(counts[i, j])), ha="center", va="center", color=colour)
    names = [literal(c) for c in classes]
    axes.set_xticks(range(size), names, rotation=90 if max(map(len, classes)) > 3 else 0)
    axes.set_yticks(range(size), names)
    accuracy = (targets == guesses).float().mean().item()
    axes.set(
        xlabel="the model's class",
        ylabel="true class",
        title=f"{literal(title)}\n{accuracy:.1%} right",
    )
    write_figure(figure, path)
