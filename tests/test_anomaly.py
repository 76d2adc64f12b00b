"""Anomalies: nothing looks ahead, what is rare is found, the benchmark's figures are its own."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewise import cli
from gatewise.cli import console
from gatewise.models import nab
from gatewise.models.anomaly import AnomalyDetector, DetectorConfig, Finding
from gatewise.models.anomaly_file import FORMAT, load_detector, save_detector
from gatewise.models.running import Ceiling, Peaks, Scale
from gatewise.models.series_plots import plot_anomalies

NAB = Path(__file__).resolve().parents[2] / "shared" / "data" / "nab"
SMALL = DetectorConfig(hidden_size=8, window=32, replay=4, memory=128)
BEGIN = datetime(2020, 1, 1)


def run(values: list[float], config: DetectorConfig = SMALL) -> list[Finding]:
    detector = AnomalyDetector(config)
    return [detector.step(BEGIN + timedelta(hours=k), v) for k, v in enumerate(values)]


def daily(rows: int) -> list[float]:
    noise = np.random.default_rng(0).normal(0, 0.1, rows)
    return (10 + np.sin(2 * np.pi * np.arange(rows) / 24) + noise).tolist()


def test_the_future_never_changes_the_past() -> None:
    values = daily(200)
    changed = [*values[:150], *(v + 100 for v in values[150:])]
    assert run(values)[:150] == run(changed)[:150]


def test_the_same_stream_has_the_same_findings_and_its_unit_does_not_matter() -> None:
    values = daily(120)
    once, again = run(values), run(values)
    assert once == again
    scaled = run([1024 * v for v in values])  # a power of two: the same roundings
    assert [f.surprise for f in scaled] == pytest.approx([f.surprise for f in once], rel=1e-4)
    assert [f.expected for f in scaled] == pytest.approx([1024 * f.expected for f in once], 1e-4)


def test_a_spike_and_a_shift_are_the_most_surprising() -> None:
    values = daily(400)
    values[250] += 6
    findings = run(values)
    scores = [f.score for f in findings]
    assert int(np.argmax(scores[20:])) + 20 == 250
    assert findings[250].score > 0.6
    assert all(0 <= s <= 1 for s in scores)


def test_it_learns_the_day() -> None:
    """After some days the forecast is better than the last value."""
    values = daily(1500)
    findings = run(values, DetectorConfig(hidden_size=16, every=2, learning_rate=1e-2))
    late = range(1000, 1500)
    error = np.mean([abs(values[k] - findings[k].expected) for k in late])
    naive = np.mean([abs(values[k] - values[k - 1]) for k in late])
    assert error < 0.8 * naive


@given(st.lists(st.floats(0, 100), min_size=1, max_size=40), st.integers(1, 4))
def test_the_ceiling_is_the_kth_largest(values: list[float], k: int) -> None:
    ceiling = Ceiling(k)
    for n, x in enumerate(values):
        before = sorted(values[:n], reverse=True)
        largest = before[k - 1] if len(before) >= k else 0.0
        assert ceiling.measure(x) == pytest.approx(min(1000.0, x / max(largest, 1e-3)))


def test_a_ceiling_that_forgets_sinks() -> None:
    ceiling = Ceiling(1, forgets=0.01)
    ceiling.measure(1.0)
    for _ in range(99):
        ceiling.measure(0.0)
    assert ceiling.measure(1.0) == pytest.approx(1.01**100)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.integers(1, 9))
def test_a_peak_is_above_the_last_ones(values: list[int], least: int) -> None:
    peaks = Peaks(least, 0.0)
    for n, x in enumerate(values):
        last = values[max(0, n - least) : n]
        assert peaks.keep(x) == (x if not last or x > max(last) else 0)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30))
def test_running_mean_and_spread(values: list[float]) -> None:
    scale = Scale()
    for v in values:
        scale.add(v)
    assert scale.mean == pytest.approx(np.mean(values), abs=1e-9)
    assert scale.std == pytest.approx(max(np.std(values), 1e-3 * max(abs(scale.mean), 1e-6)), 1e-6)


@pytest.mark.parametrize("given", [{"every": 0}, {"window": 8}, {"window": 9, "memory": 8}])
def test_a_configuration_out_of_range(given: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"every|window"):
        DetectorConfig(**given)  # type: ignore[arg-type]


def test_what_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="value must be finite"):
        AnomalyDetector(SMALL).step(BEGIN, float("nan"))


def series(windows: tuple[tuple[int, int], ...], rows: int = 100) -> nab.Series:
    times = [BEGIN + timedelta(hours=k) for k in range(rows)]
    return nab.Series("a/b.csv", times, np.zeros(rows), windows)


def alarms(*rows: int, size: int = 100) -> np.ndarray:
    scores = np.zeros(size)
    scores[list(rows)] = 1.0
    return scores


def test_the_scoring_by_hand() -> None:
    one = [series(((40, 49),))]

    def total(*rows: int) -> float:
        return nab.score(one, {"a/b.csv": alarms(*rows)}).score

    assert total() == 0.0
    assert total(40) == pytest.approx(100.0), "the window's first row"
    # Row 44 is half way: -(49 - 44 + 1) / 10 = -0.6 widths.
    half = (2 / (1 + np.exp(-3.0)) - 1) / (2 / (1 + np.exp(-5.0)) - 1)
    assert total(44) == pytest.approx(100 * (half + 1) / 2)
    assert total(44, 46, 48) == pytest.approx(total(44)), "later ones neither count nor cost"
    assert total(40, 30) == pytest.approx(100 - 100 * 0.11 / 2), "before: the whole weight"
    # Row 58 is one width behind: (58 - 49) / 9 = 1.
    behind = 0.11 * (1 - 2 / (1 + np.exp(5.0)))
    assert total(40, 58) == pytest.approx(100 - 100 * behind / 2)
    assert total(40, 3) == pytest.approx(100.0), "the first 15 % are not scored"
    assert total(30) == 0.0, "the best threshold raises no alarm then"


def test_windows_that_none_can_find() -> None:
    """In the first 15 %, which are not scored: no error while another window is."""
    scores = {"a/b.csv": alarms(40)}
    both = nab.score([series(((2, 5), (40, 49)))], scores)
    assert (both.windows, both.detected) == (2, 1)
    for corpus in ([], [series(())]):
        with pytest.raises(ValueError, match="scores cannot be judged"):
            nab.score(corpus, scores)


def test_scores_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="100 finite numbers for a"):
        nab.score([series(())], {"a/b.csv": np.zeros(99)})


def test_windowed_gaussian_against_the_window_itself() -> None:
    values = np.random.default_rng(0).normal(5, 2, 90)
    found = nab.windowed_gaussian(values, size=40, step=10)
    for n in (7, 39, 40, 49, 50, 89):
        first = max(0, (n - 40) // 10 * 10)
        window = values[first : first + 40] if n >= 40 else values[:n]
        z = abs(values[n] - window.mean()) / window.std()
        assert found[n] == pytest.approx(1 - nab.erfc(z / np.sqrt(2)) / 2)


def test_a_folder_that_is_not_the_benchmarks(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no combined_windows"):
        nab.read_nab(tmp_path)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "combined_windows.json").write_text("[")
    with pytest.raises(ValueError, match="is damaged"):
        nab.read_nab(tmp_path)


@pytest.mark.skipif(not NAB.is_dir(), reason=f"needs {NAB}")
def test_the_published_figures_come_out() -> None:
    corpus = nab.read_nab(NAB)
    assert (len(corpus), sum(len(s.windows) for s in corpus)) == (58, 116)
    assert sum(len(s.values) for s in corpus) == 365_558

    def figure(detector: str) -> float:
        scores = {s.name: nab.DETECTORS[detector](s, 0) for s in corpus}
        return nab.score(corpus, scores).score

    published = json.loads((NAB / "results" / "final_results.json").read_text())
    assert figure("null") == published["null"]["standard"] == 0.0
    # Published 39.65: its threshold was searched on a grid, ours is the best there is.
    gaussian = published["windowedGaussian"]["standard"]
    assert gaussian - 0.5 < figure("windowed-gaussian") < gaussian + 1.0


def test_the_pictures(tmp_path: Path) -> None:
    values = daily(60)
    times = [BEGIN + timedelta(hours=k) for k in range(60)]
    found = run(values)
    scores, expected = [f.score for f in found], [f.expected for f in found]
    plot_anomalies(times, values, scores, tmp_path / "a.png", "a stream", expected=expected)
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    one = series(((40, 49),))
    nab.draw([one], {"a/b.csv": alarms(44)}, tmp_path / "figures", "by hand")
    assert (tmp_path / "figures" / "a-b.png").stat().st_size > 5000


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("rows", [0, 7, 90])
def test_a_saved_detector_goes_on_to_the_same_numbers(tmp_path: Path, cell: str, rows: int) -> None:
    values, config = daily(160), replace(SMALL, cell=cell)
    unbroken = run(values, config)
    first = AnomalyDetector(config)
    times = [BEGIN + timedelta(hours=k) for k in range(len(values))]
    before = [first.step(t, v) for t, v in zip(times[:rows], values[:rows], strict=True)]
    save_detector(first, tmp_path / "state")
    again = load_detector(tmp_path / "state")
    assert again.config == config
    after = [again.step(t, v) for t, v in zip(times[rows:], values[rows:], strict=True)]
    assert before + after == unbroken


def test_a_picture_that_fails_leaves_the_stream(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = "\n".join(f"{BEGIN + timedelta(hours=k)},{k % 5}" for k in range(30))
    (tmp_path / "a.csv").write_text("timestamp,value\n" + rows)
    state, picture = tmp_path / "state", tmp_path / "a.png"
    words = ["detect", str(tmp_path / "a.csv"), "--state", str(state), "--plot"]
    assert cli.run([*words, str(tmp_path)]) == 2
    assert "is a folder, name a file" in capsys.readouterr().err

    def full(*_: object, **__: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("gatewise.models.series_plots.plot_anomalies", full)
        assert cli.run([*words, str(picture)]) == 2
    assert not state.exists()
    assert cli.run([*words, str(picture)]) == 0
    assert state.exists() and picture.exists()


def test_the_benchmark_by_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "data" / "a").mkdir(parents=True)
    lines = [f"{BEGIN + timedelta(hours=k)},{k % 3}" for k in range(40)]
    (tmp_path / "data" / "a" / "b.csv").write_text("\n".join(["timestamp,value", *lines]))
    limits = [str(BEGIN + timedelta(hours=k)) for k in (20, 24)]
    labels = tmp_path / "labels" / "combined_windows.json"
    labels.write_text(json.dumps({"a/b.csv": [limits]}))
    command = ["nab", str(tmp_path), "--detector", "null"]
    assert cli.run([*command, "--json"]) == 0

    def refused(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    found = json.loads(capsys.readouterr().out, parse_constant=refused)
    assert found["profiles"]["standard"]["threshold"] is None, "no alarm at all"
    assert cli.run([*command, "--plot", str(labels)]) == 2
    assert "is a file, name a folder" in capsys.readouterr().err
    assert cli.run(["nab", str(tmp_path), "--detector", "recurrent", "--seed", "-1"]) == 2
    assert "seed" in capsys.readouterr().err
    labels.write_text(json.dumps({"a/b.csv": []}))
    assert cli.run(command) == 2
    assert "no series has a window" in capsys.readouterr().err


def test_a_reader_that_leaves_takes_no_rows_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [f"{BEGIN + timedelta(hours=k)},{v}" for k, v in enumerate(daily(40))]
    (tmp_path / "a.csv").write_text("\n".join(["timestamp,value", *lines]))
    words = ["detect", str(tmp_path / "a.csv"), "--json", "--state"]
    assert cli.run([*words, str(tmp_path / "whole")]) == 0

    def gone(_: str) -> None:
        raise console.ReaderGone

    monkeypatch.setattr(console, "write", gone)
    assert cli.run([*words, str(tmp_path / "left")]) == 0
    whole, left = (load_detector(tmp_path / n) for n in ("whole", "left"))
    assert whole.time == left.time == BEGIN + timedelta(hours=39)


def test_a_stream_in_two_files(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    lines = [f"{BEGIN + timedelta(hours=k)},{v}" for k, v in enumerate(daily(80))]
    parts = {"all.csv": lines, "one.csv": lines[:50], "two.csv": lines[50:]}
    for name, part in parts.items():
        (tmp_path / name).write_text("\n".join(["timestamp,value", *part]))
    told = {}
    for name in parts:
        state = [] if name == "all.csv" else ["--state", str(tmp_path / "state")]
        assert cli.run(["detect", str(tmp_path / name), "--json", *state]) == 0
        told[name] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    both = told["one.csv"] + [{**r, "row": r["row"] + 50} for r in told["two.csv"]]
    assert both == told["all.csv"]
    again = ["detect", str(tmp_path / "two.csv"), "--state", str(tmp_path / "state")]
    assert cli.run(again) == 2
    assert "has seen the stream up to" in capsys.readouterr().err
    assert cli.run([*again, "--seed", "1"]) == 2
    assert "--seed is for a new stream" in capsys.readouterr().err


DAMAGE = {
    "cut off": lambda raw: raw[: len(raw) // 2],
    "nothing": lambda raw: b"",
    "something else": lambda raw: b"\x89PNG\r\n" * 100,
    "another format": lambda raw: raw.replace(FORMAT.encode(), FORMAT.encode()[:-1] + b"9"),
    "another size": lambda raw: raw.replace(b'\\"hidden_size\\": 8', b'\\"hidden_size\\": 9'),
    "another memory": lambda raw: raw.replace(b'\\"memory\\": 128', b'\\"memory\\": 999'),
    "no number": lambda raw: raw.replace(b'\\"last\\": 0.0', b'\\"last\\": NaN'),
    "no JSON": lambda raw: raw.replace(b'\\"last\\": 0.0', b'\\"last\\"; 0.0'),
    "another option": lambda raw: raw.replace(b'\\"quiet\\"', b'\\"quite\\"'),
    "another generator": lambda raw: raw.replace(b"PCG64", b"PCG65"),
    "a hostile cell": lambda raw: raw.replace(b'\\"gru\\"', b'\\"a:b\\"'),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_detectors_are_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "state"
    save_detector(AnomalyDetector(SMALL), path)
    raw = path.read_bytes()
    changed = DAMAGE[damage](raw)
    assert changed != raw
    path.write_bytes(changed)
    with pytest.raises(ValueError, match="is no detector, or damaged"):
        load_detector(path)
