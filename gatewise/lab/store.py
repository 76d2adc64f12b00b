"""Results in one SQLite file: added, never replaced; what is unfinished is known as unfinished.

    experiment  key -> settings, as they were
    run         when, with which versions, processor and commit
    work        trials that were begun together
    trial       how a trial ended: appended once, and the file itself refuses a change
    state       where work in flight stands; the only rows that are replaced and removed

One process writes (the runner's own); any number may read meanwhile (write-ahead log).
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from safetensors.torch import load

from gatewise.benchmark.machine import environment
from gatewise.lab.experiment import Activity, Experiment, Outcome, Work

_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS experiment (
  key TEXT PRIMARY KEY, stamp TEXT NOT NULL, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS run (
  id INTEGER PRIMARY KEY, started TEXT NOT NULL, environment TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS work (
  key TEXT NOT NULL, seed INTEGER NOT NULL, first INTEGER NOT NULL, count INTEGER NOT NULL,
  run INTEGER NOT NULL, started TEXT NOT NULL,
  PRIMARY KEY (key, seed, first, count, run));
CREATE TABLE IF NOT EXISTS trial (
  key TEXT NOT NULL, seed INTEGER NOT NULL, trial INTEGER NOT NULL, run INTEGER NOT NULL,
  first INTEGER NOT NULL, count INTEGER NOT NULL, seconds REAL NOT NULL, ended TEXT NOT NULL,
  outcome TEXT NOT NULL,
  PRIMARY KEY (key, seed, trial));
CREATE TABLE IF NOT EXISTS state (
  key TEXT NOT NULL, seed INTEGER NOT NULL, first INTEGER NOT NULL, count INTEGER NOT NULL,
  done REAL NOT NULL, note TEXT NOT NULL, seconds REAL NOT NULL, tensors BLOB,
  PRIMARY KEY (key, seed, first, count));
CREATE TRIGGER IF NOT EXISTS kept_trial BEFORE UPDATE ON trial
  BEGIN SELECT RAISE(ABORT, 'results are kept, not replaced'); END;
CREATE TRIGGER IF NOT EXISTS kept_trials BEFORE DELETE ON trial
  BEGIN SELECT RAISE(ABORT, 'results are kept, not removed'); END;
"""
_WORK = "key = ? AND seed = ? AND first = ? AND count = ?"


@dataclass(frozen=True)
class Trial:
    """A finished trial, as it is kept."""

    outcome: Outcome
    seed: int
    run: int
    work: tuple[int, int]  # first and count of the trials it ran with
    seconds: float  # since that work began


@dataclass(frozen=True)
class Unfinished:
    """Work that was begun and has not ended, and where it stands."""

    work: Work
    missing: tuple[int, ...]  # trials without an outcome
    done: float
    note: str
    seconds: float


class Store:
    """A file of results; made where there is none.

    Raises:
        ValueError: a file that is no store.
        FileNotFoundError: no such file, with `create=False`.
    """

    def __init__(self, path: str | Path, create: bool = True) -> None:
        self.path = Path(path)
        if not create and not self.path.is_file():
            raise FileNotFoundError(f"no results in {path}; make some with: gatewise lab run")
        if not self.path.absolute().parent.is_dir():
            raise FileNotFoundError(f"no folder {self.path.absolute().parent}")
        self._db = sqlite3.connect(self.path, isolation_level=None)
        try:
            self._open()
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise ValueError(f"{path} is no file of results: {error}") from error

    def _open(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        [[version]] = self._db.execute("PRAGMA user_version")
        [[tables]] = self._db.execute("SELECT count(*) FROM sqlite_master")
        if tables and version != _VERSION:
            raise sqlite3.DatabaseError(f"its version is {version}, not {_VERSION}")
        self._db.executescript(f"{_SCHEMA}; PRAGMA user_version = {_VERSION}")

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- writing -------------------------------------------------------------------------

    def begin_run(self) -> int:
        """Note versions, processor and commit; the number of a new run."""
        stamp = json.dumps(environment(threads=1) | {"commit": commit()})
        return self._insert("INSERT INTO run (started, environment) VALUES (?, ?)", (_now(), stamp))

    def begin(self, run: int, experiment: Experiment, work: Work) -> None:
        """Note that this work is in flight."""
        values = (experiment.key, work.seed, work.first, work.count)
        self._insert(
            "INSERT OR IGNORE INTO experiment VALUES (?, ?, ?)",
            (experiment.key, experiment.stamp, json.dumps(experiment.record())),
        )
        self._insert("INSERT INTO work VALUES (?, ?, ?, ?, ?, ?)", (*values, run, _now()))
        self._insert("INSERT OR IGNORE INTO state VALUES (?, ?, ?, ?, 0, '', 0, NULL)", values)

    def keep_state(
        self,
        experiment: Experiment,
        work: Work,
        done: float,
        note: str,
        seconds: float,
        tensors: bytes,
    ) -> None:
        """Where this work stands; replaces what was kept of it before."""
        self._db.execute(
            f"UPDATE state SET done = ?, note = ?, seconds = ?, tensors = ? WHERE {_WORK}",
            (done, note, seconds, tensors, *_place(experiment, work)),
        )

    def add(
        self, run: int, experiment: Experiment, work: Work, outcome: Outcome, seconds: float
    ) -> None:
        """Append an outcome; one that is there already must be the same.

        Raises:
            RuntimeError: a trial that ended otherwise before. Nothing is changed.
        """
        text = json.dumps(asdict(outcome))
        place = (experiment.key, work.seed, outcome.trial)
        before = self._db.execute(
            "SELECT outcome FROM trial WHERE key = ? AND seed = ? AND trial = ?", place
        ).fetchone()
        if before is not None:
            if before[0] != text:
                raise RuntimeError(
                    f"trial {outcome.trial} of {experiment.name} with seed {work.seed} ended "
                    "otherwise before the interruption: its track does not repeat"
                )
            return
        row = (*place, run, work.first, work.count, seconds, _now(), text)
        self._insert("INSERT INTO trial VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def end(self, experiment: Experiment, work: Work) -> None:
        """All trials of this work have ended: its state is not needed any more."""
        self._db.execute(f"DELETE FROM state WHERE {_WORK}", _place(experiment, work))

    def _insert(self, statement: str, values: tuple[Any, ...]) -> int:
        with closing(self._db.execute(statement, values)) as cursor:
            return cursor.lastrowid or 0

    # -- reading -------------------------------------------------------------------------

    def trials(self, key: str, seed: int | None = None) -> list[Trial]:
        """Finished trials of exactly the settings with this key, of one seed or of all."""
        which = "" if seed is None else " AND seed = ?"
        rows = self._db.execute(
            "SELECT outcome, seed, run, first, count, seconds FROM trial "
            f"WHERE key = ?{which} ORDER BY seed, trial",
            (key, *(() if seed is None else (seed,))),
        )
        return [Trial(_outcome(text), s, run, (a, n), t) for text, s, run, a, n, t in rows]

    def unfinished(self, key: str, limit: int, seed: int | None = None) -> list[Unfinished]:
        """Work in flight of the settings with this key, with what is needed to continue it."""
        rows = self._db.execute(
            "SELECT seed, first, count, done, note, seconds, tensors FROM state WHERE key = ? "
            "ORDER BY seed, first",
            (key,),
        ).fetchall()
        found = []
        for own, first, count, done, note, seconds, tensors in rows:
            if seed is not None and own != seed:
                continue
            state = None if tensors is None else load(tensors)
            work = Work(own, first, count, limit, state)
            ended = {t.outcome.trial for t in self.trials(key, own)}
            missing = tuple(t for t in work.trials if t not in ended)
            found.append(Unfinished(work, missing, done, note, seconds))
        return found

    def experiments(self) -> dict[str, Experiment]:
        """Key -> every experiment that was begun, as it was then."""
        rows = self._db.execute("SELECT key, record FROM experiment")
        return {key: Experiment.from_record(json.loads(text)) for key, text in rows}

    def environments(self, runs: Iterable[int]) -> list[dict[str, Any]]:
        """When and on what these runs were made, the oldest first."""
        found = []
        for run in sorted(set(runs)):
            started, text = self._db.execute(
                "SELECT started, environment FROM run WHERE id = ?", (run,)
            ).fetchone()
            found.append(json.loads(text) | {"run": run, "started": started})
        return found


def commit() -> str:
    """The commit of the code that runs, with + where files differ; empty outside a checkout."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=here, capture_output=True, text=True, timeout=20, check=True
        )
        return done.stdout.strip()

    try:
        if not git("ls-files", Path(__file__).name):
            return ""  # inside somebody else's checkout
        return git("rev-parse", "--short=12", "HEAD") + "+" * bool(git("status", "--porcelain"))
    except (OSError, subprocess.SubprocessError):
        return ""


def _outcome(text: str) -> Outcome:
    found = json.loads(text)
    activity = found.pop("activity")
    if activity is not None:
        activity["marks"] = tuple(activity["marks"])
        activity = Activity(**activity)
    found["curve"] = tuple((n, e) for n, e in found["curve"])
    return Outcome(**found, activity=activity)


def _place(experiment: Experiment, work: Work) -> tuple[str, int, int, int]:
    return experiment.key, work.seed, work.first, work.count


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
