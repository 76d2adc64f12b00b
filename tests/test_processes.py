"""Two processes that share every batch take the steps that one takes with the whole batch."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from gatewise.models import Settings, Source, load_checkpoint, processes, runs
from gatewise.models.forecast_task import ForecastOptions
from gatewise.models.language_task import LanguageOptions

# Sums in another order: float32 rounding, grown over the steps.
CLOSE = 1e-4


def two_processes(words: list[str]) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--standalone", "-m", "gatewise", "train", *words, "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("checkpoints and pictures") == 1, "only one of them speaks"


def assert_same_losses(one: Path, two: Path) -> None:
    a, b = load_checkpoint(one), load_checkpoint(two)
    for x, y in zip(a.record["history"], b.record["history"], strict=True):
        for name in x.keys() - {"seconds"}:
            assert x[name] == pytest.approx(y[name], rel=CLOSE), name
    for name, tensor in a.tensors.items():
        if name.startswith("model."):
            assert torch.allclose(tensor, b.tensors[name], atol=1e-3), name
        if name.startswith("carried."):
            assert tensor.shape == b.tensors[name].shape


def finish(run: runs.Run) -> None:
    for _ in run.trainer.run():
        pass


def test_streams_of_text(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("".join(f"{k} and {k + 1} make {2 * k + 1}\n" for k in range(80)))
    sizes: dict[str, Any] = {"embedding_size": 8, "hidden_size": 12, "chunk": 16}
    settings = Settings(steps=12, batch=4, evaluations=2)
    finish(runs.begin(tmp_path / "one", "lm", Source(text), LanguageOptions(**sizes), settings))
    words = [str(text), "--out", str(tmp_path / "two"), "--embedding", "8", "--hidden", "12"]
    two_processes([*words, "--seq", "16", "--steps", "12", "--batch", "4", "--evaluations", "2"])
    assert_same_losses(tmp_path / "one", tmp_path / "two")


def test_batches_whose_last_one_is_too_small_to_share(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("x\n" + "".join(f"{math.sin(k)}\n" for k in range(73)))
    sizes: dict[str, Any] = {"look_back": 8, "horizon": 4, "segment": 4, "season": 4}
    sizes |= {"hidden_size": 6, "dropout": 0.0, "split": "44,15,14"}
    settings = Settings(steps=20, batch=4, evaluations=2, learning_rate=1e-2)
    run = runs.begin(
        tmp_path / "one", "forecast", Source(table), ForecastOptions(**sizes), settings
    )
    assert len(run.task) == 9, "33 windows: the last batch has one"
    finish(run)
    options = [w for n, v in sizes.items() for w in ("--set", f"{n}={v}")]
    words = ["--task", "forecast", str(table), "--out", str(tmp_path / "two"), *options]
    two_processes([*words, "--steps", "20", "--batch", "4", "--evaluations", "2", "--lr", "0.01"])
    assert_same_losses(tmp_path / "one", tmp_path / "two")


def test_alone_everything_is_as_given() -> None:
    assert (processes.count(), processes.number()) == (1, 0)
    assert processes.share([1, 2, 3]) == [1, 2, 3]
    t = torch.arange(6).reshape(2, 3)
    assert processes.share_rows(t, 1) is t
    assert processes.whole_rows(t, 1) is t
    assert processes.summed([1, 2.5]) == [1.0, 2.5]


def test_shares_of_three_make_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row is in exactly one share, and a process without rows is told so."""
    monkeypatch.setattr(processes, "count", lambda: 3)
    t = torch.arange(14).reshape(2, 7)
    shares, rows = [], []
    for k in range(3):
        monkeypatch.setattr(processes, "number", lambda k=k: k)
        shares += list(processes.share(range(7)))
        rows += processes.share_rows(t, 1)[0].tolist()
    assert sorted(shares) == sorted(rows) == list(range(7))
    with pytest.raises(processes.EmptyShare):
        processes.share([1, 2])


def test_a_batch_that_cannot_be_shared_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "count", lambda: 2)
    text = tmp_path / "text.txt"
    text.write_text("some words to learn from\n" * 40)
    with pytest.raises(ValueError, match="batch must be a multiple of the 2 processes, got 3"):
        runs.begin(
            tmp_path / "out", "lm", Source(text), LanguageOptions(), Settings(steps=1, batch=3)
        )
