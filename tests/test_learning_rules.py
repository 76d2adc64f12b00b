"""One training loop, many rules: their gradients against each other and against autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import gatewise as gw
from gatewise.cells import get_cell
from gatewise.equations import edges
from gatewise.executors import cpu, reference, run
from gatewise.executors.cpu import toolchain
from gatewise.learning import (
    BPTT,
    RTRL,
    HDetach,
    OnlineLearner,
    Rule,
    Rule1997,
    TruncatedBPTT,
)
from gatewise.learning.rules import Objective
from tests.support import GRADIENT, assert_close, options, problem, run_with_gradients

TOLERANCE = 1e-11  # the same float64 sums in another order
STEPS, BATCH = 12, 2


def targets() -> torch.Tensor:
    draw = torch.Generator().manual_seed(4)
    return torch.randn(STEPS, BATCH, 2, generator=draw, dtype=torch.float64)


def setting(
    cell: str = "lstm", **options: Any
) -> tuple[gw.Recurrent, nn.Linear, Objective, torch.Tensor]:
    torch.manual_seed(3)
    size = 4 * get_cell(cell).block_size
    layer = gw.Recurrent(cell, 3, size, dtype=torch.float64, **options)
    for p in layer.parameters():
        nn.init.normal_(p, std=0.5)
    head = nn.Linear(size, 2, dtype=torch.float64)
    x = torch.randn(STEPS, BATCH, 3, dtype=torch.float64)
    target = targets()

    def objective(output: torch.Tensor, steps: range) -> torch.Tensor:
        wanted = target[steps.start : steps.stop]
        return (head(output) - wanted).square().sum()

    return layer, head, objective, x


def gradients(rule: Rule, cell: str = "lstm", **options: Any) -> dict[str, torch.Tensor]:
    layer, head, objective, x = setting(cell, **options)
    for _ in rule.learn(layer, objective, x):
        pass
    named = [*layer.named_parameters(), *head.named_parameters()]
    return {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in named}


@pytest.mark.parametrize("cell", ["lstm", "gru", "lstm-1997-blocks", "lstm-peephole", "mingru"])
def test_rtrl_is_bptt(cell: str) -> None:
    assert_close(gradients(RTRL(), cell), gradients(BPTT(), cell), TOLERANCE)


@pytest.mark.parametrize("cell", ["lstm", "gru", "lstm-layernorm"])
@pytest.mark.parametrize(("k1", "k2"), [(1, STEPS), (4, STEPS), (5, 15), (STEPS, STEPS)])
def test_truncated_bptt_over_everything_is_bptt(cell: str, k1: int, k2: int) -> None:
    assert_close(gradients(TruncatedBPTT(k1, k2), cell), gradients(BPTT(), cell), TOLERANCE)


@pytest.mark.parametrize(("k1", "k2"), [(3, 3), (2, 6), (5, 5)])
def test_truncated_bptt_is_bptt_of_each_loss_over_its_window(k1: int, k2: int) -> None:
    layer, head, objective, x = setting()
    for start in range(0, STEPS, k1):
        first, stop = max(0, start + k1 - k2), min(start + k1, STEPS)
        with torch.no_grad():
            state = layer(x[:first])[1] if first else None
        output, _ = layer(x[first:stop], state)
        objective(output[start - first :], range(start, stop)).backward()
    named = [*layer.named_parameters(), *head.named_parameters()]
    expected = {n: p.grad for n, p in named}
    assert_close(gradients(TruncatedBPTT(k1, k2)), expected, TOLERANCE)  # type: ignore[arg-type]


def test_truncation_loses_something() -> None:
    short, whole = gradients(TruncatedBPTT(3, 3)), gradients(BPTT())
    assert (short["weight_hh_l0"] - whole["weight_hh_l0"]).norm() > 1e-2


@pytest.mark.parametrize("rule", [BPTT(), RTRL(), TruncatedBPTT(5, 5), Rule1997(), HDetach(0.5)])
def test_every_rule_accounts_for_every_step_once(rule: Rule) -> None:
    layer, _, objective, x = setting()
    parts = list(rule.learn(layer, objective, x))
    assert [t for part in parts for t in part.steps] == list(range(STEPS))
    with torch.no_grad():
        output, state = layer(x)
        whole = objective(output, range(STEPS))
    torch.testing.assert_close(sum(part.loss for part in parts), whole)
    for mine, right in zip(parts[-1].state, state, strict=True):
        torch.testing.assert_close(mine, right)
        assert not mine.requires_grad


@pytest.mark.parametrize("rule", [BPTT(), RTRL(), TruncatedBPTT(3, 6), Rule1997()])
def test_a_given_state_is_where_a_rule_starts(rule: Rule) -> None:
    layer, _, objective, x = setting()
    state = layer(torch.randn(4, BATCH, 3, dtype=torch.float64))[1]
    total = sum(part.loss for part in rule.learn(layer, objective, x, state))
    torch.testing.assert_close(total, objective(layer(x, state)[0], range(STEPS)).detach())


@pytest.mark.parametrize("rule", [BPTT(), RTRL(), TruncatedBPTT(4, 4), Rule1997(), HDetach(0.3)])
def test_one_training_loop_serves_every_rule(rule: Rule) -> None:
    layer, head, objective, x = setting()
    optimizer = torch.optim.Adam([*layer.parameters(), *head.parameters()], lr=0.02)
    losses = []
    for _ in range(60):
        total = 0.0
        for part in rule.learn(layer, objective, x):
            optimizer.step()
            optimizer.zero_grad()
            total += float(part.loss)
        losses.append(total)
    assert losses[-1] < 0.7 * losses[0]


# -- cut edges -----------------------------------------------------------------------------


# Every kernel here is compiled: the cells that differ in what is cut, not all of them.
@pytest.mark.parametrize(
    ("dtype", "steps"), [(torch.float32, "every step"), (torch.float64, "some steps")], ids=str
)
@pytest.mark.parametrize("name", ["lstm", "lstm-1997-blocks", "gru-reset-before", "fgr", "elstm"])
def test_executors_agree_on_cut_edges(name: str, dtype: torch.dtype, steps: str) -> None:
    p = options(problem(name), "lengths", "resets")
    names = frozenset(edges(p.layout.trace))
    if steps == "some steps":
        p = p.with_options(cut_steps=torch.rand(p.x.shape[:2]) < 0.5)
    p = p.with_options(cut=names)
    if toolchain.ladder():
        assert cpu.obstacles(p.request()) == []
    expected = run_with_gradients(p, reference.run)[1]
    assert_close(run_with_gradients(p.cast(dtype), run)[1], expected, GRADIENT[dtype])


@pytest.mark.parametrize("executor", ["auto", "reference"])
def test_rule_1997_in_a_stack_holds_recurrent_inputs(executor: str) -> None:
    """Against the layers written out one step at a time, with .detach() on what is fed back."""
    torch.manual_seed(0)
    layer = gw.LSTM(3, 4, 2, bidirectional=False, dtype=torch.float64, executor=executor)
    x = torch.randn(STEPS, BATCH, 3, dtype=torch.float64)
    output, _ = Rule1997().run(layer, x)
    found = torch.autograd.grad(output.square().sum(), list(layer.parameters()))

    below = x
    for k in range(2):
        w_ih, w_hh = getattr(layer, f"weight_ih_l{k}"), getattr(layer, f"weight_hh_l{k}")
        bias = getattr(layer, f"bias_ih_l{k}"), getattr(layer, f"bias_hh_l{k}")
        h = c = torch.zeros(BATCH, 4, dtype=torch.float64)
        outputs = []
        for x_t in below:
            a = x_t @ w_ih.T + bias[0] + h.detach() @ w_hh.T + bias[1]
            i, f, g, o = a.chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            outputs.append(h)
        below = torch.stack(outputs)
    expected = torch.autograd.grad(below.square().sum(), list(layer.parameters()))
    for mine, right in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-10, atol=1e-12)


def test_h_detach_at_its_ends() -> None:
    assert_close(gradients(HDetach(0.0)), gradients(BPTT()), TOLERANCE)
    assert_close(gradients(HDetach(1.0)), gradients(Rule1997()), TOLERANCE)


def test_h_detach_is_drawn_per_step_and_repeats() -> None:
    first, again, other = (gradients(HDetach(0.5, seed=s)) for s in (1, 1, 2))
    assert_close(first, again, 0.0)
    assert (first["weight_hh_l0"] - other["weight_hh_l0"]).norm() > 1e-3
    on_reference = gradients(HDetach(0.5, seed=1), executor="reference")
    assert_close(first, on_reference, TOLERANCE)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HDetach(1.5), r"p must be in \[0, 1\], got 1.5"),
        (lambda: TruncatedBPTT(0, 4), "k1 must be positive, got 0"),
        (lambda: TruncatedBPTT(4, 2), "k2 must be a multiple of k1 = 4, got 2"),
        (lambda: TruncatedBPTT(4, 6), "k2 must be a multiple of k1 = 4, got 6"),
        (lambda: gradients(RTRL(), num_layers=2), "a single layer of one direction"),
        (lambda: gradients(RTRL(), zoneout=0.5), "without dropout and zoneout"),
        (lambda: gradients(RTRL(), "lstm-layernorm"), "one pointwise pass"),
        (lambda: gradients(BPTT(), batch_first=True), "layer must be time first"),
        (lambda: gradients(Rule1997(), "gru-reset-before"), "edges of GRUReset cannot be cut"),
        (lambda: gradients(HDetach(0.5), "gru-reset-before"), "edges of GRUReset cannot be cut"),
    ],
)
def test_errors_name_what_is_wrong(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# -- online --------------------------------------------------------------------------------


def learner(rule: Any = None, rate: float = 0.05, cell: str = "lstm") -> OnlineLearner:
    layer, head, _, _ = setting(cell)
    optimizer = torch.optim.SGD([*layer.parameters(), *head.parameters()], lr=rate)
    return OnlineLearner(layer, head, nn.functional.mse_loss, optimizer, rule, batch=BATCH)


def stream(n: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    draw = torch.Generator().manual_seed(5)
    return [
        tuple(torch.randn(BATCH, k, generator=draw, dtype=torch.float64) for k in (3, 2))
        for _ in range(n)
    ]  # type: ignore[return-value]


@pytest.mark.parametrize(("rule", "whole"), [(Rule1997(), Rule1997()), (RTRL(), BPTT())])
@pytest.mark.parametrize("cell", ["lstm", "elstm"])
def test_online_gradients_are_those_of_the_whole_sequence(rule: Any, whole: Any, cell: str) -> None:
    """With a learning rate of 0 the weights stay, and the gradients of all steps add up."""
    online = learner(rule, rate=0.0, cell=cell)
    named = [*online.layer.named_parameters(), *online.head.named_parameters()]  # type: ignore[attr-defined]
    total = {n: torch.zeros_like(p) for n, p in named}
    online.loss = lambda prediction, target: (prediction - target).square().sum()
    _, _, _, x = setting(cell)
    for x_t, target in zip(x, targets(), strict=True):
        online.step(x_t, target)
        for n, p in named:
            total[n] += p.grad
    assert_close(total, gradients(whole, cell), TOLERANCE)


@pytest.mark.parametrize("rule", [Rule1997(), RTRL()])
def test_a_stream_goes_on_from_a_saved_state_to_the_same_numbers(rule: Any, tmp_path: Any) -> None:
    data = stream(30)
    whole = learner(rule)
    expected = [whole.step(x, y) for x, y in data]
    first = learner(rule)
    for x, y in data[:13]:
        first.step(x, y)
    torch.save(first.state_dict(), tmp_path / "stream.pt")
    second = learner(rule)
    for x, y in data[20:25]:  # somewhere else entirely
        second.step(x, y)
    second.load_state_dict(torch.load(tmp_path / "stream.pt"))
    for (x, y), (prediction, loss) in zip(data[13:], expected[13:], strict=True):
        mine = second.step(x, y)
        assert torch.equal(mine[0], prediction) and mine[1] == loss
    assert second.steps == 30


def test_memory_of_a_stream_does_not_grow() -> None:
    online = learner()
    sizes = set()
    for x, y in stream(20):
        online.step(x, y)
        saved = online.state_dict()["stream"]
        sizes.add(sum(t.numel() for t in saved.values()))
    assert len(sizes) == 1


def test_steps_without_a_target_and_fresh_streams() -> None:
    online = learner()
    data = stream(4)
    for x, _ in data[:3]:
        online.predict(x)
    fresh = torch.tensor([True, False])
    prediction = online.predict(data[3][0], fresh)
    alone = learner()
    expected = alone.predict(data[3][0])
    torch.testing.assert_close(prediction[0], expected[0])
    assert not torch.allclose(prediction[1], expected[1])
    online.learn(data[3][1])
    with pytest.raises(RuntimeError, match="learn needs a prediction"):
        online.learn(data[3][1])


def test_online_learner_refuses_what_cannot_run_online() -> None:
    with pytest.raises(ValueError, match=r"rule must be Rule1997\(\) or RTRL\(\)"):
        learner(BPTT())
    layer, head, _, _ = setting()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="batch must be positive, got 0"):
        OnlineLearner(layer, head, nn.functional.mse_loss, optimizer, batch=0)
