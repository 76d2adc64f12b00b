"""Results in one SQLite file: added, never replaced; what is unfinished is known as unfinished.

    experiment  key -> settings, as they were
    run         when, with which versions, processor and commit
    work        trials that were begun together
    trial       how a trial ended: appended once, and the file itself refuses a change
    state       where work in flight stands
    effort      processor time of a piece of work so far

Rows of `state` and `effort` alone are replaced. Any number may read while a run adds (write-ahead
log); two runs may add to one file, each waits where the other writes.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from safetensors.torch import load

from gatewise.benchmark.machine import environment
from gatewise.lab.experiment import Activity, Experiment, Outcome, Spent, Work

_VERSION = 1
_EFFORT = """effort (
  key TEXT NOT NULL, seed INTEGER NOT NULL, first INTEGER NOT NULL, count INTEGER NOT NULL,
  cpu REAL NOT NULL,
  PRIMARY KEY (key, seed, first, count))"""
_SCHEMA = f"""
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
CREATE TABLE IF NOT EXISTS {_EFFORT};
CREATE TRIGGER IF NOT EXISTS kept_trial BEFORE UPDATE ON trial
  BEGIN SELECT RAISE(ABORT, 'results are kept, not replaced'); END;
CREATE TRIGGER IF NOT EXISTS kept_trials BEFORE DELETE ON trial
  BEGIN SELECT RAISE(ABORT, 'results are kept, not removed'); END;
"""
_WORK = "key = ? AND seed = ? AND first = ? AND count = ?"
_PATIENCE = 60.0  # seconds to wait for another run that writes


@dataclass(frozen=True)
class Trial:
    """A finished trial, as it is kept."""

    outcome: Outcome
    seed: int
    work: tuple[int, int]  # first and count of the trials it ran with
    seconds: float  # by the clock, since that work began
    cpu: float | None = None  # processor seconds of that whole work; None: not recorded
    ended: str = ""  # when, in UTC
    environment: Mapping[str, Any] = field(default_factory=dict)  # of the run that began it


@dataclass(frozen=True)
class Unfinished:
    """Work that was begun and has not ended, and where it stands."""

    work: Work
    missing: tuple[int, ...]  # trials without an outcome
    done: float
    note: str
    spent: Spent


class Store:
    """A file of results.

    Args:
        path: where it is.
        create: made where there is none. False: only read, and not changed at all.

    Raises:
        ValueError: a file that is no store.
        FileNotFoundError: no such file, with `create=False`, or no such folder.
        OSError: at any time, where the file cannot be read or written.
    """

    def __init__(self, path: str | Path, create: bool = True) -> None:
        self.path = Path(path)
        if not create and not self.path.is_file():
            raise FileNotFoundError(f"no results in {path}; make some with: gatewise lab run")
        if not self.path.absolute().parent.is_dir():
            raise FileNotFoundError(f"no folder {self.path.absolute().parent}")
        try:
            self._db = _connected(self.path, create)
        except sqlite3.OperationalError as error:  # no permission, no room
            raise OSError(f"{path} cannot be used: {error}") from error
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{path} is no file of results: {error}") from error

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
        done = self._execute(
            "INSERT INTO run (started, environment) VALUES (?, ?)", (_now(), stamp)
        )
        return done.lastrowid or 0

    def begin(self, run: int, experiment: Experiment, work: Work) -> None:
        """Note that this work is in flight."""
        place = _place(experiment, work)
        self._execute(
            "INSERT OR IGNORE INTO experiment VALUES (?, ?, ?)",
            (experiment.key, experiment.stamp, json.dumps(experiment.record())),
        )
        self._execute("INSERT INTO work VALUES (?, ?, ?, ?, ?, ?)", (*place, run, _now()))
        self._execute("INSERT OR IGNORE INTO state VALUES (?, ?, ?, ?, 0, '', 0, NULL)", place)

    def keep_state(
        self,
        experiment: Experiment,
        work: Work,
        done: float,
        note: str,
        spent: Spent,
        tensors: bytes,
    ) -> None:
        """Where this work stands; replaces what was kept of it before."""
        self._execute(
            f"UPDATE state SET done = ?, note = ?, seconds = ?, tensors = ? WHERE {_WORK}",
            (done, note, spent.clock, tensors, *_place(experiment, work)),
        )
        self._keep_effort(experiment, work, spent)

    def add(
        self, run: int, experiment: Experiment, work: Work, outcome: Outcome, spent: Spent
    ) -> None:
        """Append an outcome; one that is there already must be the same.

        Raises:
            RuntimeError: a trial that ended otherwise before. Nothing is changed.
        """
        text = json.dumps(asdict(outcome))
        place = (experiment.key, work.seed, outcome.trial)
        row = (*place, run, work.first, work.count, spent.clock, _now(), text)
        added = self._execute("INSERT OR IGNORE INTO trial VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        if added.rowcount:
            self._keep_effort(experiment, work, spent)
            return
        [[before]] = self._rows(
            "SELECT outcome FROM trial WHERE key = ? AND seed = ? AND trial = ?", place
        )
        if before != text:
            raise RuntimeError(
                f"trial {outcome.trial} of {experiment.name} with seed {work.seed} ended "
                "otherwise before the interruption: its track does not repeat"
            )

    def _keep_effort(self, experiment: Experiment, work: Work, spent: Spent) -> None:
        if spent.cpu is not None:
            row = (*_place(experiment, work), spent.cpu)
            self._execute("INSERT OR REPLACE INTO effort VALUES (?, ?, ?, ?, ?)", row)

    def end(self, experiment: Experiment, work: Work) -> None:
        """All trials of this work have ended: its state is not needed any more."""
        self._execute(f"DELETE FROM state WHERE {_WORK}", _place(experiment, work))

    def _execute(self, statement: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        with self._said():
            return self._db.execute(statement, values)

    def _rows(self, statement: str, values: tuple[Any, ...] = ()) -> list[Any]:
        with self._said():
            return self._db.execute(statement, values).fetchall()

    @contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:  # a full disk, a damaged page
            raise OSError(f"{self.path} cannot be used any more: {error}") from error

    # -- reading -------------------------------------------------------------------------

    def ended(self, key: str, seed: int) -> set[int]:
        """The numbers of the trials of one seed that have ended."""
        which = "SELECT trial FROM trial WHERE key = ? AND seed = ?"
        return {trial for (trial,) in self._rows(which, (key, seed))}

    def trials(self, key: str, seed: int | None = None) -> list[Trial]:
        """Finished trials of exactly the settings with this key, of one seed or of all."""
        which = "" if seed is None else " AND seed = ?"
        rows = self._rows(
            "SELECT outcome, seed, first, count, seconds, cpu, ended, started, environment "
            "FROM trial JOIN run ON run = id LEFT JOIN effort USING (key, seed, first, count) "
            f"WHERE key = ?{which} ORDER BY seed, trial",
            (key, *(() if seed is None else (seed,))),
        )
        return [
            Trial(_outcome(text), s, (a, n), t, cpu, end, json.loads(on) | {"started": start})
            for text, s, a, n, t, cpu, end, start, on in rows
        ]

    def unfinished(self, key: str, limit: int, seed: int | None = None) -> list[Unfinished]:
        """Work in flight of the settings with this key, with what is needed to continue it."""
        rows = self._rows(
            "SELECT seed, first, count, done, note, seconds, cpu, tensors "
            "FROM state LEFT JOIN effort USING (key, seed, first, count) WHERE key = ? "
            "ORDER BY seed, first",
            (key,),
        )
        found = []
        for own, first, count, done, note, seconds, cpu, tensors in rows:
            if seed is not None and own != seed:
                continue
            work = Work(own, first, count, limit, None if tensors is None else load(tensors))
            ended = self.ended(key, own)
            missing = tuple(t for t in work.trials if t not in ended)
            # Of work that has just begun, nothing is lost; of older work, it was not recorded.
            spent = Spent(seconds, cpu if cpu is not None or seconds else 0.0)
            found.append(Unfinished(work, missing, done, note, spent))
        return found

    def experiments(self) -> dict[str, Experiment]:
        """Key -> every experiment that was begun, as it was then."""
        rows = self._rows("SELECT key, record FROM experiment")
        return {key: Experiment.from_record(json.loads(text)) for key, text in rows}

    def keys(self, experiment: Experiment) -> list[str]:
        """Its own, and those it was filed under before some of its settings existed."""
        own = experiment.key
        stamps = self._rows("SELECT key, stamp FROM experiment WHERE key != ?", (own,))
        return [own, *(key for key, stamp in stamps if experiment.continues(stamp))]


def _connected(path: Path, create: bool) -> sqlite3.Connection:
    """The database, after a look at its version."""
    if create:
        db = sqlite3.connect(path, _PATIENCE, isolation_level=None)
    else:
        # Where no log is, nobody writes; then nothing beside the file needs to be made to read it.
        quiet = "" if path.with_name(f"{path.name}-wal").exists() else "&immutable=1"
        address = f"{path.absolute().as_uri()}?mode=ro{quiet}"
        db = sqlite3.connect(address, _PATIENCE, isolation_level=None, uri=True)
    try:
        [[version]] = db.execute("PRAGMA user_version")
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
        if version != _VERSION and (tables or not create):
            raise sqlite3.DatabaseError(f"its version is {version}, not {_VERSION}")
        if create:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(f"{_SCHEMA}; PRAGMA user_version = {_VERSION}")
        elif "effort" not in tables:  # from before it was recorded
            db.execute(f"CREATE TEMP TABLE {_EFFORT}")
    except sqlite3.Error:
        db.close()
        raise
    return db


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
