"""Pictures: files that are whole, for every cell, and nothing left where drawing fails."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image
import pytest
import torch
from matplotlib.figure import Figure

from gatewise.models import LanguageModel, LanguageModelConfig, plots
from gatewise.models.drift import Course, Drift
from gatewise.models.language_task import signal_names
from gatewise.models.plots import plot_activity, plot_learning_curve

HISTORY = [
    {"step": 10.0, "train_bits_per_character": 4.0, "held_out_bits_per_character": 3.5},
    {"step": 20.0, "train_bits_per_character": 3.0, "held_out_bits_per_character": 3.2},
]
NAMES = ("bits_per_character", "bits_per_character")  # loss and metric


def assert_picture(path: Path) -> None:
    pixels = matplotlib.image.imread(path)
    assert pixels.shape[0] > 300
    assert pixels.shape[1] > 600
    assert len(set(map(tuple, pixels[::7, ::7].reshape(-1, 4).tolist()))) > 5  # not blank
    assert not list(path.parent.glob("*.tmp"))


@pytest.mark.parametrize("points", [1, 2])
def test_learning_curve(tmp_path: Path, points: int) -> None:
    plot_learning_curve(HISTORY[:points], tmp_path / "curve.png", "title", *NAMES, 10.0)
    assert_picture(tmp_path / "curve.png")


def test_a_title_is_no_mathematics(tmp_path: Path) -> None:
    plot_learning_curve(HISTORY, tmp_path / "curve.png", "a$%$b_^{ of $5 and $6", *NAMES, 10.0)
    assert_picture(tmp_path / "curve.png")


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn", "lstm-1997-blocks", "fgr"])
def test_activity_of_any_cell(tmp_path: Path, cell: str) -> None:
    config = LanguageModelConfig(9, cell, embedding_size=4, hidden_size=30, num_layers=2)
    model = LanguageModel(config).eval()
    tokens = torch.randint(9, (40,))
    records = model.activity(tokens, signal_names(model))
    labels = ["a", "b", "\n", " ", "$", "漢", "\\", "_", "{"]
    plot_activity([labels[k] for k in tokens.tolist()], records, tmp_path / "gates.png", "title")
    assert_picture(tmp_path / "gates.png")


def test_a_failure_leaves_the_old_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "curve.png"
    plot_learning_curve(HISTORY, path, "title", *NAMES, 20.0)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("gatewise.models.checkpoint.os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        plot_learning_curve(HISTORY[:1], path, "another", *NAMES, 10.0)
    assert path.read_bytes() == before


def test_panels_of_drift_say_what_they_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    real = plots.write_figure

    def write(figure: Figure, path: Path) -> None:
        shown.extend(axes.get_title() for axes in figure.axes)
        real(figure, path)

    monkeypatch.setattr(plots, "write_figure", write)
    course = Course([3.0, 4.0], [0.1, 0.2], [1.0, 1.1])
    drift = Drift([10, 20], course, course)
    plots.plot_drift({"a$1": drift, "b$2": drift}, tmp_path / "drift.png", "Continuing a$b$.txt")
    assert shown == ["perplexity under the judge", "repeated 4-grams", "state, root mean square"]
    assert_picture(tmp_path / "drift.png")
