"""The 1997 tables: what each row is, and that trials go through lanes as if each were alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gatewise.executors.lanes import Lanes
from gatewise.lab.curve import Curves
from gatewise.lab.experiment import Outcome, Progress, Work
from gatewise.lab.faithful import Bench, initial, network_of, run, task_of, without_cell
from gatewise.lab.paper1997 import EXPERIMENTS, READINGS, ROWS, Settings
from gatewise.lab.run import Options, plan
from gatewise.lab.store import Store
from gatewise.lab.table import select

NEVER = float("inf")
# Adding over a short lag, with a criterion that some trials meet soon and others do not.
SHORT = replace(
    ROWS["4-1"].settings,
    arguments={"length": 26},
    tolerance=0.3,
    window=30,
    error=0.03,
    look=20,
    test=64,
)


@pytest.mark.parametrize("row", ROWS)
def test_weight_counts_of_the_paper(row: str) -> None:
    settings = ROWS[row].settings
    assert network_of(settings, task_of(settings)).weights == ROWS[row].weights


# blocks x cells, α, range of the weights, biases of the input gates and of the output gates
NETWORKS = {
    "1-1": ("4x1", 0.1, 0.2, "rrrr", (-1, -2, -3, -4)),
    "1-2": ("3x2", 0.1, 0.2, "rrr", (-1, -2, -3)),
    "1-3": ("3x2", 0.2, 0.2, "rrr", (-1, -2, -3)),
    "1-4": ("4x1", 0.5, 0.2, "rrrr", (-1, -2, -3, -4)),
    "1-5": ("3x2", 0.5, 0.2, "rrr", (-1, -2, -3)),
    "2a": ("1x1", 1.0, 0.2, "", ()),
    "2b": ("1x1", 1.0, 0.2, "", ()),
    **{f"2c-{k}": ("2x1", 0.01, 0.2, "", ()) for k in range(1, 10)},
    **{
        name: ("3x1", 0.1 if "c" in name else 1.0, 0.1, (-1, -3, -5), (-2, -4, -6))
        for name in ("3a-1", "3a-2", "3a-3", "3b-1", "3b-2", "3b-3", "3c-1", "3c-2")
    },
    **{f"4-{k}": ("2x2", 0.5, 0.1, (-3, -6), "rr") for k in (1, 2, 3)},
    **{f"5-{k}": ("2x2", 0.1, 0.1, "rr", "rr") for k in (1, 2)},
    "6a": ("2x2", 0.5, 0.1, (-2, -4), "rr"),
    "6b": ("3x2", 0.1, 0.1, (-2, -4, -6), "rrr"),
}


@pytest.mark.parametrize("row", ROWS)
def test_networks_begin_as_the_paper_says(row: str) -> None:
    shape, rate, spread, inputs, outputs = NETWORKS[row]
    s = ROWS[row].settings
    assert f"{s.blocks}x{s.size}" == shape and s.rate == rate
    network = network_of(s, task_of(s))
    draws = [initial(s, network, Work(0, 0, 8, 1), trial) for trial in range(8)]
    every = {n: torch.stack([d[n] for d in draws]) for n in draws[0]}
    bias = every.pop("bias", None)
    free = torch.cat([v.flatten() for v in every.values()])
    assert free.abs().max() <= spread
    assert free.abs().max() > 0.98 * spread and abs(free.mean()) < 0.1 * spread
    if bias is None:
        assert not inputs and not outputs
        return
    for given, rows in ((inputs, bias[:, : s.blocks]), (outputs, bias[:, -s.blocks :])):
        if isinstance(given, str):
            assert rows.abs().max() <= spread and rows.std() > 0.3 * spread
        else:
            assert (rows == torch.tensor(given)).all()


# tolerance, window or test sequences, most wrong ones, bound on the mean error, limit / mean
CRITERIA = {
    **{f"1-{k}": (0.5, "512 test", 0, NEVER) for k in range(1, 6)},
    **dict.fromkeys(("2a", "2b"), (0.25, 10000, 0, NEVER)),
    **{f"2c-{k}": (0.2, 10_000, 0, NEVER) for k in range(1, 10)},
    **{f"3a-{k}": (0.2, "256 test", 0, 0.01) for k in (1, 2, 3)},
    **{f"3b-{k}": (0.2, "256 test", 5, 0.04) for k in (1, 2, 3)},
    **{f"3c-{k}": (0.1, "256 test", 0, 0.015) for k in (1, 2)},
    **{f"4-{k}": (0.04, 2000, 0, 0.01) for k in (1, 2, 3)},
    "5-1": (0.04, 2000, 139, NEVER),
    "5-2": (0.04, 2000, 12, NEVER),
    "6a": (0.3, 2000, 0, 0.1),
    "6b": (0.3, 2000, 0, 0.1),
}


@pytest.mark.parametrize("row", ROWS)
def test_criteria_and_limits(row: str) -> None:
    s = ROWS[row].settings
    on = f"{s.judged_on} test" if s.judged_on else s.window
    assert CRITERIA[row] == (s.tolerance, on, s.most_wrong, s.error)
    assert ROWS[row].limit >= 4.5 * ROWS[row].sequences
    assert s.test == (512 if row.startswith("1") else 2560)


def test_every_row_is_an_experiment_and_every_reading_differs_in_one_thing() -> None:
    found = {e.name: e for e in EXPERIMENTS}
    assert len(found) == len(EXPERIMENTS)
    for name, row in ROWS.items():
        assert found[name].trials == row.trials and found[name].settings == row.settings
    for reading in READINGS:
        a, b = found[f"4-1-{reading}"].settings, found["4-1"].settings
        assert sum(getattr(a, f) != getattr(b, f) for f in b.__dataclass_fields__) == 1
        assert found[f"4-1-{reading}"].published == found["4-1"].published
    network = network_of(found["2c-1-carousel"].settings, task_of(found["2c-1-carousel"].settings))
    assert network.weights == 6 * 54 + 2 * 2  # two cells and four gates see 54 inputs only


def outcomes(settings: Settings, work: Work) -> dict[int, Outcome]:
    found = [o for o in run(settings, work) if isinstance(o, Outcome)]
    assert len(found) == work.count
    return {o.trial: o for o in found}


def test_trials_end_as_if_each_were_alone() -> None:
    together = outcomes(SHORT, Work(3, 0, 20, 500))
    assert 2 < sum(o.success for o in together.values()) < 20
    for trial in (0, 7, 16, 19):
        assert outcomes(SHORT, Work(3, trial, 1, 500))[trial] == together[trial]
    for o in together.values():
        assert o.success or o.sequences == 500
        assert o.numbers["test_count"] == 64 and 0 <= o.numbers["test_wrong"] <= 64


def test_goes_on_from_any_state_to_the_same_outcomes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatewise.lab.faithful._EVERY", 0.0)  # a state after every look
    work = Work(3, 0, 18, 300)
    whole = list(run(SHORT, work))
    ended = [e for e in whole if isinstance(e, Outcome)]
    states: list[Any] = []
    for event in run(SHORT, work):
        if isinstance(event, Progress):
            assert 0 <= event.done <= 1 and event.state is not None
            states.append(event.state())
    assert len(states) > 10
    for at in (1, len(states) // 2, len(states) - 1):
        again = [e for e in run(SHORT, replace(work, state=states[at])) if isinstance(e, Outcome)]
        assert again == ended[len(ended) - len(again) :]


def test_the_papers_trials_are_jobs_for_several_cores(tmp_path: Path) -> None:
    """At most a vector's lanes each; the trials of one training set stay together."""

    def jobs(name: str) -> list[tuple[int, int]]:
        [experiment] = select([name])
        with Store(tmp_path / "lab.sqlite") as store:
            return [(j.work.first, j.work.count) for j in plan(experiment, store, Options())]

    assert jobs("2b") == [(0, 9), (9, 9)]
    assert jobs("1-1") == [(0, 10), (10, 10), (20, 10)]
    assert jobs("4-1") == [(0, 10)]


def test_success_is_counted_where_the_paper_counts_it() -> None:
    easy = replace(SHORT, tolerance=10.0, error=NEVER)
    assert outcomes(easy, Work(0, 0, 1, 500))[0].sequences == 30
    without = replace(easy, window_counts=False)
    assert outcomes(without, Work(0, 0, 1, 500))[0].sequences == 0
    tested = outcomes(replace(easy, judged_on=40), Work(0, 0, 1, 500))[0]
    assert tested.success and tested.sequences == easy.look
    strict = replace(easy, judged_on=40, error=1e-9, measure="absolute")
    failed = outcomes(strict, Work(0, 0, 1, 100))[0]
    assert not failed.success and failed.numbers["first_criterion_at"] == easy.look


def test_trials_of_a_set_share_it() -> None:
    settings = replace(ROWS["1-1"].settings, look=20)
    tasks = [task_of(settings, trial) for trial in (0, 9, 10)]
    assert tasks[0].parameters == tasks[1].parameters != tasks[2].parameters
    across = outcomes(settings, Work(0, 9, 2, 40))
    assert across[10] == outcomes(settings, Work(0, 10, 1, 40))[10]


def grown(bench: Bench) -> Iterator[bool]:
    while True:
        list(bench.step())
        yield not bool(bench.absent.any())


def test_the_cell_of_2a_comes_when_the_error_has_stopped_decreasing() -> None:
    settings = replace(ROWS["2a"].settings, arguments={"lag": 5}, test=8)
    work = Work(0, 0, 2, 5000)
    bench = Bench(settings, work, range(2))
    fresh = [initial(settings, bench.network, work, k) for k in range(2)]
    for done in grown(bench):
        now = bench.lanes.parameters()
        for k in range(2):
            there = not bool(bench.absent[k])
            assert bool((now["weight_ih"][k] == fresh[k]["weight_ih"]).all()) <= there
            assert there or (now["weight_ih"][k] == -1e4).all()
            assert there or not now["head_weight"][k].any()
        if done:
            break
    assert bench.grown.min() > settings.look and bench.lanes.number[0] < 5000


def test_a_network_without_its_cell_is_one_layer() -> None:
    settings = replace(ROWS["2a"].settings, arguments={"lag": 5})
    task = task_of(settings)
    network = network_of(settings, task)
    lanes = Lanes(network, 1, 1.0, task, dtype=torch.float64)
    start = initial(settings, network, Work(0, 0, 1, 1), 0)
    lanes.load(without_cell(start))
    w = start["head_input"].double().requires_grad_()
    given = task.sequences(4, dtype=torch.float64)
    for b in range(4):
        x, target = (
            torch.nn.functional.one_hot(v[:, b], 6).double() for v in (given.x, given.target)
        )
        loss = 0.5 * (target - (x @ w.T).sigmoid()).square().sum()
        (gradient,) = torch.autograd.grad(loss, w)
        w = (w - gradient).detach().requires_grad_()
    lanes.train(4)
    torch.testing.assert_close(lanes.parameters()["head_input"][0], w.detach())


def test_curves_keep_evenly_spaced_points() -> None:
    curves = Curves(2)
    for n in range(1000):
        curves.add(0, n, n / 7)
    points = curves.of(0)
    assert points == tuple((n, n / 7) for n in range(0, 1000, 8))
    assert curves.of(1) == ()
