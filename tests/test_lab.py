"""The lab: what is run is kept, repeats to the bit, and survives being killed."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from gatewise import lab
from gatewise.lab import store as stores
from gatewise.lab.baselines import guessing, search, second_order
from gatewise.lab.baselines.search import Search
from gatewise.lab.experiment import Experiment, Outcome, Published, Spent, Work
from gatewise.lab.work import Ended, Job, Update, perform

pytest.importorskip("scipy", reason="the extra `lab` is not installed")
FAST = lab.EXPERIMENTS["tdnn/adding-100"]


SMALL = {"test": 32, "sequences": 20, "patience": 2, "iterations": 2, "starts": 1}


def tiny(experiment: Experiment, limit: int = 64) -> Experiment:
    """The row as it is, with little to learn from and few test sequences."""
    has = {f.name for f in fields(experiment.settings)}
    small = {n: v for n, v in SMALL.items() if n in has}
    return replace(experiment, settings=replace(experiment.settings, **small), limit=limit)


def outcomes(path: Path, experiment: Experiment) -> list[Outcome]:
    with lab.Store(path, create=False) as store:
        return [t.outcome for t in store.trials(experiment.key)]


def run(path: Path, experiment: Experiment, **options: object) -> list[Outcome]:
    with lab.Store(path) as store:
        lab.run([experiment], store, lab.Options(**{"trials": 2, "jobs": 1} | options))  # type: ignore[arg-type]
    return outcomes(path, experiment)


@pytest.mark.parametrize("name", lab.EXPERIMENTS)
def test_every_row_runs(name: str, tmp_path: Path) -> None:
    experiment = tiny(lab.EXPERIMENTS[name])
    found = run(tmp_path / "r.sqlite", experiment)
    assert [o.trial for o in found] == [0, 1]
    assert found[0].numbers["weights"] > 0
    if found[0].curve:
        # Each trial has numbers of its own (repr: NaN, of a network that has diverged, is equal).
        diverged = any("nan" in repr(o.curve) for o in found)
        assert diverged or found[0].curve != found[1].curve
        assert all(o.numbers["test_wrong"] == o.numbers["test_count"] for o in found if diverged)


ROWS = {"tdnn/adding-100": 320, "lbfgs/adding-100": 400, "guessing/adding-100": 640}


@pytest.mark.parametrize("name", ROWS)
def test_put_aside_and_continued_gives_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (search, second_order, guessing):
        monkeypatch.setattr(module, "_SECONDS", 0.0)  # a sign of progress after every step
    experiment = tiny(lab.EXPERIMENTS[name], ROWS[name])
    work, run = Work(0, 0, 1, experiment.limit), lab.TRACKS[experiment.track].run
    events = list(run(experiment.settings, work))
    [unbroken] = [e for e in events if isinstance(e, Outcome)]
    signs = events[: events.index(unbroken)]
    for stop in {1, len(signs) // 2, len(signs) - 1}:
        begun = run(experiment.settings, work)
        for _ in range(stop):
            sign = next(begun)
        assert isinstance(sign, lab.Progress) and sign.state is not None
        state = {n: t.clone() for n, t in sign.state().items()}
        after = run(experiment.settings, replace(work, state=state))
        assert [e for e in after if isinstance(e, Outcome)] == [unbroken]


def test_a_seed_repeats_to_the_bit_in_any_number_of_processes(tmp_path: Path) -> None:
    experiment = tiny(FAST, 640)
    alone = run(tmp_path / "a.sqlite", experiment)
    assert run(tmp_path / "b.sqlite", experiment, jobs=2) == alone
    assert run(tmp_path / "c.sqlite", experiment, seed=1) != alone


def test_what_is_finished_is_not_run_again(tmp_path: Path) -> None:
    experiment = tiny(FAST)
    path = tmp_path / "r.sqlite"
    before = run(path, experiment)
    with lab.Store(path) as store:
        assert not lab.Run([experiment], store, lab.Options(trials=2)).jobs
        more = lab.Run([experiment], store, lab.Options(trials=4)).jobs
    assert [t for j in more for t in j.work.trials] == [2, 3]
    assert run(path, experiment, trials=3)[:2] == before


KILLED = """
import sys
from tests.test_lab import FAST, lab, tiny
lab.run([tiny(FAST, 8000)], lab.Store(sys.argv[1]), lab.Options(trials=1, jobs=1, every=0.01))
"""


def test_killed_and_resumed_gives_the_same_numbers(tmp_path: Path) -> None:
    experiment = tiny(FAST, 8000)
    path = tmp_path / "killed.sqlite"
    here = Path(__file__).parents[1]
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)], cwd=here, env=os.environ | {"PYTHONPATH": "."}
    )
    while process.poll() is None and not _has_state(path):
        time.sleep(0.05)
    assert process.poll() is None, "it ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    with lab.Store(path) as store:
        [flying] = store.unfinished(experiment.key, experiment.limit)
        assert flying.missing == (0,) and 0 < flying.done < 1 and flying.work.state
        assert not store.trials(experiment.key)
    resumed = run(path, experiment, trials=1)
    assert resumed == run(tmp_path / "unbroken.sqlite", experiment, trials=1)
    with lab.Store(path) as store:
        assert not store.unfinished(experiment.key, experiment.limit)


def _has_state(path: Path) -> bool:
    if not path.exists():
        return False
    with sqlite3.connect(path) as db:
        try:
            return bool(db.execute("SELECT 1 FROM state WHERE tensors NOT NULL").fetchone())
        except sqlite3.OperationalError:  # the tables are being made
            return False


@pytest.mark.parametrize("name", ["tdnn/adding-100", "modern/order-100", "4-1"])
def test_a_state_of_another_version_begins_anew(name: str) -> None:
    experiment = tiny(lab.EXPERIMENTS[name])
    work = Work(0, 0, 2, experiment.limit)
    other = replace(work, state={"turn": torch.zeros(3)})
    whole, again = (list(perform(Job(experiment, w), every=1e9)) for w in (work, other))
    assert isinstance(again[0], Update) and again[0].note.startswith("begun anew")
    told = [[m.outcome for m in found if isinstance(m, Ended)] for found in (whole, again)]
    assert told[0] == told[1] and len(told[0]) == 2


def test_out_of_time_leaves_the_state(tmp_path: Path) -> None:
    experiment = tiny(FAST, 100_000)
    with lab.Store(tmp_path / "r.sqlite") as store:
        lab.run([experiment], store, lab.Options(trials=1, jobs=1, budget=0.01))
        [flying] = store.unfinished(experiment.key, experiment.limit)
    assert flying.work.state is not None and 0 < flying.done < 1 and flying.spent.cpu > 0


def test_ray_gives_the_same_numbers(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="ray is not installed")
    experiment = tiny(FAST)
    code = (
        "import sys; from tests.test_lab import FAST, lab, tiny\n"
        "lab.run([tiny(FAST)], lab.Store(sys.argv[1]),"
        " lab.Options(trials=2, jobs=2, engine='ray'))\n"
    )
    path, here = tmp_path / "r.sqlite", Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(here), "RAY_USAGE_STATS_ENABLED": "0"}
    subprocess.run(
        [sys.executable, "-c", code, str(path)],
        cwd=here,
        env=environment,
        check=True,
        timeout=300,
    )
    assert outcomes(path, experiment) == run(tmp_path / "local.sqlite", experiment)


def test_results_are_never_replaced(tmp_path: Path) -> None:
    experiment, work = tiny(FAST), Work(0, 0, 1, 64)
    with lab.Store(tmp_path / "r.sqlite") as store:
        number = store.begin_run()
        first = Outcome(0, True, 12, {"weights": 3.0}, ((1, 0.5),))
        store.begin(number, experiment, work)
        store.add(number, experiment, work, first, Spent(1.0, 0.5))
        store.add(number, experiment, work, first, Spent(2.0))  # the same again: nothing happens
        with pytest.raises(RuntimeError, match="does not repeat"):
            store.add(number, experiment, work, replace(first, sequences=13), Spent(1.0))
        [kept] = store.trials(experiment.key)
        assert kept.outcome == first and (kept.seconds, kept.cpu) == (1.0, 0.5)
        assert kept.environment["torch"] and kept.ended > kept.environment["started"][:10]
    with (
        sqlite3.connect(tmp_path / "r.sqlite") as db,
        pytest.raises(sqlite3.IntegrityError, match="kept"),
    ):
        db.execute("DELETE FROM trial")
    db.close()


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("something else, and long enough to be looked at " * 20)
    with pytest.raises(ValueError, match="is no file of results"):
        lab.Store(tmp_path / "x")
    with pytest.raises(FileNotFoundError, match="gatewise lab run"):
        lab.Store(tmp_path / "y", create=False)


def test_results_belong_to_exact_settings() -> None:
    changed = replace(FAST, settings=replace(FAST.settings, probe=1))
    assert len({FAST.key, changed.key, replace(FAST, limit=1).key}) == 3
    assert replace(FAST, criterion="in other words", trials=3).key == FAST.key


def test_an_experiment_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from dataclasses import replace\n"
        "from gatewise.lab import EXPERIMENTS\n"
        "MINE = replace(EXPERIMENTS['tdnn/adding-100'], name='mine', limit=64)\n"
    )
    [mine] = lab.select([f"{tmp_path}/mine.py:MINE"])
    assert run(tmp_path / "r.sqlite", tiny(mine), trials=1)[0].sequences == 64
    with pytest.raises(ValueError, match="no Experiment"):
        lab.select([f"{tmp_path}/mine.py:YOURS"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "two words"}, "name must be a word"),
        ({"trials": 0}, "trials must be positive"),
        ({"limit": -1}, "limit must be positive"),
    ],
)
def test_a_bad_experiment_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(FAST, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trials": 0}, "trials must be positive"),
        ({"jobs": -1}, "jobs must be positive"),
        ({"budget": 0.0}, "budget must be positive"),
        ({"seed": -1}, "seed must be in"),
        ({"engine": "slurm"}, "engine must be one of local, ray"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lab.Options(**options)  # type: ignore[arg-type]


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="method must be one of"):
        Search("adding-100", "magic")
    with pytest.raises(ValueError, match="is no experiment"):
        lab.select(["9z"])
    with pytest.raises(ValueError, match="figure must be one of"):
        Published("luck", 1, "nobody")
    with pytest.raises(ValueError, match="successes"):
        Published("successes", 11, "somebody", 10)


def test_the_commit_is_this_checkout_s() -> None:
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    if head.returncode:
        pytest.skip("not in a git checkout")
    assert head.stdout.startswith(stores.commit().rstrip("+"))
