"""The benchmark: its suites are well-formed, its statistics right, a wrong peer is caught.

Nothing here asserts a time.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from gatewise import benchmark
from gatewise.benchmark import Budget, Case, Runner, Shape, machine, probes, report
from gatewise.benchmark.case import Contest, PeerMissingError, Probed, Timed
from gatewise.benchmark.peers import PEERS, flops, prepare
from gatewise.benchmark.runner import Spread, check_equal, measure
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
    rows = [(c.suite, c.cell, c.peer, c.work, c.shape) for c in cases]
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
    assert row["unit"] == "us"
    assert row["ours"]["minimum"] <= row["ours"]["median"] <= row["ours"]["q3"]
    assert row["reached"] == (row["ratio"]["median"] >= row["target"])
    assert row["weight_bytes"] == 4 * 4 * (8 * 8 * 2 + 8 * 2)
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


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
