"""Trainings repeated by seeds and by folds: each as it would be alone, resumed, summed up."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from gatewise.cli import run
from gatewise.models import Settings, Source, load_checkpoint
from gatewise.models.evaluation import read_figures
from gatewise.models.repeats import Plan, load_repeats, of_folds, of_seeds, repeated, spread
from gatewise.models.tag_task import TagOptions

TINY = ["--task", "tag", "--hidden", "4", "--layers", "1", "--steps", "3", "--batch", "4"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    lines = [f"w{(k * n) % 7} {'AB'[(k * n) % 2]}" for k in range(30) for n in range(1, 4)]
    path = tmp_path / "data.conll"
    path.write_text("\n\n".join("\n".join(lines[k : k + 3]) for k in range(0, 90, 3)))
    return path


def test_seeds(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "all"
    command = ["train", str(data), *TINY, "--test", str(data), "--seed", "5"]
    assert run([*command, "--out", str(out), "--seeds", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert list(told["parts"]) == ["seed-5", "seed-6"]
    a, b = (told["parts"][n]["accuracy"] for n in ("seed-5", "seed-6"))
    assert told["summary"]["accuracy"]["mean"] == pytest.approx((a + b) / 2)
    assert told["summary"]["accuracy"]["sd"] == pytest.approx(abs(a - b) / math.sqrt(2))
    assert run([*command, "--out", str(tmp_path / "one"), "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert alone["test"] == told["parts"]["seed-5"], "as it would be alone"


def test_what_was_interrupted_goes_on(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "all"
    command = ["train", str(data), *TINY, "--test", str(data), "--out", str(out)]
    assert run([*command, "--seeds", "2", "--json"]) == 0
    before = json.loads(capsys.readouterr().out)
    first = load_checkpoint(out / "seed-0").path.stat().st_mtime_ns
    (out / "seed-1" / "evaluation.json").unlink()
    assert run(["train", "--out", str(out), "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == before
    assert load_checkpoint(out / "seed-0").path.stat().st_mtime_ns == first, "not trained again"
    assert run(["train", "--out", str(out), "--resume", "--seeds", "2"]) == 2
    assert "leave out: --seeds" in capsys.readouterr().err
    moved = data.rename(tmp_path / "moved.conll")
    (out / "seed-1" / "evaluation.json").unlink()
    assert run(["train", "--out", str(out), "--resume"]) == 2
    assert "data.conll" in capsys.readouterr().err
    assert run(["train", str(moved), "--test", str(moved), "--out", str(out), "--resume"]) == 0
    table = capsys.readouterr().out
    assert "seed-0" in table and "mean" in table and "± sd" in table


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--seeds", "2"], "seeds needs --test"),
        (["--seeds", "1", "--test", "{data}"], "seeds must be between 2 and 100, got 1"),
        (["--seeds", "2", "--folds", "x"], "seeds and folds cannot both be given"),
        (["--folds", "x"], "folds is for data with examples to leave out"),
        (["--test", "{data}x"], "no file or folder"),
    ],
)
def test_what_cannot_be_repeated(
    data: Path, tmp_path: Path, more: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    words = [w.format(data=data) for w in more]
    assert run(["train", str(data), *TINY, "--out", str(out), *words]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_a_repeat_s_file_runs_no_code(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out, ran = tmp_path / "all", tmp_path / "ran"
    assert (
        run(["train", str(data), *TINY, "--test", str(data), "--out", str(out), "--seeds", "2"])
        == 0
    )
    code = tmp_path / "cell.py"
    code.write_text(
        f"from gatewise.cells.gru import GRU\nopen({str(ran)!r}, 'w')\nclass X(GRU): pass\n"
    )
    told = json.loads((out / "repeats.json").read_text())
    other = tmp_path / "other"
    other.mkdir()
    for place, message in (
        (told["plan"]["options"], "name it again with --cell FILE.py:CLASS"),
        (told["parts"]["seed-0"], "parts differ in leave_out or seed alone"),
    ):
        place.pop("seed", None)
        (kept, place["cell"]) = place.get("cell"), f"{code}:X"
        (other / "repeats.json").write_text(json.dumps(told))
        assert run(["train", "--out", str(other), "--resume"]) == 2
        assert message in capsys.readouterr().err
        assert [p.name for p in other.iterdir()] == ["repeats.json"] and not ran.exists()
        place["cell"] = kept


def test_folds_and_examples_to_leave_out_are_two_wishes(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f'{{"values": [1, {k}], "label": "{k % 2}"}}\n' for k in range(20)))
    words = ["train", str(path), "--out", str(tmp_path / "out"), "--folds", "[0-9]$"]
    assert run([*words, "--set", "leave_out=line 1$"]) == 2
    assert "folds and leave_out cannot both be given" in capsys.readouterr().err


def test_not_under_torchrun(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan("tag", Source(data), data, TagOptions(), Settings(steps=2))
    found = repeated(plan, 2, None)
    assert found is not None
    found.save(tmp_path / "all")
    monkeypatch.setattr("gatewise.models.processes.count", lambda: 2)
    with pytest.raises(ValueError, match="not under torchrun"):
        repeated(plan, 2, None)
    with pytest.raises(ValueError, match="not under torchrun"):
        load_repeats(tmp_path / "all")


def test_folds_by_hand() -> None:
    names = ["1_ann_0.wav", "1_bob.smith_0.wav", "2_ann_1.wav"]
    found = of_folds(names, r"_[a-z.]+_")
    assert found == {"ann": {"leave_out": "_ann_"}, "bobsmith": {"leave_out": r"_bob\.smith_"}}
    assert list(of_folds(["+a", "-a"], "^.")) == ["fold0", "fold1"]
    assert list(of_seeds(3, 7)) == ["seed-7", "seed-8", "seed-9"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("_[0-9]+_", "finds nothing in the name 1_ann_0"),
        (r"\.wav", "must find between 2 and 100 texts, it finds 1"),
        ("(", "is no regular expression"),
        ("[a-z]+", "'ann' is in 3_joann_0.wav, of another fold"),
    ],
)
def test_folds_that_cannot_be(pattern: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        of_folds(["1_ann_0.wav", "2_bob_1.wav", "3_joann_0.wav"], pattern)


def test_mean_and_spread() -> None:
    found = {"a": {"x": 1.0, "only": 3.0}, "b": {"x": 2.0}, "c": {"x": 6.0}}
    assert spread(found) == {"x": (3.0, pytest.approx(math.sqrt(7)))}


@pytest.mark.parametrize("content", ["", "[]", '{"plan": {}}', '{"parts": {"../x": {"seed": 1}}}'])
def test_damaged_repeats_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "repeats.json").write_text(content)
    with pytest.raises(ValueError, match="is damaged"):
        load_repeats(tmp_path)
    (tmp_path / "evaluation.json").write_text(content)
    with pytest.raises(ValueError, match="is damaged"):
        read_figures(tmp_path)
    assert load_repeats(tmp_path / "none") is read_figures(tmp_path / "none") is None
