"""Baselines against what they are by definition."""

from __future__ import annotations

import pytest
import torch

from gatewise.executors.lanes import Criterion
from gatewise.lab import benchmarks
from gatewise.lab.baselines import guessing, hmm
from gatewise.lab.baselines.cells import DelayedRNN, LeakyContext
from gatewise.lab.baselines.guessing import Guess
from gatewise.lab.baselines.hmm import Hidden
from gatewise.lab.baselines.learner import Learner, vanishing
from gatewise.lab.baselines.models import Candidate, RecurrentModel, WindowModel
from gatewise.lab.experiment import Outcome, Work
from gatewise.lab.judge import Judge
from gatewise.layers import Recurrent
from gatewise.learning import BPTT, Rule1997
from gatewise.tasks import long_lag

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


def test_a_window_sees_the_last_steps_and_no_others() -> None:
    torch.manual_seed(0)
    model = WindowModel(2, 6, 4, 1)
    x = torch.randn(7, 2, 2)
    before = model(x, LENGTHS)
    x[0, 0] += 1  # a step before the window of the first row
    x[6, 1] += 1  # a step after the end of the second
    assert torch.equal(model(x, LENGTHS), before)
    x[1, 0] += 1
    after = model(x, LENGTHS)
    assert after[0] != before[0] and after[1] == before[1]


@pytest.mark.parametrize(("rule", "reaches"), [(BPTT(), True), (Rule1997(), False)])
def test_elmans_gradient_does_not_go_back(rule: BPTT | Rule1997, reaches: bool) -> None:
    torch.manual_seed(0)
    model = RecurrentModel(Recurrent("rnn", 2, 4), 1, rule)
    x = torch.randn(7, 2, 2, requires_grad=True)
    model(x, LENGTHS).sum().backward()
    assert x.grad is not None
    assert bool(x.grad[:5, 0].any()) is reaches and bool(x.grad[6, 0].any())


def test_the_regulariser_against_autograd() -> None:
    """Ω from the true ∂loss/∂h_t of a plain loop, in place of the recursion."""
    torch.manual_seed(0)
    layer = Recurrent("rnn", 2, 5, dtype=torch.float64)
    model = RecurrentModel(layer, 1, BPTT()).double()
    x = torch.randn(7, 2, 2, dtype=torch.float64)
    loss = model(x, LENGTHS).square().mean()
    u = layer.get_parameter("weight_hh_l0")
    found = vanishing(model, loss, LENGTHS)
    h, states = torch.zeros(2, 5, dtype=torch.float64), []
    for t in range(7):
        a = x[t] @ layer.get_parameter("weight_ih_l0").T + h @ u.T
        h = torch.tanh(a + layer.get_parameter("bias_ih_l0") + layer.get_parameter("bias_hh_l0"))
        states.append(h)
    last = torch.stack(states)[LENGTHS - 1, torch.arange(2)]
    true = torch.autograd.grad(model.head(last).square().mean(), states)
    expected = torch.zeros((), dtype=torch.float64)
    for row, length in enumerate(LENGTHS.tolist()):
        for t in range(1, length):
            back = (true[t][row] * (1 - states[t][row] ** 2)) @ u
            expected = expected + (back.norm() / true[t][row].norm() - 1) ** 2
    torch.testing.assert_close(found, (expected / LENGTHS.sum()).detach(), atol=1e-12, rtol=1e-9)
    [slope] = torch.autograd.grad(found, u)
    assert slope.abs().max() > 0


def test_the_judge_needs_a_whole_window() -> None:
    judge = Judge(Criterion(tolerance=0.5, window=6, error=0.1))
    assert not judge.see(torch.zeros(4, 2))
    assert judge.see(torch.zeros(4, 2))
    bad = torch.zeros(4, 2)
    bad[3, 1] = float("nan")
    assert not judge.see(bad)
    assert judge.wrong == 1 and judge.sequences == 12


def test_full_backpropagation_learns_what_one_step_cannot() -> None:
    """The learner learns: else its failures would show nothing."""
    errors = []
    for method in ("bptt", "elman"):
        learner = Learner(
            long_lag(1, 2), Criterion(0.3), method, Candidate(24, 1e-2), 0, batch=32, limit=32_000
        )
        for _ in range(150):
            learner.step()
        errors.append(learner.judge.error)
    assert errors[0] < 0.5 * errors[1]


def test_guessing_solves_what_is_easy() -> None:
    settings = Guess("long_lag", {"lag": 0, "distractors": 1}, tolerance=0.3, test=200)
    *_, ended = guessing.run(settings, Work(0, 0, 1, 20_000))
    assert isinstance(ended, Outcome) and ended.success
    assert ended.numbers["test_wrong"] <= 10  # 256 right ones bound the rate near 1 %


def test_a_hidden_markov_model_learns_from_more(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("hmmlearn", reason="the extra `lab` is not installed")
    monkeypatch.setitem(benchmarks.BENCHMARKS, "short", benchmarks.Benchmark("order", 50))
    wrong = []
    for iterations in (1, 20):
        settings = Hidden("short", (8,), 1, 200, iterations, 400)
        *_, ended = hmm.run(settings, Work(0, 0, 1, 10**9))
        assert isinstance(ended, Outcome)
        wrong.append(ended.numbers["test_wrong"])
    assert wrong[1] < 0.7 * wrong[0]
