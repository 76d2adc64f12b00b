"""The detector by the common commands: trained on a stream, saved, gone on with; bad input."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from gatewise import cli
from gatewise.models import CheckpointError, Settings, Source, load, runs
from gatewise.models.anomaly import AnomalyDetector
from gatewise.models.anomaly_task import AnomalyOptions, AnomalyPredictor, AnomalyTask, figures
from gatewise.models.kinds import guess_kind
from gatewise.models.table import read_series
from tests.resuming import whole_and_resumed

BEGIN = datetime(2024, 3, 4)
OPTIONS = AnomalyOptions(hidden_size=8, window=24, replay=3, memory=64, label="known")
SETTINGS = Settings(**(AnomalyTask.defaults | {"batch": 8, "evaluations": 3}))


def stream(rows: int) -> list[float]:
    """A daily wave, in a unit of its own, with a spike at row 100."""
    return [20 + 3 * math.sin(2 * math.pi * k / 24) + 30 * (k == 100) for k in range(rows)]


def write(path: Path, rows: range, values: Sequence[float]) -> Path:
    lines = ["timestamp,value,known"]
    for k in rows:
        lines.append(f"{BEGIN + timedelta(hours=k)},{values[k]},{int(k == 100)}")
    path.write_text("\n".join(lines))
    return path


def test_new_rows_go_on_where_the_training_ended(tmp_path: Path) -> None:
    values = stream(150)
    one, two = (write(tmp_path / f"{r.start}.csv", r, values) for r in (range(90), range(90, 150)))
    run = runs.begin(tmp_path / "out", "anomaly", Source(one), OPTIONS, SETTINGS)
    for _ in run.trainer.run():
        pass
    detector = AnomalyDetector(OPTIONS.config(SETTINGS))
    expected = [detector.step(BEGIN + timedelta(hours=k), v) for k, v in enumerate(values)]
    predictor = load(tmp_path / "out").predictor
    for _ in range(2):  # what is predicted leaves the model as it was
        said = list(predictor.predict(two))
        assert [r["score"] for r in said] == [f.score for f in expected[90:]]
        assert [r["expected"] for r in said] == [f.expected for f in expected[90:]]
    found = predictor.evaluate(two)
    wrong = [abs(v - f.expected) for v, f in zip(values[90:], expected[90:], strict=True)]
    assert found["absolute_error"] == pytest.approx(np.mean(wrong))
    assert found["anomalies"] == 1


@pytest.mark.parametrize("stop", [1, 5, 11])
def test_a_resumed_stream_gives_the_numbers_of_an_unbroken_one(tmp_path: Path, stop: int) -> None:
    data = write(tmp_path / "stream.csv", range(110), stream(110))
    one, two = whole_and_resumed(tmp_path, "anomaly", Source(data), OPTIONS, SETTINGS, stop)
    assert one == two
    assert one[-1]["items"] == 110
    a, b = (load(tmp_path / n).checkpoint.carried for n in ("whole", "broken"))
    assert a.keys() == b.keys()
    assert all((a[n] == b[n]).all() for n in a)


def test_the_latest_detector_is_the_best_one(tmp_path: Path) -> None:
    """Errors that grow with the stream do not bring back one that has read less."""
    values = [float(k * k % 97) * (1 + k) for k in range(110)]
    data = write(tmp_path / "stream.csv", range(110), values)
    run = runs.begin(tmp_path / "out", "anomaly", Source(data), OPTIONS, SETTINGS)
    for _ in run.trainer.run():
        pass
    errors = [h["held_out_absolute_error"] for h in run.trainer.history]
    assert errors[-1] > errors[0]
    assert load(tmp_path / "out").checkpoint.record["progress"]["step"] == len(run.task)


def test_a_stopped_stream_is_remembered(tmp_path: Path) -> None:
    data = write(tmp_path / "stream.csv", range(110), stream(110))
    settings = replace(SETTINGS, evaluations=1)
    run = runs.begin(tmp_path / "out", "anomaly", Source(data), OPTIONS, settings)
    for progress in run.trainer.run():
        if progress.step == 4:
            run.trainer.stop()
    predictor = load(tmp_path / "out").predictor
    assert isinstance(predictor, AnomalyPredictor)
    assert predictor.detector.time == BEGIN + timedelta(hours=31)
    with pytest.raises(ValueError, match="this detector has read its stream up to"):
        list(predictor.predict(data))


def test_a_value_that_none_takes_is_said_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    values = stream(60)
    values[10] = 1e200
    data = write(tmp_path / "huge.csv", range(60), values)
    assert cli.run(["train", str(data), "--task", "anomaly", "--out", str(tmp_path / "out")]) == 2
    assert "huge.csv, row 11, column 'value': value must be finite" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_figures_by_hand() -> None:
    found = np.zeros((6, 4))
    found[:, 0] = [1, 1, 3, 3, 5, 5]
    found[[1, 4], 3] = 0.9, 0.4
    told = figures([1.0, 2, 3, 4, 5, 6], found, [(0, 1), (3, 4)])
    assert told == {
        "absolute_error": 0.5,
        "last_value_error": 1.0,
        "alarms": 1,
        "anomalies": 2,
        "found": 1,
        "false_alarms": 0,
    }
    assert figures([1.0, 2, 3, 4, 5, 6], found, [(3, 3)], 0.3)["false_alarms"] == 2
    assert "found" not in figures([1.0], np.zeros((1, 4)), [])


def test_by_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    values = stream(150)
    one = write(tmp_path / "one.csv", range(90), values)
    two = write(tmp_path / "two.csv", range(90, 150), values)
    out = str(tmp_path / "out")
    sizes = ["--hidden", "8", "--set", "window=24", "--set", "memory=64", "--set", "label=known"]
    assert cli.run(["train", str(one), "--out", out, *sizes]) == 0  # known by its columns
    assert (tmp_path / "out" / "anomalies.png").stat().st_size > 5000
    capsys.readouterr()
    assert cli.run(["predict", out, str(two), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 60
    assert max(rows, key=lambda r: r["score"])["value"] == values[100]
    assert cli.run(["evaluate", out, str(two), "--out", str(tmp_path / "told")]) == 0
    assert "1.0000 found" in capsys.readouterr().out
    assert (tmp_path / "told" / "anomalies.png").exists()
    assert cli.run(["predict", out, str(one)]) == 2
    assert "has read its stream up to" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--minutes", "1"], "epochs is not for the task anomaly"),
        (["--epochs", "2"], "epochs is not for the task anomaly"),
        (["--patience", "2"], "patience is not for the task anomaly"),
        (["--clip", "3"], "clip is not for the task anomaly"),
        (["--held-out", "DATA"], "each value is forecast before it is learned from"),
        (["--column", "price"], "column 'price' is not in"),
        (["--set", "label=value"], "must hold nothing but 0 and 1"),
        (["--set", "threshold=2"], "threshold must be above 0, at most 1, got 2"),
        (["--set", "window=4"], "window must be in"),
        (["--task", "anomaly", "--seed", "-1"], "seed must be in"),
    ],
)
def test_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture, words: list[str], says: str
) -> None:
    data = write(tmp_path / "stream.csv", range(40), stream(40))
    words = [str(data) if w == "DATA" else w for w in words]
    assert cli.run(["train", str(data), "--out", str(tmp_path / "out"), *words]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_rows_in_another_order_than_their_times(tmp_path: Path) -> None:
    values = stream(150)
    write(tmp_path / "newest.csv", range(149, -1, -1), values)
    with pytest.raises(ValueError, match="sort them by 'timestamp'"):
        read_series(tmp_path / "newest.csv", "timestamp", "value")
    lines = write(tmp_path / "clock.csv", range(150), values).read_text().splitlines()
    lines[80], lines[81] = lines[81], lines[80]  # a clock that was put back once
    (tmp_path / "clock.csv").write_text("\n".join(lines))
    assert len(read_series(tmp_path / "clock.csv", "timestamp", "value")[0]) == 150
    zoned = [f"{BEGIN + timedelta(hours=k)}+02:00,1,0" for k in range(3)]
    (tmp_path / "zones.csv").write_text("\n".join(["timestamp,value,known", *zoned]))
    assert read_series(tmp_path / "zones.csv", "timestamp", "value")[0][0].tzinfo is not None


@pytest.mark.parametrize("damage", ["record", "state.0", "columns"])
def test_damaged_models_are_refused(tmp_path: Path, damage: str) -> None:
    data = write(tmp_path / "stream.csv", range(40), stream(40))
    run = runs.begin(tmp_path / "out", "anomaly", Source(data), OPTIONS, SETTINGS)
    kept = run.task.carried
    run.task.carried = lambda: {n: t for n, t in kept().items() if n != damage}  # type: ignore
    for _ in run.trainer.run():
        pass
    if damage == "columns":
        path = load(tmp_path / "out").checkpoint.path / "record.json"
        path.write_text(path.read_text().replace('"threshold": 0.5', '"threshold": "high"'))
    with pytest.raises(CheckpointError, match="cannot be used"):
        load(tmp_path / "out")
    with pytest.raises(CheckpointError, match="damaged"):
        runs.resume(tmp_path / "out")


def test_what_a_table_is_for(tmp_path: Path) -> None:
    for columns, kind in {
        "timestamp,value": "anomaly",
        "value,timestamp,label": "anomaly",
        "text,label": "classify",
        "date,price,volume": "forecast",
    }.items():
        (tmp_path / "a.csv").write_text(columns + "\n")
        assert guess_kind(tmp_path / "a.csv") == kind
    for name in ("train.de.gz", "train.en.gz"):
        (tmp_path / name).write_text("")
    assert guess_kind(tmp_path) == "translate"
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("a")
    assert guess_kind(tmp_path / "texts") == "lm"
    (tmp_path / "sounds" / "yes").mkdir(parents=True)
    (tmp_path / "sounds" / "yes" / "1.wav").write_bytes(b"")
    assert guess_kind(tmp_path / "sounds") == "speech"
    assert guess_kind(tmp_path / "missing.csv") == "lm"
