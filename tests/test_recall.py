"""Recall by distance: distances by hand, a window's end is seen, interrupted trials repeat."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gatewise.cli import run
from gatewise.lab import recall
from gatewise.lab.experiment import Outcome, Progress, Work
from gatewise.tasks import associative_recall

TINY = recall.Settings(pairs=3, gap=0, hidden=12, batch=16, test=300)
WORK = Work(seed=0, first=0, count=1, limit=160)


def outcome(settings: recall.Settings, work: Work = WORK) -> Outcome:
    *_, last = recall.run(settings, work)
    assert isinstance(last, Outcome)
    return last


def test_distances_are_between_a_query_and_its_value() -> None:
    x, _, target = associative_recall(3, shortest=3, gap=8).sequences(1000)
    t, b = (target >= 0).nonzero(as_tuple=True)
    assert len(t) == 3 * 1000
    d = recall.distances(x, 3)[t, b]
    assert torch.equal(x[t - d - 1, b], x[t, b])  # the key
    assert torch.equal(x[t - d, b] - 32, target[t, b])  # values stand after the 32 keys
    wanted = recall.Settings(pairs=3, gap=8).distances
    assert (wanted.start, wanted.stop) == (d.min(), d.max() + 1)


def test_a_network_is_scored_by_distance() -> None:
    """One that always says the value that stood one step before the queries began."""
    trial = recall.Trial(TINY, WORK, 0)

    class Last(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[5:6, :, 32:].expand(len(x), -1, -1)

    trial.net = Last()  # type: ignore[assignment]
    right = trial.right_by_distance()
    assert list(right) == [d for d in TINY.distances if d in right]
    assert right[1] == 1.0  # the last value, asked for at once
    assert max(right[d] for d in (4, 5, 6)) < 0.3  # others: the same value by chance, 1 in 32


def test_nothing_is_recalled_from_beyond_a_window(tmp_path: Path) -> None:
    """Untrained weights suffice: what a step says does not depend on what lies beyond."""
    settings = replace(TINY, cell="transformer", hidden=16, layers=2, window=3)
    trial = recall.Trial(settings, WORK, 0)
    assert list(settings.reach) == [2, 4]
    x = torch.randn(9, 2, 64)  # without gaps there is no blank
    changed = x.clone()
    changed[3] += 1
    before, after = trial.net(x), trial.net(changed)
    torch.testing.assert_close(before[8:], after[8:])
    assert not torch.allclose(before[7], after[7])  # 4 steps: as far as two layers reach


@pytest.mark.parametrize("cell", ["lstm", "transformer"])
def test_an_interrupted_trial_repeats(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall, "_SECONDS", 0.0)
    settings = replace(TINY, cell=cell)
    states = []
    for sign in recall.run(settings, WORK):
        if isinstance(sign, Progress):
            assert sign.state is not None
            states.append({n: t.clone() for n, t in sign.state().items()})
    assert len(states) == 160 // 16
    assert outcome(settings, replace(WORK, state=states[4])) == outcome(settings)


def test_networks_are_of_equal_size() -> None:
    weights = [
        sum(p.numel() for p in recall.Trial(e.settings, WORK, 0).net.parameters())
        for e in recall.EXPERIMENTS
    ]
    assert max(weights) < 1.03 * min(weights)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file, picture = tmp_path / "lab.sqlite", tmp_path / "recall.png"
    names = [e.name for e in recall.EXPERIMENTS[:2]]
    few = ["--trials", "1", "--limit", "64", "--jobs", "1"]
    assert run(["lab", "run", *names, *few, "--out", str(file)]) == 0
    assert run(["lab", "distances", "--out", str(file), "--plot", str(picture)]) == 2
    assert "no trial of these experiments has ended" in capsys.readouterr().err
    shown = ["lab", "distances", "--out", str(file), "--limit", "64"]
    assert run([*shown, "--plot", str(picture), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["lstm", "transformer"]
    assert list(map(int, found["lstm"])) == list(recall.Settings().distances)
    assert picture.stat().st_size > 5000
    assert run(["lab", "distances", "--out", str(file), "--limit", "0"]) == 2
    assert "limit" in capsys.readouterr().err
    assert run(["lab", "distances", "--out", str(file), "--plot", str(tmp_path)]) == 2
    assert "is a folder, name a file" in capsys.readouterr().err
    assert run(shown) == 0
    assert "weights" in capsys.readouterr().out
