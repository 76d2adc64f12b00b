"""Networks in lanes, against autograd on the reference with recurrent inputs held, in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from gatewise.cells import LSTM1997, REGISTRY, get_cell
from gatewise.equations import Cell, Layout, Weights, edges, trace
from gatewise.executors import Request, reference
from gatewise.executors.lanes import Lanes, Network, Sequences
from gatewise.learning import DenseTraces, ForwardTraces
from tests.lanes import paper, random_parameters

# Sums of a few hundred float64 products in another order, over three updates.
TOLERANCE = 1e-10


# Every kind of network of the 1997 paper.
PAPER = ("1-1", "1-2", "2a", "2c-1", "3a-1", "4-1", "6a", "6b")


def random_sequences(network: Network, batch: int, steps: int) -> Sequences:
    lengths = torch.randint(steps // 2, steps + 1, (batch,))
    lengths[0] = steps
    shape = (steps, batch) if network.every_step else (batch,)
    if network.target_symbols:
        target = torch.randint(0, network.outputs, shape)
    else:
        target = torch.rand(*shape, network.outputs, dtype=torch.float64)
    if network.symbols:
        return Sequences(torch.randint(0, network.inputs, (steps, batch)), lengths, target)
    x = torch.randn(steps, batch, network.inputs, dtype=torch.float64)
    return Sequences(x, lengths, target)


def layer_weights(network: Network, p: dict[str, torch.Tensor]) -> Weights:
    """One network's parameters as the executors of layers take them."""
    layout: Layout = network.layout
    compact: dict[str, torch.Tensor] = {q: p[q] for q in network.trace.parameters}
    compact["weight_ih"] = p["weight_ih"]
    compact["weight_hh"] = p.get("weight_hh", p["weight_ih"].new_zeros(len(p["weight_ih"]), 0))
    if "bias" not in p:
        return layout.weights(compact)
    names = ("bias_ih", "bias_hh") if network.cell.biases == 2 else ("bias",)
    size = sum(network.rows(g) for g in layout.biased)
    zero = p["bias"].new_zeros(size)
    compact |= dict.fromkeys(names, zero)
    accumulators = network.trace.accumulators
    if len(p["bias"]) == size:
        compact[names[0]] = p["bias"]
        return layout.weights(compact)
    # A split gate has a bias for each of its parts.
    parts = dict(
        zip(
            accumulators, p["bias"].split([network.rows(a.gate) for a in accumulators]), strict=True
        )
    )
    for name, side in (("bias_ih", "from_input"), ("bias_hh", "from_feedback")):
        rows = []
        for g in network.trace.gates:
            here = [a for a in accumulators if a.gate == g and getattr(a, side)]
            whole = name == "bias_hh" and here[0].from_input
            rows.append(torch.zeros_like(parts[here[0]]) if whole else parts[here[0]])
        compact[name] = torch.cat(rows)
    return layout.weights(compact)


def one_hot_input(network: Network, x: torch.Tensor) -> torch.Tensor:
    if not network.symbols:
        return x
    return torch.nn.functional.one_hot(x, network.inputs).double()


def head(network: Network, p: dict[str, torch.Tensor], h: torch.Tensor, x: torch.Tensor) -> Any:
    if network.head == "none":
        return h[:, : network.outputs]
    net = h @ p["head_weight"].T
    if "head_bias" in p:
        net = net + p["head_bias"]
    if "head_input" in p:
        net = net + x @ p["head_input"].T
    return net


def loss(network: Network, net: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """What the networks descend: half the squared error, or cross-entropy."""
    if network.target_symbols:
        target = torch.nn.functional.one_hot(target, network.outputs).double()
    if network.head == "softmax":
        return -(target * net.log_softmax(-1)).sum()
    if network.head in ("linear", "none"):
        return 0.5 * (target - net).square().sum()
    if network.slope:
        return 0.5 * (target - net.sigmoid()).square().sum()
    return torch.nn.functional.binary_cross_entropy_with_logits(net, target, reduction="sum")


def trained(
    network: Network, p: dict[str, torch.Tensor], given: Sequences, rate: float
) -> dict[str, torch.Tensor]:
    """One network after all sequences, by autograd with every recurrent edge cut, or none."""
    cut = frozenset(() if network.exact or network.whole else edges(network.trace))
    start = {s: network.gate_start * (s in network.trace.gates) for s in network.trace.states}
    zero = {s: torch.full((1, network.units), v).double() for s, v in start.items()}
    for b, n in enumerate(given.lengths.tolist()):
        p = {k: v.clone().requires_grad_() for k, v in p.items()}
        x = one_hot_input(network, given.x[:n, b : b + 1])
        request = Request(network.trace, layer_weights(network, p), x, zero, cut=cut)
        h = reference.run(request).output[:, 0]
        if network.every_step:
            total = loss(network, head(network, p, h, x[:, 0]), given.target[:n, b])
        else:
            total = loss(network, head(network, p, h[-1:], x[-1]), given.target[b : b + 1])
        grads = torch.autograd.grad(total, list(p.values()), materialize_grads=True)
        p = {k: (v - rate * g).detach() for (k, v), g in zip(p.items(), grads, strict=True)}
    return p


def check(network: Network, steps: int = 8, count: int = 3, rate: float = 0.3) -> None:
    """`count` networks over three sequences of several lengths."""
    torch.manual_seed(1)
    lanes = Lanes(network, count, rate, dtype=torch.float64)
    start = random_parameters(network, count)
    lanes.load(start)
    assert all(torch.equal(v, start[n]) for n, v in lanes.parameters().items())
    given = random_sequences(network, 3, steps)
    lanes.run(given, learn=True)
    after = lanes.parameters()
    changed = dict.fromkeys(start, 0.0)
    for k in range(count):
        expected = trained(network, {n: v[k] for n, v in start.items()}, given, rate)
        for n, right in expected.items():
            change = (right - start[n][k]).norm()
            error = (after[n][k] - right).norm()
            assert error <= TOLERANCE * max(change, 1.0), (n, k, error, change)
            changed[n] += float(change)
    assert all(changed.values()), changed


@pytest.mark.parametrize("row", PAPER)
def test_learning_is_bptt_with_recurrent_inputs_held(row: str) -> None:
    check(paper(row))


POINTWISE = [name for name in REGISTRY if trace(get_cell(name)).pointwise]


@pytest.mark.parametrize("name", POINTWISE)
def test_every_pointwise_cell(name: str) -> None:
    cell = get_cell(name)
    check(Network(cell, 2, 2 * cell.block_size, 2, head_bias=True))


@pytest.mark.parametrize(
    "options",
    [
        {"head": "linear"},
        {"gate_start": 0.5},
        {"head": "softmax", "target_symbols": True},
        {"slope": False},
        {"head_inputs": True},
        {"every_step": True, "head_inputs": True},
        {"symbols": True, "head_inputs": True},
        {"symbols": True, "every_step": True, "head": "softmax", "target_symbols": True},
    ],
    ids=lambda options: "+".join(options),
)
@pytest.mark.parametrize(
    "cell", [LSTM1997(block_size=2), get_cell("lstm-peephole")], ids=["1997", "peephole"]
)
def test_options(cell: Cell, options: dict[str, Any]) -> None:
    check(Network(cell, 3, 4, 2, **options))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": False, "head_inputs": True, "every_step": True},
        {"head": "none", "every_step": True},
        {"symbols": True, "inputs": 18, "head": "softmax", "target_symbols": True},
    ],
    ids=lambda options: "+".join(options) or "plain",
)
def test_exact_learning_is_backpropagation_through_time(options: dict[str, Any]) -> None:
    shape = {"inputs": 3, "units": 4, "outputs": 2, "exact": True}
    check(Network(get_cell("rnn-logistic"), **shape | options))


def test_what_cannot_be_learnt_exactly_or_without_a_head_is_refused() -> None:
    with pytest.raises(ValueError, match=r"one gate and one state, fed back, .* got LSTM"):
        Network(get_cell("lstm"), 2, 2, 1, exact=True)
    for options in ({"units": 2}, {"units": 4, "head_bias": True}):
        with pytest.raises(ValueError, match="head 'none' needs units for all outputs"):
            Network(get_cell("rnn"), 2, outputs=3, head="none", **options)


@pytest.mark.parametrize("row", ["1-1", "1-2", "2a", "2c-1", "4-1"])
def test_the_whole_gradient_is_bptt(row: str) -> None:
    check(replace(paper(row), whole=True))


@pytest.mark.parametrize("name", ["lstm-peephole", "rnn", "gru"])
def test_the_whole_gradient_of_other_cells(name: str) -> None:
    check(Network(get_cell(name), 2, 3, 2, head_bias=True, whole=True))


def test_many_networks_and_units() -> None:
    check(Network(get_cell("lstm"), 3, 11, 1), count=19)


@pytest.mark.parametrize("exact", [False, True])
def test_weights_that_change_at_every_step(exact: bool) -> None:
    """Against the general form of the derivatives, which also sees the weights change."""
    torch.manual_seed(2)
    network = replace(paper("1-2"), stepwise=True)
    if exact:
        network = replace(network, cell=get_cell("rnn"), exact=True)
    start = random_parameters(network, 1)
    lanes = Lanes(network, 1, 0.3, dtype=torch.float64)
    lanes.load(start)
    given = random_sequences(network, 1, 9)
    lanes.run(given, learn=True)

    p = {n: v[0].clone() for n, v in start.items()}
    zero = {s: torch.zeros(1, network.units, dtype=torch.float64) for s in network.trace.states}
    run = (
        DenseTraces(network.layout, zero)
        if exact
        else ForwardTraces(network.layout, frozenset(edges(network.trace)), zero)
    )
    for t in range(9):
        x = one_hot_input(network, given.x[t])
        h = run.step(layer_weights(network, p), x).requires_grad_()
        p = {n: v.requires_grad_() for n, v in p.items()}
        total = loss(network, head(network, p, h, x), given.target[t])
        d_h, d_head = torch.autograd.grad(total, [h, p["head_weight"]])
        d = run.gradient(d_h)
        wide = layer_weights(network, p)
        found = torch.autograd.grad(
            [wide.weight_ih, wide.weight_hh, wide.bias_ih],
            [p[n] for n in ("weight_ih", "weight_hh", "bias")],
            [d.weight_ih, d.weight_hh, d.bias_ih],
        )
        gradient = dict(zip(("weight_ih", "weight_hh", "bias"), found, strict=True))
        gradient["head_weight"] = d_head
        p = {n: (v - 0.3 * gradient[n]).detach() for n, v in p.items()}
    for n, v in lanes.parameters().items():
        torch.testing.assert_close(v[0], p[n], rtol=TOLERANCE, atol=TOLERANCE)


def test_outputs_and_errors_of_an_evaluation() -> None:
    network = replace(paper("6a"), target_symbols=False)
    lanes = Lanes(network, 2, 0.5, dtype=torch.float64)
    start = random_parameters(network, 2)
    lanes.load(start)
    given = random_sequences(network, 3, 8)
    found = lanes.run(given)
    assert all(torch.equal(v, start[n]) for n, v in lanes.parameters().items())
    for k in range(2):
        p = {n: v[k] for n, v in start.items()}
        for b, n in enumerate(given.lengths.tolist()):
            x = one_hot_input(network, given.x[:n, b : b + 1])
            zero = torch.zeros(1, network.units, dtype=torch.float64)
            request = Request(
                network.trace,
                layer_weights(network, p),
                x,
                dict.fromkeys(network.trace.states, zero),
            )
            h = reference.run(request).output[:, 0]
            y = head(network, p, h, x[:, 0]).sigmoid()
            torch.testing.assert_close(found.outputs[k, :n, b], y)
            error = (given.target[b] - y[-1]).abs()
            torch.testing.assert_close(found.worst[k, b], error.max())
            torch.testing.assert_close(found.squared[k, b], error.square().sum())
