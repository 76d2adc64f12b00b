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
    assert call(["lab", "report", "--out", out, "--markdown", str(words), "--json"]) == 0
    [found] = json.loads(capsys.readouterr().out)
    assert found["name"] == ROW and len(found["outcomes"]) == 1
    assert f"gatewise lab run {ROW}" in words.read_text()
    assert call(["lab", "report", "--out", out]) == 0
    assert ROW in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["run", "9z"], "9z is no experiment"),
        (["run", ROW, "--trials", "0"], "--trials must be positive"),
        (["run", ROW, "--budget", "-1"], "--budget must be positive"),
        (["run", ROW, "--engine", "slurm"], "--engine must be one of local, ray"),
        (["run", ROW, "--cell", "gru"], "tdnn/adding-100 has no cell to be replaced"),
        (["report", "--out", "nowhere.sqlite"], "no results in nowhere.sqlite"),
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
