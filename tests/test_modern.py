"""The modern track: what is asked, how big a network is, how a trial goes on and ends."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from gatewise.lab.experiment import Outcome, Progress, Work
from gatewise.lab.families import FAMILIES
from gatewise.lab.modern import EXPERIMENTS, TRACK, trial
from gatewise.lab.modern.fleet import Fleet
from gatewise.lab.modern.network import make_network
from gatewise.lab.modern.trial import Recipe, Settings, Trial
from gatewise.lab.objective import Asked, draw, loss_and_errors, numbers
from gatewise.learning import BPTT
from gatewise.tasks import adding, parity, spike_delays, temporal_order

SMALL = Settings("parity", 8, hidden=8, further=(16,), recipe=Recipe(decay=1e9))


def outcomes(settings: Settings, work: Work) -> list[Outcome]:
    found = [e for e in TRACK.run(settings, work) if isinstance(e, Outcome)]
    assert len(found) == work.count
    return sorted(found, key=lambda o: o.trial)


# -- what is asked ---------------------------------------------------------------------------


def test_loss_and_errors_of_classes_at_asked_steps() -> None:
    task = parity(3)
    target = torch.tensor([[0, 1], [-1, 1], [1, 0]])
    output = torch.randn(3, 2, 2)
    given = Asked(torch.zeros(3, 2, dtype=torch.int64), torch.tensor([3, 2]), target)
    loss, errors = loss_and_errors(task, output, given)
    asked = [(0, 0), (2, 0), (0, 1), (1, 1)]
    each = [cross_entropy(output[t, b], target[t, b]) for t, b in asked]
    torch.testing.assert_close(loss, torch.stack(each).mean())
    missing = {at: 1 - output[at].softmax(-1)[target[at]] for at in asked}
    for b in range(2):
        worst = max(float(v) for (_, row), v in missing.items() if row == b)
        assert float(errors[b, 0]) == pytest.approx(worst, rel=1e-5)


def test_loss_and_errors_of_numbers() -> None:
    nan = math.nan
    target = torch.tensor([[[nan]], [[2.0]], [[nan]], [[9.0]]])
    given = Asked(torch.zeros(4, 1, 1), torch.tensor([3]), target)
    loss, errors = loss_and_errors(spike_delays(5), torch.full((4, 1, 1), 0.5), given)
    assert float(loss) == 2.25 and errors.tolist() == [[1.5]]
    ends = Asked(torch.zeros(4, 2, 2), torch.tensor([4, 4]), torch.tensor([[1.0], [0.0]]))
    loss, errors = loss_and_errors(adding(100), torch.tensor([[0.5], [0.0]]), ends)
    assert float(loss) == 0.125 and errors.tolist() == [[0.5], [0.0]]


def test_errors_of_a_ranked_task() -> None:
    output = torch.tensor([[[0.1, 0.9, 0.5]], [[0.9, 0.1, 0.5]], [[9.0, 9.0, 0.0]]])
    target, lengths = torch.tensor([[1], [0], [2]]), torch.tensor([2])
    for possible, wrong in (([[6], [1], [4]], 0), ([[6], [3], [4]], 1), ([[4], [1], [4]], 1)):
        given = Asked(target, lengths, target, torch.tensor(possible))
        loss, errors = loss_and_errors(parity(3), output, given)
        assert (errors > 0.5).tolist() == [[wrong == 1]] and 0 < errors < 1
        torch.testing.assert_close(loss, cross_entropy(output[:2, 0], target[:2, 0]))
        _, errors = loss_and_errors(parity(3), output * math.nan, given)
        assert errors.isnan().all()  # which a judge takes for wrong


def test_symbols_are_one_hot() -> None:
    task = temporal_order(2, 50)
    given = draw(task, 3, seed=0)
    x = numbers(task, given)
    assert x.shape == (*given.x.shape, 8) and torch.equal(x.argmax(-1), given.x)
    assert torch.equal(x.sum(-1), torch.ones_like(given.x).float())


# -- how big a network is --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "layers", "units"),
    [
        # 4·8·(2 + 8 + 2) = 384 weights
        ("lstm", 1, lambda h: 4 * h * (2 + h + 2)),
        ("rnn", 1, lambda h: h * (2 + h + 2)),
        ("gru", 1, lambda h: 3 * h * (2 + h + 2)),
        ("lstm-peephole", 1, lambda h: 4 * h * (2 + h + 2) + 3 * h),
        ("mingru", 2, lambda h: 2 * h * (2 + 1) + 2 * h * (h + 1)),
    ],
)
def test_layers_have_equal_numbers_of_weights(cell: str, layers: int, units: Any) -> None:
    before = torch.get_rng_state()
    net = make_network(adding(100), cell, 8, layers, 110, ())
    width = net.layer.output_size
    assert units(width) <= 384 < units(width + 1)
    assert sum(p.numel() for p in net.layer.parameters()) == units(width)
    torch.set_rng_state(before)
    again = make_network(adding(100), cell, 8, layers, 110, ())
    for a, b in zip(net.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_transformer_has_no_more_weights() -> None:
    net = make_network(adding(100), "transformer", 32, 2, 110, ("orthogonal", "chrono"))
    assert 0.5 * 4608 < sum(p.numel() for p in net.layer.parameters()) <= 4608
    with pytest.raises(ValueError, match="hidden must be larger for transformer: 128 weights"):
        make_network(adding(100), "transformer", 4, 2, 110, ())


def test_a_cell_goes_without_the_initialisation_it_cannot_have() -> None:
    init = ("orthogonal", "chrono")
    net = make_network(adding(100), "rnn", 8, 1, 110, init)
    u = net.layer.get_parameter("weight_hh_l0")
    torch.testing.assert_close(u @ u.T, torch.eye(len(u)), rtol=0, atol=1e-5)
    net = make_network(adding(100), "mingru", 8, 1, 110, init)
    bias = net.layer.get_parameter("bias_l0")[: net.layer.output_size]
    assert (bias <= 0).all() and bias.min() < -1.5  # -ln u, u in [1, 109]


# -- how a trial goes ------------------------------------------------------------------------


def test_lengths_climb_by_doubling() -> None:
    assert Settings("adding", 1000).lengths == [50, 62, 125, 250, 500, 1000]
    assert Settings("adding", 50).lengths == [50]
    assert Settings("adding", 1000, recipe=Recipe(latest=0)).lengths == [1000]


def test_a_trial_learns_and_is_tested() -> None:
    [found] = outcomes(SMALL, Work(0, 0, 1, 20_000))
    assert found.success and found.sequences < 20_000
    n = found.numbers
    assert n["length"] == 8 and n["test_wrong"] <= 0.01 * n["test_count"] == 25.6
    assert n["right_at_16"] > 0.9
    assert found.curve[0][1] > 0.2 > found.curve[-1][1]


def test_reach_decides() -> None:
    impossible = replace(SMALL, hidden=4, further=(16, 400), reach=400, series="reach")
    [found] = outcomes(impossible, Work(0, 0, 1, 6_000))
    assert not found.success


def test_a_network_learns_on_until_it_reaches_further(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two that met the rule, the one that must be right at another length is not done yet."""
    [soon] = outcomes(SMALL, Work(0, 0, 1, 20_000))
    tried: list[int] = []
    whole = Trial.test

    def counted(self: Trial, task: Any, count: int, purpose: int = 1) -> tuple[int, float]:
        found = whole(self, task, count, purpose)
        tried.extend([found[0]] * (purpose == 3))
        return found if purpose != 3 or len(tried) > 1 else (count, 1.0)

    monkeypatch.setattr(Trial, "test", counted)
    [later] = outcomes(replace(SMALL, reach=16), Work(0, 0, 1, 20_000))
    assert len(tried) >= 2 and tried[-1] <= 2  # of 200
    assert later.success and later.sequences >= soon.sequences + 2000


@pytest.mark.parametrize("detach", [0.0, 0.25])
def test_interrupted_trials_end_as_unbroken_ones(
    detach: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "_SECONDS", 0.0)  # progress at every update
    settings = replace(SMALL, recipe=replace(SMALL.recipe, detach=detach))
    work = Work(3, 1, 2, 40 * 32)
    whole = outcomes(settings, work)
    for stop in (1, 17, 33):
        run = TRACK.run(settings, work)
        progress = [e for _, e in zip(range(stop), run, strict=False)][-1]
        assert isinstance(progress, Progress) and progress.state is not None
        assert outcomes(settings, replace(work, state=progress.state())) == whole


@pytest.mark.parametrize("cell", ["lstm", "transformer"])
def test_trials_side_by_side_are_as_alone(cell: str) -> None:
    settings = replace(SMALL, cell=cell, hidden=12)
    work = Work(0, 0, 3, 50 * 32)
    together = outcomes(settings, work)
    alone = [o for k in range(3) for o in outcomes(settings, replace(work, first=k, count=1))]
    assert together == alone
    assert len({o.numbers["test_error"] for o in together if "test_error" in o.numbers}) != 1


def test_what_became_of_a_trial_is_told_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_SECONDS", 0.0)  # progress at every update
    settings = Settings("parity", 4, hidden=8, test=32)
    events = list(TRACK.run(settings, Work(0, 0, 3, 20_000)))
    told = [e for e in events if isinstance(e, Outcome)]
    assert [o.sequences for o in told] == sorted({o.sequences for o in told})
    between = events[events.index(told[0]) : events.index(told[-1])]
    assert sum(isinstance(e, Progress) for e in between) >= 10  # the others learnt on


def test_trials_that_are_left_go_on_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings("parity", 4, hidden=8, test=32)
    work = Work(0, 0, 3, 20_000)
    together = outcomes(settings, work)
    assert len({o.sequences for o in together if o.success}) == 3  # one after the other
    monkeypatch.setattr(trial, "_AT_ONCE", 2 * 4 * 32 * 8)  # now two in a call, and the third
    assert outcomes(settings, work) == together
    alone = [o for k in range(3) for o in outcomes(settings, replace(work, first=k, count=1))]
    assert alone == together


def test_a_fleet_steps_as_adam_with_clipped_gradients() -> None:
    nets = [make_network(adding(100), "lstm", 4, 1, 110, ()) for _ in range(3)]
    plain = copy.deepcopy(nets)
    adams = [torch.optim.Adam(n.parameters(), betas=(0.9, 0.99)) for n in plain]
    fleet = Fleet(nets, (0.9, 0.99), together=2)
    given = draw(adding(100), 4, seed=0)
    for number in (1, 2, 3):
        if number == 3:
            fleet = Fleet(nets[:2], (0.9, 0.99), together=2)
        for part in fleet.parts:
            count = len(part.nets)
            outputs = part([given.x] * count, [given.lengths] * count, [BPTT()] * count)
            torch.stack([(y - given.target).square().mean() for y in outputs]).sum().backward()
        fleet.step(number, 0.01 * number, clip=0.05)
        for net, adam in list(zip(plain, adams, strict=True))[: 2 if number == 3 else 3]:
            adam.zero_grad()
            (net(given.x, given.lengths) - given.target).square().mean().backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 0.05)
            adam.param_groups[0]["lr"] = 0.01 * number
            adam.step()
    for ours, theirs in zip(nets, plain, strict=True):
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)
    assert not torch.equal(nets[0].head.weight, nets[1].head.weight)


@pytest.mark.parametrize("cell", ["lstm", "gru", "mingru"])
def test_the_answer_is_that_of_the_last_step(cell: str) -> None:
    net = make_network(adding(100), cell, 8, 2, 110, ())
    given = draw(adding(100), 5, seed=0)
    seen = net.layer(given.x, lengths=given.lengths)[0]
    last = seen[given.lengths - 1, torch.arange(5)]
    torch.testing.assert_close(net(given.x, given.lengths), net.head(last), rtol=1e-6, atol=1e-6)


def test_trials_and_series_have_their_own_numbers() -> None:
    made = [Trial(SMALL, Work(0, 0, 3, 64), k).net.head.weight for k in (0, 0, 1)]
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])
    short = Work(0, 0, 1, 64)
    one, other = (outcomes(replace(SMALL, series=s), short) for s in ("data", "search"))
    assert one[0].numbers.keys() == other[0].numbers.keys()
    searches = [e for e in EXPERIMENTS if "search" in e.tags]
    assert searches and all(e.settings.series == "search" for e in searches)
    assert all(e.settings.series == "data" for e in EXPERIMENTS if e not in searches)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "sums", "length": 9}, "task must be one of reber, .*got 'sums'"),
        ({"task": "adding", "length": 100, "reach": 200}, r"reach must be one of further = \(\)"),
    ],
)
def test_errors_name_what_is_wrong(settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**settings)


# -- the table -------------------------------------------------------------------------------


def test_families_start_where_their_tasks_do() -> None:
    for family in FAMILIES.values():
        assert family.make(family.first).sequences(2).lengths.min() >= 1
