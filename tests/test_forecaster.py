"""Forecasting: scaling undone, causal, better than naive on a season, saved and loaded the same."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from datetime import date, datetime, timezone
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gatewise.models import CheckpointError, Settings, Source, load, runs
from gatewise.models.forecast_task import ForecastOptions, ForecastPredictor, ForecastTask, cut
from gatewise.models.forecaster import (
    FORECASTERS,
    ForecasterConfig,
    forecast_loss,
    make_forecaster,
)
from gatewise.models.table import read_table, read_times

OPTIONS = ForecastOptions(
    columns="wave,saw", look_back=24, horizon=12, segment=12, season=12, hidden_size=32, dropout=0.0
)
SETTINGS = Settings(steps=200, batch=32, learning_rate=1e-2, evaluations=2)


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sine and a saw tooth of period 12 around a slow drift, with noise."""
    file = tmp_path_factory.mktemp("table") / "waves.csv"
    noise = np.random.default_rng(0).normal(0, 0.5, (1000, 2))
    lines = ["when,wave,saw"]
    for t in range(1000):
        wave = 5 + math.sin(2 * math.pi * t / 12) + t / 500 + noise[t, 0]
        lines.append(f"2020-01-01T00:{t % 60:02d},{wave},{1000 * (t % 12 + noise[t, 1])}")
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, waves: Path) -> Path:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("run") / "out"
    run = runs.begin(out, "forecast", Source(waves), OPTIONS, SETTINGS)
    assert sum(1 for _ in run.trainer.run()) == 200
    assert [p.name for p in runs.picture(run)] == ["learning_curve.png", "forecast.png"]
    return out


def config(**given: object) -> ForecasterConfig:
    sizes = {"series": 2, "look_back": 12, "horizon": 5, "segment": 3, "hidden_size": 8}
    return ForecasterConfig(**{**sizes, **given})  # type: ignore[arg-type]


def test_it_beats_the_seasonal_naive_forecast_on_rows_it_has_not_seen(
    trained: Path, waves: Path
) -> None:
    predictor = load(trained).predictor
    figures = predictor.evaluate(waves)
    # The noise alone is half of the naive forecast's error, which has it twice.
    assert 0.4 < figures["mse"] / figures["seasonal_naive_mse"] < 0.85
    assert 0.6 < figures["coverage"] < 0.95


def test_the_test_rows_are_the_last_fifth(trained: Path, waves: Path) -> None:
    predictor = load(trained).predictor
    assert isinstance(predictor, ForecastPredictor)
    values = read_table(waves, ["wave", "saw"]).values
    assert predictor.seen.tested(values) == range(800, 1000)
    assert predictor.seen.tested(values + 1) == range(1000), "another file is tested whole"


def test_what_was_learned_from_is_no_test(trained: Path, waves: Path, tmp_path: Path) -> None:
    part = tmp_path / "part.csv"
    part.write_text("".join(waves.read_text().splitlines(keepends=True)[:500]))
    with pytest.raises(ValueError, match="these 499 rows begin as the file that the model has"):
        load(trained).predictor.evaluate(part)


def test_seasonal_naive_against_a_loop(trained: Path, waves: Path) -> None:
    predictor = load(trained).predictor
    assert isinstance(predictor, ForecastPredictor)
    z = predictor.model.scale(predictor.read(waves)).numpy()
    errors = [
        (z[t + k] - z[t + k % 12 - 12]) ** 2 for t in range(800, 1000 - 12 + 1) for k in range(12)
    ]
    found = predictor.evaluate(waves)["seasonal_naive_mse"]
    assert found == pytest.approx(float(np.mean(errors)), rel=1e-5)


@given(
    st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e-3, 1e-3)), min_size=2, max_size=20).map(
        lambda rows: torch.tensor(rows, dtype=torch.float64)
    )
)
def test_scaling_is_undone(rows: torch.Tensor) -> None:
    model = make_forecaster(config())
    model.fit_scale(rows)
    back = model.unscale(model.scale(rows))
    # float32 in between: 6e-8 of the scaled value, which is at most √N spreads.
    assert torch.allclose(back, rows, rtol=1e-6, atol=float(1e-6 * model.std.max()))
    assert (model.unscale(model.scale(rows))[:, 1] - rows[:, 1]).abs().max() <= 1e-6 * model.std[1]


@pytest.mark.parametrize("name", FORECASTERS)
def test_a_forecast_moves_and_stretches_with_its_series(name: str) -> None:
    torch.manual_seed(1)
    model = make_forecaster(config(model=name)).eval()
    rows = torch.randn(40, 2, dtype=torch.float64)
    model.fit_scale(rows)
    before = model.forecast(rows)
    factor, offset = torch.tensor([100.0, 0.01]), torch.tensor([7.0, -3.0])
    moved = rows * factor + offset
    model.fit_scale(moved)
    expected = before * factor[:, None] + offset[:, None]
    assert torch.allclose(model.forecast(moved), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", FORECASTERS)
def test_only_the_look_back_counts(name: str) -> None:
    model = make_forecaster(config(model=name)).eval()
    rows = torch.randn(30, 2, dtype=torch.float64)
    changed = rows.clone()
    changed[: 30 - 12] += 100
    assert torch.equal(model.forecast(rows), model.forecast(changed))


def test_windows_end_where_the_truth_begins() -> None:
    rows = torch.arange(20.0)[:, None]
    window, truth = cut(rows, torch.tensor([5, 10]), 3, 2)
    assert window[..., 0].tolist() == [[2, 3, 4], [7, 8, 9]]
    assert truth[..., 0].tolist() == [[5, 6], [10, 11]]


def test_no_batch_row_sees_another(waves: Path) -> None:
    model = make_forecaster(config()).eval()
    x = torch.randn(3, 12, 2)
    alone = torch.cat([model(row[None]) for row in x])
    assert torch.allclose(model(x), alone, atol=1e-6)


@pytest.mark.parametrize("cell", ["lstm", "rnn", "lstm-1997"])
def test_any_cell(cell: str) -> None:
    model = make_forecaster(config(cell=cell, num_layers=2))
    model(torch.randn(2, 12, 2)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_the_pinball_loss_is_least_at_the_quantile() -> None:
    sample = torch.arange(1001.0)
    candidates = torch.arange(0.0, 1001.0, 10.0)
    for q in (0.1, 0.9):
        losses = []
        for y in candidates:
            pair = torch.stack([sample, y.expand(1001)], -1)  # the point is exact, costs nothing
            losses.append(forecast_loss(pair, sample, (q,)).item())
        assert candidates[int(np.argmin(losses))] == pytest.approx(1000 * q, abs=10)


def test_a_later_process_predicts_the_same(trained: Path, waves: Path) -> None:
    here = list(load(trained).predictor.predict(waves))
    code = "import sys; from gatewise.cli import main; main()"
    command = [sys.executable, "-c", code, "predict", str(trained), str(waves), "--json"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    there = [json.loads(line) for line in output.splitlines()]
    assert len(there) == 24
    for a, b in zip(here, there, strict=True):
        assert a.keys() == b.keys()
        assert (a["step"], a["column"]) == (b["step"], b["column"])
        # One thread here, more there: sums in another order.
        assert a["forecast"] == pytest.approx(b["forecast"], rel=1e-4)
        assert a["q0.1"] <= a["q0.5"] <= a["q0.9"]


def test_resumed_is_unbroken(tmp_path: Path, waves: Path, trained: Path) -> None:
    out = tmp_path / "run"
    run = runs.begin(out, "forecast", Source(waves), OPTIONS, SETTINGS)
    for progress in run.trainer.run():
        if progress.step == 123:
            run.trainer.stop()
    again = runs.resume(out)
    for _ in again.trainer.run():
        pass
    one, two = load(trained, "latest").predictor.model, load(out, "latest").predictor.model
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name]), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "1,2"}, "split must be three positive numbers"),
        ({"split": "900,60,60"}, "does not fit 1000 rows"),
        ({"columns": "wave,nothing"}, "column 'nothing' is not in"),
        ({"columns": "when"}, "row 1, column 'when'.*no number"),
        ({"quantiles": "0.9,0.1"}, "quantiles must rise"),
        ({"quantiles": "a"}, "quantiles must be numbers"),
        ({"model": "oracle"}, "model must be one of recurrent, dlinear"),
        ({"horizon": 0}, "horizon must be between"),
        ({"split": "inf,1,1"}, "split must be three positive numbers"),
        ({"season": 25}, "season must be in"),
        ({"segment": 30}, "segment must be at most look_back"),
    ],
)
def test_what_cannot_be_trained_is_said_before_work(
    waves: Path, change: dict[str, object], message: str
) -> None:
    options = ForecastOptions(**{**OPTIONS.__dict__, **change})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        ForecastTask.begin(Source(waves), options, SETTINGS)


def test_a_damaged_model_file_is_said(trained: Path, tmp_path: Path) -> None:
    import shutil

    out = tmp_path / "copy"
    shutil.copytree(trained, out)
    record = next((out / "checkpoints").glob("*/record.json"))
    for file in (out / "checkpoints").glob("*/record.json"):
        data = json.loads(file.read_text())
        data["model"]["config"]["horizon"] = 1 << 19
        file.write_text(json.dumps(data))
    assert record.exists()
    with pytest.raises(CheckpointError, match="does not fit the model"):
        load(out)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "different column names"),
        ("a,a\n1,2\n", "different column names"),
        ("a,b\n", "has no rows"),
        ("a,b\n1\n", "line 2: 1 fields, expected 2"),
        ("a,b\n1,2\n3,x\n", "row 2, column 'b': 'x' is no number"),
        ("a,b\n1,nan\n", "row 1, column 'b': 'nan' is not finite"),
        ("a\nx\n", "no column of numbers"),
        ("d,e\n1,\n2,2\n3,3", "row 1, column 'e': '' is no number"),
    ],
)
def test_damaged_tables(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "table.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_table(file, None if "no column" in message else ["a", "b"] if "b" in text else None)


def test_a_constant_series_keeps_its_unit() -> None:
    model = make_forecaster(ForecasterConfig(3, 4, 2, segment=2))
    rows = torch.full((1000, 3), 0.1, dtype=torch.float64)
    rows[:, 1] = 0.01
    rows[500:, 2] = 0.3
    for k in range(3):  # the spread of equal numbers is some 1e-17 here, alone or together
        single = make_forecaster(ForecasterConfig(1, 4, 2, segment=2))
        single.fit_scale(rows[:, k : k + 1])
        assert single.std.item() == pytest.approx(0.1 if k == 2 else 1.0)
    model.fit_scale(rows)
    assert model.std.tolist() == pytest.approx([1.0, 1.0, 0.1])


def test_days_and_zulu_times(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    days = pyarrow.array([date(2020, 1, 1), date(2020, 1, 2)], pyarrow.date32())
    parquet.write_table(pyarrow.table({"when": days}), tmp_path / "days.parquet")
    assert read_times(tmp_path / "days.parquet", "when") == [datetime(2020, 1, k) for k in (1, 2)]
    (tmp_path / "zulu.csv").write_text("when\n2020-01-01T10:00:00Z\n")
    [found] = read_times(tmp_path / "zulu.csv", "when")
    assert found == datetime(2020, 1, 1, 10, tzinfo=timezone.utc)


def test_tables_and_times(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text('when,what,"x, in m"\n2020-01-01 10:00:00,a,1.5\n2020-01-02,b,-2\n')
    table = read_table(file)
    assert table.names == ("x, in m",)
    assert table.values.tolist() == [[1.5], [-2.0]]
    assert [t.day for t in read_times(file, "when")] == [1, 2]
    with pytest.raises(ValueError, match="row 1: 'what' is no time: 'a'"):
        read_times(file, "what")


def test_parquet(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="the extra gatewise[series]")
    parquet = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "table.parquet"
    parquet.write_table(arrow.table({"a": ["x", "y"], "b": [1.0, 2.5]}), file)
    assert read_table(file).values.tolist() == [[1.0], [2.5]]
    file.write_bytes(b"no parquet")
    with pytest.raises(ValueError, match="is no Parquet file"):
        read_table(file)
