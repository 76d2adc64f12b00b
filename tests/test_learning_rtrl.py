"""Real-time recurrent learning against full backpropagation through time, in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gatewise.cells import REGISTRY, get_cell
from gatewise.equations import trace
from gatewise.executors import reference
from gatewise.learning.rtrl import DenseTraces
from gatewise.learning.traces import ForwardTraces, compact_gradient
from tests.support import Problem, assert_close, options, problem

POINTWISE = [name for name in REGISTRY if trace(get_cell(name)).pointwise]
ELEMENTWISE = [name for name in POINTWISE if not trace(get_cell(name)).feedback]
TOLERANCE = 1e-11  # the same float64 sums in another order, over a dozen steps


def bptt(p: Problem, errors: torch.Tensor) -> dict[str, torch.Tensor]:
    p = replace(p, parameters={n: t.clone().requires_grad_() for n, t in p.parameters.items()})
    loss = (reference.run(p.request()).output * errors).sum()
    found = torch.autograd.grad(loss, list(p.parameters.values()), materialize_grads=True)
    return dict(zip(p.parameters, found, strict=True))


def forward(
    p: Problem, run: DenseTraces | ForwardTraces, errors: torch.Tensor
) -> dict[str, torch.Tensor]:
    request = p.request()
    total = {n: torch.zeros_like(t) for n, t in p.parameters.items()}
    for t, x in enumerate(p.x):
        run.step(request.weights, x, None if request.resets is None else request.resets[t])
        gradient = compact_gradient(p.layout, p.parameters, run.gradient(errors[t]))
        total = {n: g + gradient[n] for n, g in total.items()}
    return total


def errors_for(p: Problem) -> torch.Tensor:
    return torch.randn(len(p.x), p.x.shape[1], p.layout.hidden_size, dtype=torch.float64)


@pytest.mark.parametrize("asked", [(), ("resets",)], ids=["plain", "resets"])
@pytest.mark.parametrize("name", POINTWISE)
def test_dense_rtrl_is_bptt(name: str, asked: tuple[str, ...]) -> None:
    p = options(problem(name, steps=12), *asked)
    errors = errors_for(p)
    run = DenseTraces(p.layout, dict(p.request().state))
    assert_close(forward(p, run, errors), bptt(p, errors), TOLERANCE)


@pytest.mark.parametrize("asked", [(), ("resets",)], ids=["plain", "resets"])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_rtrl_is_bptt_at_the_cost_of_the_weights(
    name: str, asked: tuple[str, ...]
) -> None:
    p = options(problem(name, steps=12), *asked)
    errors = errors_for(p)
    run = ForwardTraces(p.layout, frozenset(), dict(p.request().state))
    assert_close(forward(p, run, errors), bptt(p, errors), TOLERANCE)
    biases = len(p.layout.trace.accumulators) * p.layout.hidden_size  # traced, used or not
    weights = sum(t.numel() for t in p.parameters.values()) + biases
    size = sum(t.numel() for t in run.traces.values())
    assert size <= weights * p.x.shape[1] * len(run.local.carried)


def test_elementwise_cells_are_in_the_registry() -> None:
    assert {"mingru", "minlstm", "elstm"} <= {*ELEMENTWISE}
