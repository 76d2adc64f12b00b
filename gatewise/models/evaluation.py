"""What trained models are worth on data they have not seen: figures in a file, and pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gatewise.equations.cell import Cell
from gatewise.models.checkpoint import write_atomically
from gatewise.models.saved import load
from gatewise.models.task import Predictor

_FILE = "evaluation.json"
Figures = dict[str, dict[str, float]]  # by the model's name


@dataclass(frozen=True)
class Evaluation:
    """One model's figures, or those of several models of one kind side by side."""

    predictor: Predictor[Any]  # of the first model
    data: Path
    figures: Figures

    def write(self, out: Path) -> list[Path]:
        """The figures as evaluation.json and as what pictures the kind has; the files written."""
        out.mkdir(parents=True, exist_ok=True)
        told = {"data": str(self.data), "figures": self.figures}
        write_atomically(out / _FILE, json.dumps(told, indent=1).encode())
        return [out / _FILE, *self.predictor.picture(self.figures, self.data, out)]


def evaluate(
    directories: Sequence[Path], data: Path, cell: Cell | None = None, executor: str = "auto"
) -> Evaluation:
    """The best checkpoints of one or several runs on the same data.

    Raises CheckpointError for what is no model, or one of another kind than the first; ValueError
    or OSError for data that does not fit.
    """
    names = [d.name for d in directories]
    if len(set(names)) < len(names):
        names = [str(d) for d in directories]
    first = load(directories[0], "best", cell, executor)
    figures: Figures = {}
    for name, directory in zip(names, directories, strict=True):
        found = first
        if figures:
            found = load(directory, "best", cell, executor, kind=first.kind)
        figures[name] = found.predictor.evaluate(data)
    return Evaluation(first.predictor, data, figures)


def read_figures(out: Path) -> Figures | None:
    """What `Evaluation.write` left in `out`, where it did; ValueError where that is damaged."""
    path = out / _FILE
    if not path.exists():
        return None
    try:
        figures = json.loads(path.read_bytes())["figures"]
        return {n: {k: float(v) for k, v in f.items()} for n, f in figures.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ValueError(f"{path} is damaged: remove it") from None
