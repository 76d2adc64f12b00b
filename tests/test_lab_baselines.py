"""Baselines against what they are by definition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from gatewise.executors.lanes import Criterion
from gatewise.lab import benchmarks, families
from gatewise.lab.baselines import guessing, hmm, online, search
from gatewise.lab.baselines.cells import DelayedRNN, LeakyContext
from gatewise.lab.baselines.guessing import Guess
from gatewise.lab.baselines.hmm import Hidden
from gatewise.lab.baselines.models import MODELS, Candidate, RecurrentModel, WindowModel
from gatewise.lab.baselines.online import Online
from gatewise.lab.baselines.search import Search
from gatewise.lab.baselines.stack import Stack
from gatewise.lab.baselines.vanishing import vanishing
from gatewise.lab.claims import EXPERIMENTS, TRACK
from gatewise.lab.course import Course
from gatewise.lab.experiment import Outcome, Progress, Work
from gatewise.lab.families import Family
from gatewise.lab.judge import Judge
from gatewise.lab.objective import draw, loss_and_errors
from gatewise.layers import Recurrent
from gatewise.learning import BPTT, Rule1997
from gatewise.tasks import embedded_reber_sets, long_lag

LENGTHS = torch.tensor([7, 5])


def test_a_delayed_network_by_hand() -> None:
    torch.manual_seed(0)
    layer = Recurrent(DelayedRNN(3), 2, 4, dtype=torch.float64)
    x = torch.randn(6, 1, 2, dtype=torch.float64)
    w, u = layer.get_parameter("weight_ih_l0"), layer.get_parameter("weight_hh_l0")
    b = layer.get_parameter("bias_l0")
    past = [torch.zeros(1, 4, dtype=torch.float64)] * 3  # the latest first
    for t in range(6):
        h = torch.tanh(x[t] @ w.T + torch.cat(past, 1) @ u.T + b)
        past = [h, *past[:2]]
        torch.testing.assert_close(layer(x)[0][t], h, atol=1e-12, rtol=0)


def test_a_leaky_context_without_a_leak_is_a_simple_network() -> None:
    torch.manual_seed(0)
    leaky = Recurrent(LeakyContext(), 2, 4, dtype=torch.float64)
    plain = Recurrent("rnn", 2, 4, dtype=torch.float64)
    with torch.no_grad():
        plain.get_parameter("weight_ih_l0").copy_(leaky.get_parameter("weight_ih_l0"))
        plain.get_parameter("weight_hh_l0").copy_(leaky.get_parameter("weight_hh_l0"))
        plain.get_parameter("bias_ih_l0").copy_(leaky.get_parameter("bias_l0"))
        plain.get_parameter("bias_hh_l0").zero_()
        leaky.get_parameter("keep_l0").fill_(-100)
    x = torch.randn(6, 3, 2, dtype=torch.float64)
    torch.testing.assert_close(leaky(x)[0], plain(x)[0])
    with torch.no_grad():
        leaky.get_parameter("keep_l0").fill_(100)  # time constant without end: nothing is taken in
    assert leaky(x)[0].abs().max() < 1e-12


def linears(*shape: int) -> list[torch.nn.Linear]:
    return [torch.nn.Linear(*shape) for _ in range(2)]


def test_a_window_sees_the_last_steps_and_no_others() -> None:
    torch.manual_seed(0)
    ends = WindowModel(linears(12, 4), linears(4, 1), window=6)
    x = torch.randn(2, 7, 2, 2)  # two networks
    lengths = LENGTHS.expand(2, 2)
    before = ends(x, lengths)
    x[:, 0, 0] += 1  # a step before the window of the first row
    x[:, 6, 1] += 1  # a step after the end of the second
    assert torch.equal(ends(x, lengths), before)
    x[0, 1, 0] += 1
    changed = ends(x, lengths) != before
    assert changed[..., 0].tolist() == [[True, False], [False, False]]
    after = ends(x, lengths)
    ends.every_step = True
    torch.testing.assert_close(ends(x, lengths)[:, LENGTHS - 1, torch.arange(2)], after)


def recurrent(count: int, rule: BPTT | Rule1997 | None = None) -> RecurrentModel:
    layers = [Recurrent("rnn", 2, 5) for _ in range(count)]
    return RecurrentModel(layers, [torch.nn.Linear(5, 1) for _ in layers], rule=rule)


@pytest.mark.parametrize(("rule", "reaches"), [(BPTT(), True), (Rule1997(), False)])
def test_elmans_gradient_does_not_go_back(rule: BPTT | Rule1997, reaches: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 7, 2, 2, requires_grad=True)
    recurrent(2, rule)(x, LENGTHS.expand(2, 2)).sum().backward()
    assert x.grad is not None
    assert bool(x.grad[:, :5, 0].any()) is reaches and bool(x.grad[:, 6, 0].any())


def test_the_regulariser_against_autograd() -> None:
    """Ω from the true ∂loss/∂h_t of a plain loop, in place of the recursion."""
    torch.manual_seed(0)
    model = recurrent(2).double()
    x = torch.randn(2, 7, 2, 2, dtype=torch.float64)
    loss = model(x, LENGTHS.expand(2, 2)).square().mean((1, 2))
    found = vanishing(model, loss, LENGTHS.expand(2, 2))
    own = {n.removesuffix("_l0"): p for n, p in model.layer.named_parameters()}
    for k in range(2):
        w = {n: p[k] for n, p in own.items()}
        h, states = torch.zeros(2, 5, dtype=torch.float64), []
        for t in range(7):
            a = x[k, t] @ w["weight_ih"].T + h @ w["weight_hh"].T
            h = torch.tanh(a + w["bias_ih"] + w["bias_hh"])
            states.append(h)
        last = torch.stack(states)[LENGTHS - 1, torch.arange(2)]
        y = last @ model.head.weight[k].T + model.head.bias[k]
        true = [d.detach() for d in torch.autograd.grad(y.square().mean(), states)]
        u = w["weight_hh"].detach()
        expected = 0.0
        for row, length in enumerate(LENGTHS.tolist()):
            for t in range(1, length):
                back = (true[t][row] * (1 - states[t][row].detach() ** 2)) @ u
                expected += float((back.norm() / true[t][row].norm() - 1) ** 2)
        assert found[k].item() == pytest.approx(expected / float(LENGTHS.sum()), rel=1e-9)
    [slope] = torch.autograd.grad(found.sum(), own["weight_hh"])
    assert (slope.abs().amax((1, 2)) > 0).all()


def test_the_judge_needs_a_whole_window() -> None:
    judge = Judge(Criterion(tolerance=0.5, window=6, error=0.1))
    assert not judge.see(torch.zeros(4, 2))
    assert judge.see(torch.zeros(4, 2))
    bad = torch.zeros(4, 2)
    bad[3, 1] = float("nan")
    assert not judge.see(bad)
    assert judge.wrong == 1 and judge.sequences == 12


# -- networks side by side, and their search -----------------------------------------------

SHORT = benchmarks.Benchmark("lag", 1)


@pytest.fixture(autouse=True)
def a_short_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remember a symbol past a lag of one step and a few."""
    family = Family(lambda n: long_lag(n, 2), Criterion(0.3, window=200), first=0)
    monkeypatch.setitem(families.FAMILIES, "lag", family)
    monkeypatch.setitem(benchmarks.ALL, "lag", SHORT)


def test_networks_that_can_learn_do() -> None:
    """Else their failures would show nothing."""
    stack = Stack(SHORT, "bptt", Candidate(24, 1e-2), {0: 5, 1: 6}, 32, 32_000)
    solved: set[int] = set()
    while len(solved) < 2 and stack.sequences < 10_000:
        tested = stack.step(100)
        solved.update(tested)
        assert all(numbers["test_wrong"] <= 5 for numbers in tested.values())
        assert solved <= {t for t, course in stack.courses.items() if course.length == 1}
    assert solved == {0, 1}


@pytest.mark.parametrize("method", MODELS)
def test_networks_side_by_side_learn_as_alone(method: str) -> None:
    seeds, c = {3: 30, 4: 40, 8: 80}, Candidate(6, 1e-2, 2.0)
    together = Stack(SHORT, method, c, seeds, 8, 800)
    alone = Stack(SHORT, method, c, {4: 40}, 8, 800)
    for k in range(12):
        together.step(8)
        alone.step(8)
        if k == 5:
            together.keep([4, 8])
    index = together.going.index(4)
    for a, b in zip(together.model.parameters(), alone.model.parameters(), strict=True):
        torch.testing.assert_close(a[index], b[0], rtol=1e-5, atol=1e-6)
        assert not torch.equal(a[0], a[1])


def test_gradients_are_clipped_network_by_network() -> None:
    stack = Stack(SHORT, "bptt", Candidate(6, 0.0), {0: 1, 1: 2}, 8, 800)
    with torch.no_grad():
        stack.model.head.weight[1] *= 1000
    stack.step(8)
    norms = [p.grad.flatten(1).square().sum(1) for p in stack.model.parameters()]
    found = torch.stack(norms).sum(0).sqrt()
    assert found[1] == pytest.approx(1.0, rel=1e-4) and found[0] < 0.9


def test_the_candidate_that_came_farthest_goes_on() -> None:
    settings = Search("lag", "bptt", (16,), (1e-9, 1e-2), probe=2_000, test=50)
    found = [e for e in search.run(settings, Work(0, 0, 2, 20_000)) if isinstance(e, Outcome)]
    assert {o.trial for o in found} == {0, 1}
    for o in found:
        assert o.success and o.numbers["rate"] == 1e-2 and o.numbers["length"] == 1
        assert o.numbers["drawn"] == o.sequences + 2_016  # 63 batches of the other candidate
        assert o.numbers["test_wrong"] <= 5


def test_reber_is_judged_on_its_sets() -> None:
    """All 512 strings, by a model that knows the answer, and by one that errs on one of them."""
    task = embedded_reber_sets()
    stack = Stack(benchmarks.ALL["reber"], "bptt", Candidate(4, 1e-2), {0: 1}, 32, 800)
    assert stack.sets is not None and stack.sets.x.shape[1] == 512
    may = (stack.sets.possible.unsqueeze(-1) >> torch.arange(7)) & 1
    answers = may.float().unsqueeze(0)
    stack.sequences = 32 * 32  # when it looks
    stack.model = lambda x, n: answers
    assert stack._right_on(stack.sets) == [0]
    answers[0, 3, 17] = answers[0, 3, 17].roll(1)
    assert stack._right_on(stack.sets) == []
    assert loss_and_errors(task, answers[0], stack.sets)[1].gt(0.5).sum() == 1


@pytest.mark.parametrize("name", ["reber", "adding-26", "order-50"])
def test_a_course_draws_its_own_sequences_in_order(name: str) -> None:
    benchmark = benchmarks.ALL[name]
    course = Course(benchmark.of, benchmark.lengths, 7, 5)
    for k in range(10):
        given, alone = course.draw(), draw(course.task, 5, 7, 5 * k)
        assert all(torch.equal(a, b) for a, b in zip(given, alone, strict=True) if a is not None)
        course.see(torch.ones(5, 1))


# -- as they were trained before ------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        # 1997, tables 1 and 2: about 170, 494 and 435; 36, 144 and 10,404.
        ("rtrl-3/reber", 170),
        ("rtrl-12/reber", 494),
        ("elman-15/reber", 435),
        ("rtrl/two-4-rate-1", 36),
        ("rtrl/two-10", 144),
        ("rtrl/two-100", 10_404),
    ],
)
def test_competitors_have_the_papers_numbers_of_weights(name: str, weights: int) -> None:
    [row] = [e for e in EXPERIMENTS if e.name == name]
    assert row.settings.network.weights == weights


def test_an_online_trial_begins_as_the_others_do() -> None:
    settings = Online("adding-26", units=4)
    p = settings.initial(settings.network, Work(0, 0, 1, 1).generator(0))
    torch.testing.assert_close(p["weight_hh"] @ p["weight_hh"].T, torch.eye(4))
    assert p["bias"].abs().max() <= 1.0 and p["weight_ih"].abs().max() <= 0.5


def test_rtrl_learns_and_the_best_step_size_counts() -> None:
    settings = Online("classes-10", rates=(1e-6, 0.1), look=100, test=100)
    found = [e for e in online.run(settings, Work(0, 0, 2, 20_000)) if isinstance(e, Outcome)]
    for o in found:
        assert o.success and o.sequences < 20_000 and o.numbers["rate"] == pytest.approx(0.1)
        assert o.numbers["test_wrong"] <= 3 and o.curve[-1][1] < 0.1 * o.curve[0][1]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Search("lag", "bptt", (8,), (1e-2, 3e-2), probe=640, batch=16, test=20),
        lambda: Online("lag", units=3, head="softmax", look=50, test=20),
    ],
    ids=["search", "online"],
)
def test_interrupted_trials_end_as_unbroken_ones(
    make: Callable[[], Search | Online], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make()
    for module in (search, online):
        monkeypatch.setattr(module, "_SECONDS", 0.0)  # a sign of progress after every step
    work = Work(3, 1, 3, 3_000)
    whole = list(TRACK.run(settings, work))
    signs = [e for e in whole if isinstance(e, Progress)]
    ended = {e.trial: e for e in whole if isinstance(e, Outcome)}
    assert set(ended) == {1, 2, 3}
    for stop in (1, len(signs) // 2, len(signs) - 2):
        run, seen = TRACK.run(settings, work), 0
        while seen < stop:
            event = next(run)
            seen += isinstance(event, Progress)
        assert isinstance(event, Progress) and event.state is not None
        resumed = replace(work, state={n: t.clone() for n, t in event.state().items()})
        again = {e.trial: e for e in TRACK.run(settings, resumed) if isinstance(e, Outcome)}
        assert again and again.items() <= ended.items()


def test_guessing_solves_what_is_easy() -> None:
    settings = Guess("long_lag", {"lag": 0, "distractors": 1}, tolerance=0.3, test=200)
    *_, ended = guessing.run(settings, Work(0, 0, 1, 20_000))
    assert isinstance(ended, Outcome) and ended.success
    assert ended.numbers["test_wrong"] <= 10  # 256 right ones bound the rate near 1 %


def test_a_hidden_markov_model_learns_from_more() -> None:
    pytest.importorskip("hmmlearn", reason="the extra `lab` is not installed")
    wrong = []
    for iterations in (1, 20):
        settings = Hidden("order-50", (8,), 1, 200, iterations, 400)
        *_, ended = hmm.run(settings, Work(0, 0, 1, 10**9))
        assert isinstance(ended, Outcome)
        wrong.append(ended.numbers["test_wrong"])
    assert wrong[1] < 0.7 * wrong[0]


def test_every_claim_states_its_budget() -> None:
    told = {e.name: e.details for e in EXPERIMENTS}
    assert all(e.budget for e in EXPERIMENTS)
    assert told["narx/adding-100"] == (
        "Can a recurrent network with delayed states as further inputs learn adding-100? 32 units; "
        "rate 0.003 or 0.001 with delays 4 or 8, each tried on 10,000 sequences, the best of them "
        "on up to 120,000."
    )
