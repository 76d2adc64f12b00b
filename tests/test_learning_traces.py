"""Cut edges and forward traces, against backpropagation through time, in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from gatewise.cells import LSTM1997, REGISTRY, PeepholeLSTM, get_cell
from gatewise.equations import Cell, derive, edges, trace
from gatewise.executors import Request, reference
from gatewise.learning.traces import ForwardTraces, compact_gradient
from tests.support import Problem, assert_close, options, problem, run_with_gradients

POINTWISE = [name for name in REGISTRY if trace(get_cell(name)).pointwise]
# The same float64 sums in another order.
TOLERANCE = 1e-12


def all_cut(p: Problem) -> Problem:
    return p.with_options(cut=frozenset(edges(p.layout.trace)))


def bptt(p: Problem, errors: torch.Tensor, open_edges: bool = False) -> dict[str, torch.Tensor]:
    """Gradients of Σ errors · output by the reference, parameters by name."""
    p = replace(p, parameters={n: t.clone().requires_grad_() for n, t in p.parameters.items()})
    request = p.request() if open_edges else all_cut(p).request()
    loss = (reference.run(request).output * errors).sum()
    found = torch.autograd.grad(loss, list(p.parameters.values()), materialize_grads=True)
    return dict(zip(p.parameters, found, strict=True))


def by_traces(p: Problem, errors: torch.Tensor, cut: frozenset[str]) -> dict[str, torch.Tensor]:
    request = p.request()
    run = ForwardTraces(p.layout, cut, dict(request.state))
    total = {n: torch.zeros_like(t) for n, t in p.parameters.items()}
    for t, x in enumerate(p.x):
        fresh = None if request.resets is None else request.resets[t]
        live = None if request.lengths is None else t < request.lengths
        run.step(request.weights, x, fresh, live)
        error = errors[t] if live is None else errors[t] * live.unsqueeze(-1)
        gradient = compact_gradient(p.layout, p.parameters, run.gradient(error))
        total = {n: g + gradient[n] for n, g in total.items()}
    return total


@pytest.mark.parametrize("asked", [(), ("resets",), ("lengths",)], ids=lambda o: "+".join(o))
@pytest.mark.parametrize("name", POINTWISE)
def test_traces_are_bptt_with_recurrent_inputs_held(name: str, asked: tuple[str, ...]) -> None:
    p = options(problem(name, steps=12), *asked)
    errors = torch.randn(12, p.x.shape[1], p.layout.hidden_size, dtype=torch.float64)
    cut = frozenset(edges(p.layout.trace))
    assert_close(by_traces(p, errors, cut), bptt(p, errors), TOLERANCE)


GATES, ALL = ("input", "output"), ("input", "candidate", "output")
TOPOLOGIES = {
    # experiment of the 1997 paper: cell, inputs, units
    "1-1": (LSTM1997(biased=GATES), 7, 4),
    "1-2": (LSTM1997(block_size=2, biased=GATES), 7, 6),
    "2a": (get_cell("lstm-1997-no-output-gate"), 101, 1),
    "2c": (LSTM1997(biased=()), 54, 2),
    "3a": (LSTM1997(biased=ALL), 1, 3),
    "4": (LSTM1997(block_size=2, biased=ALL), 2, 4),
    "6b": (LSTM1997(block_size=2, biased=ALL), 8, 6),
}


@pytest.mark.parametrize("row", TOPOLOGIES)
def test_traces_on_the_networks_of_1997(row: str) -> None:
    cell, inputs, units = TOPOLOGIES[row]
    p = problem(cell, steps=30, inputs=inputs, hidden=units)
    errors = torch.randn(30, p.x.shape[1], units, dtype=torch.float64)
    cut = frozenset(edges(p.layout.trace))
    assert_close(by_traces(p, errors, cut), bptt(p, errors), TOLERANCE)


def hand_detached(cell: Cell, p: Problem) -> dict[str, torch.Tensor]:
    """The last output's gradient, with the recurrence written out and .detach() called by hand."""
    tensors = {n: t.clone().requires_grad_() for n, t in p.parameters.items()}
    request = replace(p, parameters=tensors).request()
    state = request.state
    for x in p.x:
        held = {s: v.detach() for s, v in state.items()}
        one = replace(request, x=x.unsqueeze(0), state=held)
        # Values of the step with everything held; then c again with its own way left open.
        result = reference.run(one).state
        gates = torch.nn.functional.linear(x, one.weights.weight_ih, one.weights.bias_ih)
        fed = torch.cat([held[s] for s in one.trace.feedback], 1)
        bias = one.weights.bias_hh
        gates = gates + torch.nn.functional.linear(fed, one.weights.weight_hh, bias)
        i, f, g, o = gates.chunk(4, 1)
        q = one.weights.parameters
        i = torch.sigmoid(i + q["peephole_input"] * held["c"])
        f = torch.sigmoid(f + q["peephole_forget"] * held["c"])
        c = f * state["c"] + i * torch.tanh(g)
        o = torch.sigmoid(o + q["peephole_output"] * c.detach())
        torch.testing.assert_close(c, result["c"])
        state = {"h": o * torch.tanh(c), "c": c}
    found = torch.autograd.grad(state["h"].sum(), list(tensors.values()))
    return dict(zip(tensors, found, strict=True))


def test_cut_is_what_detaching_by_hand_gives() -> None:
    p = problem(PeepholeLSTM())
    errors = torch.zeros(len(p.x), p.x.shape[1], p.layout.hidden_size, dtype=torch.float64)
    errors[-1] = 1
    assert_close(bptt(p, errors), hand_detached(PeepholeLSTM(), p), TOLERANCE)


@pytest.mark.parametrize("name", ["lstm", "lstm-1997-blocks", "gru"])
def test_the_cut_matters_and_changes_no_output(name: str) -> None:
    p = problem(name)
    errors = torch.ones(len(p.x), p.x.shape[1], p.layout.hidden_size, dtype=torch.float64)
    free, held = bptt(p, errors, open_edges=True), bptt(p, errors)
    assert (free["weight_hh"] - held["weight_hh"]).norm() > 1e-3 * held["weight_hh"].norm()
    torch.testing.assert_close(
        reference.run(p.request()).output, reference.run(all_cut(p).request()).output
    )


def test_cut_steps_cut_where_they_say() -> None:
    p = problem("lstm-peephole")
    steps, batch, _ = p.x.shape
    cut = frozenset(edges(p.layout.trace))

    def gradients(**chosen: Any) -> dict[str, torch.Tensor]:
        return run_with_gradients(p.with_options(**chosen), reference.run)[1]

    none = torch.zeros(steps, batch, dtype=torch.bool)
    assert_close(gradients(cut=cut, cut_steps=none), gradients(), TOLERANCE)
    assert_close(gradients(cut=cut, cut_steps=~none), gradients(cut=cut), TOLERANCE)
    one_row = none.clone()
    one_row[:, 1] = True
    mixed, free, held = gradients(cut=cut, cut_steps=one_row), gradients(), gradients(cut=cut)
    torch.testing.assert_close(mixed["x"][:, 1], held["x"][:, 1])
    torch.testing.assert_close(mixed["x"][:, 0], free["x"][:, 0])


def test_unknown_edges_are_refused() -> None:
    lstm = trace(get_cell("lstm"))
    with pytest.raises(ValueError, match=r"cut must name edges of LSTM \(h\), got c"):
        derive(lstm, cut=frozenset({"c"}))


@pytest.mark.parametrize(
    ("cell", "fields", "message"),
    [
        ("lstm-layernorm", {}, "one pointwise pass"),
        ("lstm", {"proj_size": 3}, "without projection"),
    ],
)
def test_traces_refuse_what_they_cannot_do(cell: str, fields: Any, message: str) -> None:
    p = problem(cell, **fields)
    with pytest.raises(ValueError, match=message):
        ForwardTraces(p.layout, frozenset({"h"}), {})


def test_traces_refuse_an_open_product() -> None:
    with pytest.raises(ValueError, match="LSTM1997 keeps input, output"):
        ForwardTraces(problem(LSTM1997()).layout, frozenset({"h"}), {})


def test_memory_does_not_grow_with_the_stream() -> None:
    p = problem("lstm-peephole", steps=30)
    request: Request = p.request()
    run = ForwardTraces(p.layout, frozenset(edges(p.layout.trace)), dict(request.state))
    sizes = set()
    for x in p.x:
        run.step(request.weights, x)
        sizes.add(sum(t.numel() for t in run.traces.values()))
    assert len(sizes) == 1
    weights = sum(t.numel() for t in p.parameters.values())
    assert sizes.pop() <= weights * p.x.shape[1]
