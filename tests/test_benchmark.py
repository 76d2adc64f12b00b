"""The benchmark: its suites are well-formed, its statistics right, a wrong peer is caught.

Nothing here asserts a time.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from gatewise import benchmark
from gatewise.benchmark import Budget, Case, Runner, Shape, machine, probes, report
from gatewise.benchmark.case import Contest, PeerMissingError, Probed, Timed
from gatewise.benchmark.peers import PEERS, flops, prepare
from gatewise.benchmark.report import Row
from gatewise.benchmark.runner import Measurement, Spread, check_equal, measure, summarise
from gatewise.benchmark.suites import SUITES
from gatewise.cells import REGISTRY
from gatewise.cli import run

TINY = Shape(7, 3, 4, 8)
BASE = Shape(4, 2, 4, 8)
BRIEF = Budget(seconds=0.0, least=2, most=2, shortest=0.0)
IN_PROCESS = [
    "nn.LSTM",
    "nn.GRU",
    "nn.RNN",
    "bidirectional nn.LSTM",
    "packed nn.LSTM",
    "split nn.LSTM",
    "loop",
    "nn.LSTM step",
    "nn.LSTMCell",
    "onnxruntime",
    "jax.lax.scan",
    "torchrecurrent",
    "same layer",
    "nn.LSTM in turn",
    "nn.GRU in turn",
    "nn.RNN in turn",
    "same layers in turn",
]


class Watch:
    """A clock that moves only when work is done."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def timed(self, seconds: list[float], units: int = 1) -> Timed:
        """Work that takes so long at its first, second … call, and then as at the last one."""
        left = list(seconds)

        def work() -> None:
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return Timed(work, dict, units)


def tiny(case: Case) -> Case:
    """The same case, small enough for a test."""
    if case.suite == "stream":
        return dataclasses.replace(case, shape=Shape(1, 1, 8, 8))
    options = case.options | ({"base": BASE} if "base" in case.options else {})
    return dataclasses.replace(case, shape=TINY, options=options)


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if nothing else ran, and as if the rate of the machine were known."""
    monkeypatch.setattr(machine, "load", lambda: 0.0)
    monkeypatch.setattr(report, "sgemm_rate", lambda: 1e9)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_suites_are_well_formed() -> None:
    cases = benchmark.select("all")
    rows = [(c.suite, c.cell, c.peer, c.title, c.shape) for c in cases]
    assert len(set(rows)) == len(rows)
    for suite, own in SUITES.items():
        assert own, suite
        assert any(c.quick for c in own) or suite == "cells", suite
    for case in cases:
        assert SUITES[case.suite].count(case) == 1
        assert case.peer in PEERS
        assert case.cell in REGISTRY
        assert min(case.shape) > 0
        assert case.target is None or case.target > 0
    assert {c.peer for c in cases} == PEERS.keys()
    assert {c.cell for c in cases} >= REGISTRY.keys()


@pytest.mark.parametrize("peer", IN_PROCESS)
def test_a_peer_computes_what_ours_does(peer: str) -> None:
    found = [tiny(c) for c in benchmark.select("all") if c.peer == peer]
    for case in {c.work: c for c in reversed(found)}.values():  # the first of each work
        try:
            contest = prepare(case)
        except PeerMissingError as error:
            pytest.skip(str(error))
        ours = contest.ours.results()
        gradients = case.training and peer != "same layer"  # there, of different losses
        assert ours.keys() > {"output"} if gradients else ours.keys() == {"output"}
        check_equal(ours, contest.peer.results())
        assert contest.flops > 0


@pytest.mark.parametrize("work", ["inference", "step", "training"])
@pytest.mark.parametrize("held", ["bf16", "int8"])
def test_what_rounded_weights_cost_is_measured(held: str, work: str, idle: None) -> None:
    if (held, work) == ("int8", "training"):
        pytest.skip("int8 is for inference")
    shape = Shape(1, 1, 8, 8) if work == "step" else TINY
    case = Case("weights", "full weights", shape, work, looseness=math.inf, held=held)
    [row] = Runner(BRIEF, 1).run([case])
    assert row.measured is not None
    apart = row.measured.deviation
    assert apart is not None
    assert 1e-4 < apart.rms < apart.largest < 0.1
    assert row.to_json()["deviation"] == {"rms": apart.rms, "largest": apart.largest}
    full = dataclasses.replace(case, held="full")
    [row] = Runner(BRIEF, 1).run([full])
    assert row.measured is not None
    assert row.measured.deviation == benchmark.Deviation(0.0, 0.0)


def test_a_deviation_is_relative_to_the_peer() -> None:
    peer = torch.tensor([3.0, -4.0, 3.0, -4.0])
    ours = peer + torch.tensor([0.0, 0.0, 0.0, 1e-5])
    found = check_equal({"output": ours}, {"output": peer})
    assert found is not None
    assert found.rms == pytest.approx(1e-5 / 2 / 12.5**0.5, rel=0.05)  # roundings of 4 + 1e-5
    assert found.largest == pytest.approx(2 * found.rms)


def grown(size: dict[str, int], ratio: float, work: str = "training") -> Row:
    """A row of the scaling suite with that ratio."""
    base = Shape(100, 16, 64, 64)
    case = Case("scaling", "same layer", base._replace(**size), work, options={"base": base})
    return Row(case, 1, measured=measured(ratio))


def measured(ratio: float) -> Measurement:
    return summarise([(1.0, ratio)])


def test_growth_is_fitted_through_the_smallest_call() -> None:
    # Ratios of time per element: 1 is exactly T, B or H².
    rows = [grown({"T": 200}, 1.0), grown({"T": 1600}, 1.0), grown({"B": 64}, 0.5)]
    rows += [grown({"H": 64 * n, "I": 64 * n}, float(n), "inference") for n in (2, 4)]
    rows += [Row(rows[0].case, 1, error="different")]  # not measured: no point of the fit
    time, batch, width = benchmark.Report({}, rows).growth()
    assert (time.axis, time.exponent, time.largest) == ("T", pytest.approx(1.0), 1600)
    assert (batch.axis, batch.exponent) == ("B", pytest.approx(1.5))  # 4 rows cost 8 times as much
    assert (width.axis, width.exponent) == ("H", pytest.approx(1.0))
    assert str(width) == "inference: time ~ H^1.00, 64…256"


@pytest.mark.parametrize("wrong", ["weights", "no number", "another name", "another shape"])
def test_a_wrong_peer_is_caught(wrong: str, idle: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(case: Case) -> Contest:
        contest = prepare(dataclasses.replace(case, peer="nn.GRU"))

        def results() -> dict[str, torch.Tensor]:
            right = contest.peer.results()["output"]
            return {
                "weights": {"output": right * 1.0001},
                "no number": {"output": right * float("nan")},
                "another name": {"output": right, "h": right},
                "another shape": {"output": right[:-1]},
            }[wrong]

        assert isinstance(contest.peer, Timed)
        return dataclasses.replace(contest, peer=dataclasses.replace(contest.peer, results=results))

    monkeypatch.setitem(PEERS, "wrong", build)
    [row] = Runner(BRIEF, 1).run([Case("layers", "wrong", TINY, cell="gru", target=1.0)])
    assert row.error
    assert row.measured is None
    assert row.reached is None
    assert benchmark.Report({}, [row]).failed == [row]
    assert row.to_json()["error"] == row.error


def test_statistics_on_a_fake_clock() -> None:
    watch = Watch()
    # The first call calibrates; then one sample per pair.
    contest = Contest(watch.timed([9, 2, 2, 4, 2, 2]), watch.timed([9, 4, 6, 20, 8, 2]))
    found = measure(contest, Budget(0, 5, 5, 0), watch)
    assert found.pairs == 5
    assert found.ours == Spread(minimum=2, q1=2, median=2, q3=2)
    assert found.peer == Spread(minimum=2, q1=4, median=6, q3=8)
    assert found.ratio == Spread(minimum=1, q1=2, median=3, q3=4)  # of pairs: 2, 3, 5, 4, 1


def test_short_calls_are_put_together_and_divided_by_units() -> None:
    watch = Watch()
    sample = watch.timed([0.5], units=10).sampler(shortest=2.0, clock=watch)
    before = watch.now
    assert sample() == pytest.approx(0.05)
    assert watch.now - before == pytest.approx(5 * 0.5)  # one before the clock, four timed


def test_a_budget_ends_by_time_but_not_before_the_least_pairs() -> None:
    watch = Watch()
    contest = Contest(watch.timed([1.0]), watch.timed([3.0]))
    assert measure(contest, Budget(20, 2, 100, 0), watch).pairs == 5
    assert measure(contest, Budget(20, 7, 100, 0), watch).pairs == 7
    assert measure(contest, Budget(20, 2, 3, 0), watch).pairs == 3
    fixed = dataclasses.replace(contest, rounds=2)
    assert measure(fixed, Budget(20, 7, 100, 0), watch).pairs == 2


def test_probes_alternate() -> None:
    order: list[str] = []

    def probed(name: str, value: float) -> Probed:
        return Probed(lambda: order.append(name) or value)

    found = measure(Contest(probed("a", 2.0), probed("b", 1.0), unit="MB", rounds=2), BRIEF)
    assert order == ["a", "b", "a", "b"]
    assert found.ratio.median == 0.5


def test_operations_of_a_layer() -> None:
    t, b, i, h = TINY
    once = 2 * t * b * h * (i + h)
    assert flops(Case("", "", TINY)) == 4 * once
    assert flops(Case("", "", TINY, "training")) == 4 * 2 * t * b * h * (2 * i + 3 * h)
    assert flops(Case("", "", TINY, "training dx")) == 3 * 4 * once
    assert flops(Case("", "", TINY, cell="gru")) == 3 * once
    assert flops(Case("", "", TINY, cell="gru-reset-before")) == 3 * once
    assert flops(Case("", "", TINY, cell="lstm-1997")) == 3 * 2 * t * b * h * (i + 3 * h)


def test_memory_is_that_of_one_step() -> None:
    shape = Shape(500, 16, 16, 32)
    try:
        found = prepare(Case("memory", "nn.LSTM memory", shape, "training"))
    except PeerMissingError as error:
        pytest.skip(str(error))
    output = shape.T * shape.B * shape.H * 4 / 1e6  # megabytes
    assert isinstance(found.ours, Probed)
    # The output, its gradient, and what is kept for backward.
    assert 3 * output < found.ours.probe() < 60 * output


def test_checkpoints_leave_less_to_hold() -> None:
    case = Case("memory", "nn.LSTM memory", Shape(4000, 8, 8, 32), "training")
    try:
        kept = prepare(case)
        cut = prepare(dataclasses.replace(case, options={"checkpoint": True}))
    except PeerMissingError as error:
        pytest.skip(str(error))
    assert isinstance(kept.ours, Probed)
    assert isinstance(cut.ours, Probed)
    assert cut.ours.probe() < 0.7 * kept.ours.probe()


def test_a_failing_probe_is_named() -> None:
    with pytest.raises(PeerMissingError, match="ZeroDivisionError"):
        probes._run("1 / 0")


@pytest.fixture
def small_suites(monkeypatch: pytest.MonkeyPatch, idle: None) -> None:
    for name in ("stream", "layers"):
        chosen = [tiny(c) for c in SUITES[name] if c.peer in ("nn.LSTM", "nn.LSTMCell")][:2]
        monkeypatch.setitem(SUITES, name, chosen)


def call(*args: object) -> int:
    return run(["bench", *map(str, args)])


def test_the_command_writes_json_and_a_picture(
    small_suites: None, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    files = ("--json", tmp_path / "x.json", "--plot", tmp_path / "x.png")
    assert call("--quick", "--suite", "stream", "--threads", 1, *files) == 0
    told = capsys.readouterr()
    assert "nn.LSTMCell" in told.out
    assert told.err == ""
    found = json.loads((tmp_path / "x.json").read_text())
    assert found["header"]["threads"] == 1
    assert {"torch", "compiler", "processor", "load", "sgemm_gflops"} <= found["header"].keys()
    row = found["rows"][0]
    assert (row["T"], row["B"], row["I"], row["H"]) == (1, 1, 8, 8)
    assert (row["unit"], row["against"]) == ("us", "nn.LSTMCell")
    assert row["ours"]["minimum"] <= row["ours"]["median"] <= row["ours"]["q3"]
    assert row["reached"] == (row["ratio"]["median"] >= row["target"])
    assert row["weight_bytes"] == 4 * 4 * (8 * 8 * 2 + 8 * 2)
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_the_help_names_every_suite(capsys: pytest.CaptureFixture) -> None:
    assert call("--help") == 0
    shown = capsys.readouterr().out
    assert not [name for name in SUITES if name not in shown]


def test_json_on_stdout(small_suites: None, capsys: pytest.CaptureFixture) -> None:
    assert call("--quick", "--suite", "stream", "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["rows"]


def test_results_are_kept_by_date_and_never_replaced(
    small_suites: None, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: Any
) -> None:
    monkeypatch.setattr("gatewise.benchmark.FULL", BRIEF)
    assert call("--suite", "stream,layers", "--keep", tmp_path) == 0
    day = machine.environment()["date"]
    assert {p.name for p in tmp_path.iterdir()} == {
        f"{day}-{suite}.{kind}" for suite in ("stream", "layers") for kind in ("json", "png")
    }
    capsys.readouterr()
    assert call("--suite", "layers", "--keep", tmp_path) == 2
    assert "results are kept, not replaced" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--suite", "nonsense"], "suite must be one of layers"),
        (["--threads", "0"], "threads must be between"),
        (["--threads", "many"], "'--threads'"),
        (["--json", "{tmp}/no/x.json"], "no folder"),
        (["--plot", "{tmp}/no/x.png"], "no folder"),
        (["--keep", "{tmp}/no"], "no folder"),
        (["--quick", "--keep", "{tmp}"], "results are not kept: a quick run"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    args: list[str], message: str, idle: None, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert call(*(a.format(tmp=tmp_path) for a in args)) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert message in told.err


def test_a_busy_machine_keeps_nothing(
    idle: None, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: Any
) -> None:
    monkeypatch.setattr(machine, "load", lambda: 100.0)
    assert call("--keep", tmp_path) == 2
    assert "the machine is busy (load 100.0" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
