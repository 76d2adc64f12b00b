"""`gatewise lab`, as typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gatewise.cli import run as call

pytest.importorskip("scipy", reason="the extra `lab` is not installed")
ROW = "tdnn/adding-100"


def test_list_run_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["lab", "list", "--tag", "tdnn", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert ROW in [e["name"] for e in listed] and all("tdnn" in e["tags"] for e in listed)
    out, words = str(tmp_path / "r.sqlite"), tmp_path / "r.md"
    options = ["--trials", "1", "--limit", "32", "--jobs", "1", "--out", out]
    for _ in range(2):  # the second time there is nothing left to run
        assert call(["lab", "run", ROW, *options, "--json"]) == 0
        [ended] = json.loads(capsys.readouterr().out)
        assert (ended["ended"], ended["wanted"], ended["error"]) == (1, 1, "")
    assert call(["lab", "report", out, "--markdown", str(words), "--json"]) == 0
    [found] = json.loads(capsys.readouterr().out)
    assert found["name"] == ROW and len(found["outcomes"]) == 1
    assert f"gatewise lab run {ROW}" in words.read_text()
    assert call(["lab", "report", out]) == 0
    assert ROW in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["run", "9z"], "9z is no experiment"),
        (["run", ROW, "--trials", "0"], "--trials must be positive"),
        (["run", ROW, "--budget", "-1"], "--budget must be positive"),
        (["run", ROW, "--engine", "slurm"], "--engine must be one of local, ray"),
        (["run", ROW, "--cell", "gru"], "tdnn/adding-100 has no cell to be replaced"),
        (["report", "nowhere.sqlite"], "no results in nowhere.sqlite"),
        (["report", "--html", "no/such/folder.html"], "no folder"),
        (["list", "--tag", "nothing"], "nothing is no experiment"),
    ],
)
def test_bad_words_are_one_line(
    words: list[str],
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(["lab", *words]) == 2
    told = capsys.readouterr().err
    assert complaint in told and told.count("\n") == 1
    assert not list(tmp_path.iterdir())


CELL = """
from gatewise import Cell, sigmoid, tanh

class Leaky(Cell):
    gates = ("leak", "candidate")

    def step(self, gate, state):
        z = sigmoid(gate.leak)
        return {"h": (1 - z) * state.h + z * tanh(gate.candidate)}

class Unfinished(Cell):
    gates = ("leak",)
"""
EXPERIMENT = """
from dataclasses import replace
from gatewise.lab import EXPERIMENTS

row = EXPERIMENTS["4-1"]
MINE = replace(row, name="mine", settings=replace(row.settings, arguments={"length": 26}))
LOST = replace(row, track="nowhere")
"""


def ran(capsys: pytest.CaptureFixture[str], out: Path, *words: str) -> dict[str, object]:
    options = ["--trials", "2", "--limit", "40", "--jobs", "1", "--out", str(out), "--json"]
    assert call(["lab", "run", *words, *options]) == 0
    [standing] = json.loads(capsys.readouterr().out)
    return standing


def test_a_cell_and_an_experiment_of_one_s_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, cell, experiment = (tmp_path / n for n in ("r.sqlite", "leaky.py", "mine.py"))
    cell.write_text(CELL)
    experiment.write_text(EXPERIMENT)
    words = (f"{experiment}:MINE", "--cell", f"{cell}:Leaky")
    first = ran(capsys, out, *words)
    assert (first["name"], first["ended"], first["error"]) == ("mine+leaky.py:Leaky", 2, "")
    cell.write_text(CELL.replace("tanh(gate", "2 * tanh(gate"))  # another cell: other results
    assert ran(capsys, out, *words)["key"] != first["key"]
    experiment.unlink()
    cell.unlink()
    assert call(["lab", "report", str(out), "--json"]) == 0
    old, new = json.loads(capsys.readouterr().out)
    assert old["name"] == new["name"] and old["outcomes"] != new["outcomes"]
    # two gates of four units, with two inputs, four fed-back values, a bias; the output's weights
    assert old["outcomes"][0]["numbers"]["weights"] == 2 * 4 * (2 + 4 + 1) + 5


@pytest.mark.parametrize(
    ("text", "words", "complaint"),
    [
        (CELL, ["4-1", "--cell", "own.py:Other"], "own.py has no cell class Other; it has: Leaky"),
        (CELL, ["4-1", "--cell", "own.py:Unfinished"], "Unfinished must define step"),
        ("def (", ["4-1", "--cell", "own.py:Leaky"], "own.py:Leaky cannot be loaded: SyntaxError"),
        ("1 / 0", ["4-1", "--cell", "own.py:Leaky"], "cannot be loaded: ZeroDivisionError"),
        ("", ["4-1", "--cell", "no.py:Leaky"], "no cell file no.py"),
        ("", ["4-1", "--cell", "lstmm"], "cell 'lstmm' is not known"),
        ("", ["4-1", "--cell", "gru-reset-before"], "one pointwise pass"),
        (EXPERIMENT, ["own.py:YOURS"], "own.py has no Experiment, or list of them, called YOURS"),
        (EXPERIMENT, ["own.py:LOST"], "track must be one of faithful, claims, modern"),
        ("def (", ["own.py:MINE"], "own.py cannot be run: SyntaxError"),
        ("1 / 0", ["own.py:MINE"], "own.py cannot be run: ZeroDivisionError"),
        ("", ["no.py:MINE"], "no experiment file no.py"),
    ],
)
def test_a_file_that_is_of_no_use_is_one_line(
    text: str,
    words: list[str],
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(text)
    assert call(["lab", "run", *words, "--limit", "8", "--trials", "1"]) == 2
    told = capsys.readouterr().err
    assert complaint in told and told.count("\n") == 1
    assert not (tmp_path / "lab.sqlite").exists()
