"""Several files of results as one; files that are old, damaged or not to be written to."""

from __future__ import annotations

import json
import os
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from gatewise import lab
from gatewise.lab import report
from gatewise.lab.experiment import Outcome, Spent, Work
from tests.test_lab import FAST


def outcome(trial: int) -> Outcome:
    return Outcome(trial, True, 10 + trial, {"weights": 3.0, "error": float("nan")})


def store(path: Path, ended: list[Outcome], flying: tuple[int, ...] = ()) -> Path:
    with lab.Store(path) as made:
        run = made.begin_run()
        for trial in (*(o.trial for o in ended), *flying):
            made.begin(run, FAST, Work(0, trial, 1, FAST.limit))
        for o in ended:
            work = Work(0, o.trial, 1, FAST.limit)
            made.add(run, FAST, work, o, Spent(2.0, 1.0))
            made.end(FAST, work)
    return path


def test_files_are_read_as_one(tmp_path: Path) -> None:
    a = store(tmp_path / "a.sqlite", [outcome(0), outcome(1)], flying=(2, 3))
    b = store(tmp_path / "b.sqlite", [outcome(1), outcome(2)], flying=(3,))
    with lab.Results([a, b]) as read:
        trials = read.trials([FAST.key])
        assert [t.outcome.trial for t in trials] == [0, 1, 2]
        assert all(t.cpu == 1.0 for t in trials)
        assert [u.missing for u in read.unfinished(FAST.key, FAST.limit, trials)] == [(3,)]
        assert list(read.experiments()) == [FAST.key] and not read.differing
        assert read.repeated == 1


def test_another_end_of_the_same_trial_is_said(tmp_path: Path) -> None:
    a = store(tmp_path / "a.sqlite", [outcome(1)])
    b = store(tmp_path / "b.sqlite", [replace(outcome(1), sequences=99)])
    with lab.Results([a, b]) as read:
        assert [t.outcome.sequences for t in read.trials([FAST.key])] == [11]
        assert read.differing == {(FAST.key, "b.sqlite"): 1}


def test_a_file_from_before_processor_time_is_read_and_not_changed(tmp_path: Path) -> None:
    path = store(tmp_path / "old.sqlite", [outcome(0)], flying=(1,))
    db = sqlite3.connect(path)
    db.executescript(
        "DROP TABLE effort; UPDATE state SET seconds = 5; PRAGMA journal_mode = DELETE"
    )
    db.close()
    before = path.read_bytes()
    with lab.Results([path]) as read:
        [trial] = read.trials([FAST.key])
        [flying] = read.unfinished(FAST.key, FAST.limit, [trial])
    assert (trial.seconds, trial.cpu, flying.spent) == (2.0, None, Spent(5.0, None))
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["old.sqlite"]
    with lab.Store(path) as again:  # adding to it goes on; what was not recorded stays unknown
        assert again.unfinished(FAST.key, FAST.limit)[0].spent == Spent(5.0, None)


def test_a_damaged_file_is_told_from_results(tmp_path: Path) -> None:
    path = store(tmp_path / "r.sqlite", [outcome(k) for k in range(30)])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises((ValueError, OSError), match=r"r\.sqlite"), lab.Results([path]) as read:
        read.trials([FAST.key])
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="no file of results"):
        lab.Results([path])
    with pytest.raises(ValueError, match="at least one"):
        lab.Results([])


def test_a_full_disk_is_an_error_of_the_file(tmp_path: Path) -> None:
    path = store(tmp_path / "r.sqlite", [outcome(0)])
    with lab.Store(path) as full:
        full._db.execute("PRAGMA max_page_count = 1")  # SQLite's own way to run out of room
        run = full.begin_run()
        long = replace(outcome(1), curve=((1, 0.5),) * 1000)
        with pytest.raises(OSError, match=r"r\.sqlite cannot be used any more: .* full"):
            full.add(run, FAST, Work(0, 1, 1, FAST.limit), long, Spent())
    with lab.Results([path]) as read:  # what was added before is there
        assert read.trials([FAST.key])[0].outcome.sequences == 10


def test_results_from_before_a_setting_existed_are_those_of_its_default(tmp_path: Path) -> None:
    path = store(tmp_path / "r.sqlite", [outcome(0)])
    with sqlite3.connect(path) as db:
        db.execute("DROP TRIGGER kept_trial")
        [[record]] = db.execute("SELECT record FROM experiment")
        older = json.loads(record)
        assert older["settings"].pop("batch") == FAST.settings.batch  # as if there were none yet
        stamp = json.loads(FAST.stamp) | {"settings": older["settings"]}
        texts = (json.dumps(older), json.dumps(stamp, sort_keys=True))
        db.execute("UPDATE experiment SET key = 'old', record = ?, stamp = ?", texts)
        db.execute("UPDATE trial SET key = 'old'")
    db.close()
    other = replace(FAST, settings=replace(FAST.settings, batch=7))
    with lab.Results([path]) as read:
        assert read.keys(FAST) == [FAST.key, "old"] and read.keys(other) == [other.key]
        [row] = report.rows(read, [FAST])
        assert row.key == FAST.key and row.summary.successes == 1
        assert [r.key for r in report.rows(read, [other])] == [other.key, "old"]
    with lab.Store(path) as again:  # nor is it run again
        assert not lab.Run([FAST], again, lab.Options(trials=1)).jobs
        assert lab.Run([other], again, lab.Options(trials=1)).jobs
