"""Training in chunks of time: the numbers of the uncut run, in memory that grows with √T."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

import gatewise as gw
from gatewise.benchmark.probes import peak_bytes
from gatewise.executors import Request, Result, run
from gatewise.executors.checkpoint import chunks, usual_length
from gatewise.learning import BPTT, HDetach, Rule1997
from tests.support import (
    GRADIENT,
    assert_close,
    looseness,
    options,
    problem,
    run_with_gradients,
)

EVERYTHING = ("lengths", "resets", "reverse", "record", "feedback_mask", "zoneout")
F32 = torch.float32


def on(executor: str, checkpoint: int = 0) -> Callable[[Request], Result]:
    return lambda request: run(replace(request, checkpoint=checkpoint), executor)


# Cells that differ most, as in the conformance tests, whose kernels these are.
CELLS = ["lstm", "gru", "lstm-1997-blocks", "lstm-peephole"]


@pytest.mark.parametrize("checkpoint", [1, 4])
@pytest.mark.parametrize(
    ("cell", "chosen"),
    [*((c, EVERYTHING) for c in CELLS), ("lstm-layernorm", ("lengths",)), ("mingru", ("resets",))],
)
def test_equal_to_the_bit(cell: str, chosen: tuple[str, ...], checkpoint: int) -> None:
    """The gradients that are sums or products over all steps alone are rounded otherwise."""
    p = options(problem(cell, steps=9), *chosen).cast(F32)
    expected, slopes = run_with_gradients(p, on("auto"))
    actual, gradients = run_with_gradients(p, on("auto", checkpoint))
    assert all(torch.equal(actual[n], expected[n]) for n in expected)
    assert all(torch.equal(gradients[f"state.{s}"], slopes[f"state.{s}"]) for s in p.state)
    assert_close(gradients, slopes, GRADIENT[F32] * looseness(p))


@pytest.mark.parametrize(
    ("cell", "executor"), [("lstm", "reference"), ("gru", "reference"), ("minlstm", "scan")]
)
def test_every_executor(cell: str, executor: str) -> None:
    p = options(problem(cell, steps=9), *EVERYTHING)  # float64
    expected, slopes = run_with_gradients(p, on(executor))
    actual, gradients = run_with_gradients(p, on(executor, 4))
    assert_close(actual, expected, 1e-14)
    assert_close(gradients, slopes, 1e-14)


def twins(**options: object) -> tuple[gw.Recurrent, gw.Recurrent]:
    """The same stack, without chunks and with chunks of 4 steps."""
    made = [
        gw.Recurrent("lstm-peephole", 3, 6, num_layers=2, checkpoint=c, **options).double()
        for c in (False, 4)
    ]
    made[1].load_state_dict(made[0].state_dict())
    return made[0], made[1]


def gradients(layer: gw.Recurrent, x: torch.Tensor, **call: object) -> list[torch.Tensor]:
    layer.zero_grad()
    output, state = layer(x, **call)
    (output.square().sum() + state.c.sin().sum()).backward()
    return [output.detach(), *(p.grad.clone() for p in layer.parameters())]


def test_a_bidirectional_stack_with_everything_between_its_layers() -> None:
    kept, cut = twins(bidirectional=True, dropout=0.3, zoneout=0.2, residual=True, layer_norm=True)
    x = torch.randn(11, 5, 3, dtype=torch.float64)
    call = {"lengths": [11, 0, 3, 7, 4], "resets": torch.rand(11, 5) < 0.2, "seed": 5}
    for a, b in zip(gradients(kept, x, **call), gradients(cut, x, **call), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("rule", [BPTT(), HDetach(0.5, seed=3), Rule1997()])
def test_learning_rules_see_the_same_steps(rule: BPTT | HDetach | Rule1997) -> None:
    x = torch.randn(11, 2, 3, dtype=torch.float64)
    found = []
    for layer in twins():
        list(rule.learn(layer, lambda output, _: output.square().sum(), x))
        found.append([p.grad.clone() for p in layer.parameters()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-12, atol=1e-14)


def test_gradients_of_gradients_and_a_second_backward() -> None:
    x = torch.randn(9, 2, 3, dtype=torch.float64, requires_grad=True)
    penalties = []
    for layer in twins():
        (d_x,) = torch.autograd.grad(layer(x)[0].tanh().sum(), x, create_graph=True)
        penalties.append(torch.autograd.grad(d_x.square().sum(), list(layer.parameters())))
    for a, b in zip(*penalties, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-10, atol=1e-14)
    loss = twins()[1](x)[0].sum()
    once, again = (torch.autograd.grad(loss, x, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(once, again)


def test_a_changed_input_is_noticed_and_frozen_parameters_stay_so() -> None:
    _, layer = twins()
    layer.weight_hh_l0.requires_grad_(False)
    x = torch.randn(9, 2, 3, dtype=torch.float64)
    output, _ = layer(x)
    output.sum().backward()
    assert layer.weight_hh_l0.grad is None
    assert layer.weight_ih_l0.grad is not None
    output, _ = layer(x)
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_torch_func_runs_uncut_and_says_so() -> None:
    layer = gw.GRU(3, 5, checkpoint=2)
    x = torch.randn(4, 7, 2, 3)
    batched = torch.func.vmap(lambda one: layer(one)[0])(x)
    torch.testing.assert_close(batched, torch.stack([layer(one)[0] for one in x]))
    said: list[str] = []
    torch.func.vmap(lambda one: said.append(str(gw.explain(layer, one))) or one)(x)
    assert "checkpoint has no effect inside torch.func" in said[0]


def test_explained() -> None:
    x = torch.zeros(10, 2, 3)
    said = str(gw.explain(gw.GRU(3, 5, checkpoint=True, executor="reference"), x))
    assert "runs on reference in chunks of 4 steps, run again in backward" in said
    assert "chunks" not in str(gw.explain(gw.GRU(3, 5, checkpoint=10), x))
    with torch.no_grad():
        assert "chunks" not in str(gw.explain(gw.GRU(3, 5, checkpoint=4), x))
    assert "checkpoint=7" in repr(gw.GRU(3, 5, checkpoint=7))


@pytest.mark.parametrize(("wrong", "error"), [(0, ValueError), (2.5, TypeError), ("4", TypeError)])
def test_refused(wrong: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="checkpoint must be"):
        gw.LSTM(3, 5, checkpoint=wrong)


def test_chunks_tile_the_sequence() -> None:
    for steps in (1, 2, 9, 10, 99, 100, 101):
        request = replace(problem("rnn", steps).request(), checkpoint=usual_length(steps))
        covered = [t for c in chunks(request) for t in range(c.start, c.stop)]
        assert covered == list(range(steps))
        assert chunks(replace(request, reverse=True)) == chunks(request)[::-1]
        assert len(chunks(request)) <= request.checkpoint < steps**0.5 + 1


@pytest.mark.parametrize("bidirectional", [False, True])
def test_memory_grows_with_the_root_of_time(bidirectional: bool) -> None:
    hidden, batch = 16, 8

    def extra(steps: int, checkpoint: bool) -> int:
        """Bytes of a training step beside the output."""
        layer = gw.LSTM(4, hidden, bidirectional=bidirectional, checkpoint=checkpoint)
        x = torch.randn(steps, batch, 4)
        output = steps * batch * hidden * 4 * (1 + bidirectional)
        if bidirectional:  # while the two halves are put together, there are two of it
            output *= 2
        return peak_bytes(lambda: layer(x)[1].c.sum().backward()) - output

    layer = gw.LSTM(4, hidden, bidirectional=bidirectional)
    layer(torch.randn(3, batch, 4))[1].c.sum().backward()  # whatever the first use allocates
    uncut = [extra(t, False) for t in (400, 6400)]
    cut = [extra(t, True) for t in (400, 6400)]
    assert uncut[1] > 12 * uncut[0]
    assert cut[1] < 5 * cut[0]  # √16 = 4
    assert cut[1] < uncut[1] / 20
