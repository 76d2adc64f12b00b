"""Networks in lanes, against autograd on the reference with recurrent inputs held, in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from gatewise.cells import LSTM1997, REGISTRY, get_cell
from gatewise.equations import Cell, Layout, Weights, edges, trace
from gatewise.executors import Request, counter, reference
from gatewise.executors.lanes import Criterion, Lanes, Network, Sequences, Task
from gatewise.lab.faithful import network_of, task_of
from gatewise.lab.paper1997 import ROWS
from gatewise.learning import DenseTraces, ForwardTraces
from gatewise.tasks import (
    adding,
    embedded_reber,
    long_lag,
    multiplication,
    temporal_order,
    two_classes,
    two_sequences,
)

# Sums of a few hundred float64 products in another order, over three updates.
TOLERANCE = 1e-10


# Every kind of network of the 1997 paper.
PAPER = ("1-1", "1-2", "2a", "2c-1", "3a-1", "4-1", "6a", "6b")


def paper(row: str) -> Network:
    settings = ROWS[row].settings
    return network_of(settings, task_of(settings))


def random_parameters(network: Network, count: int, scale: float = 1.0) -> dict[str, torch.Tensor]:
    shapes = network.shapes()
    return {n: scale * torch.randn(count, *s, dtype=torch.float64) for n, s in shapes.items()}


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


# -- tasks and training --------------------------------------------------------------------


def test_adding_draws_what_the_paper_says() -> None:
    x, lengths, target = adding(100).sequences(2000, seed=3, dtype=torch.float64)
    values, markers = x.unbind(-1)
    rows = torch.arange(2000)
    assert lengths.min() == 100 and lengths.max() == 110
    # uniform over 11 lengths: a mean within 4 standard errors
    assert abs(lengths.double().mean() - 105) < 4 * 3.163 / 2000**0.5
    marked = markers == 1
    assert (marked.sum(0) == 2).all()
    assert (marked[:10].sum(0) >= 1).all() and not marked[49:].any()
    assert ((markers[0] == -1) | marked[0]).all()
    assert (markers[lengths - 1, rows] == -1).all()
    others = markers[1:] * (torch.arange(1, len(x)).unsqueeze(1) != lengths - 1)
    assert set(others.unique().tolist()) == {0.0, 1.0}
    assert (values[0][marked[0]] == 0).all()
    torch.testing.assert_close(target[:, 0], 0.5 + (values * marked).sum(0) / 4)
    free = values[1:][torch.arange(1, len(x)).unsqueeze(1) < lengths]
    assert free.min() >= -1 and free.max() < 1
    assert abs(free.mean()) < 4 * 3**-0.5 / len(free) ** 0.5
    assert abs(free.square().mean() - 1 / 3) < 4 * 0.298 / len(free) ** 0.5
    # every position is marked: in 0…9 by the first mark, in 0…48 by the second
    assert (marked.sum(1)[:49] > 0).all()


def test_random_words_are_the_librarys_philox() -> None:
    """The value at t, counted from the end, is word 16 + n-1-t of (seed, stream, number)."""
    x, lengths, _ = adding(100).sequences(3, seed=7, stream=5, first=11)
    n = int(lengths[2])
    words = []
    for block in range(4, 4 + -(-n // 4)):
        words += counter.philox(tuple(torch.tensor([w]) for w in (block, 13, 5, 0)), (7, 0))
    expected = torch.tensor([(int(w) >> 8) * 2.0**-24 * 2 - 1 for w in words[:n]]).flip(0)
    same = (x[:n, 2, 0] == expected)[1:]  # the first may have been set to 0
    assert same.all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sequences_are_the_same_in_every_lane_and_batch(dtype: torch.dtype) -> None:
    task = adding(50)
    whole = task.sequences(21, seed=1, dtype=dtype)
    for first, count in ((0, 1), (5, 9), (20, 1)):
        x, lengths, target = task.sequences(count, seed=1, first=first, dtype=dtype)
        span = slice(first, first + count)
        assert torch.equal(lengths, whole.lengths[span])
        assert torch.equal(target, whole.target[span])
        assert torch.equal(x, whole.x[: len(x), span])
    other = task.sequences(21, seed=1, purpose=1, dtype=dtype)
    assert not torch.equal(other.target, whole.target)


def small() -> tuple[Network, Task]:
    return paper("4-1"), adding(26)


@pytest.mark.parametrize(
    ("row", "task"),
    [
        ("4-1", adding(26)),
        ("4-1", multiplication(26)),
        ("1-1", embedded_reber()),
        ("3a-1", two_classes(20, 3, True, True)),
        ("6a", temporal_order(2, 50)),
        ("2c-1", long_lag(5, 50)),
        ("2a", two_sequences(100)),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_training_is_learning_the_tasks_sequences(row: str, task: Task) -> None:
    network = paper(row)
    start = random_parameters(network, 3, 0.1)
    drawn = Lanes(network, 3, [0.1, 0.2, 0.3], task, seed=4, stream=10, dtype=torch.float64)
    drawn.load(start)
    drawn.train(5)
    for k in range(3):
        alone = Lanes(network, 1, 0.1 * (k + 1), dtype=torch.float64)
        alone.load({n: v[k : k + 1] for n, v in start.items()})
        alone.run(task.sequences(5, seed=4, stream=10 + k, dtype=torch.float64), learn=True)
        for n, v in alone.parameters().items():
            torch.testing.assert_close(drawn.parameters()[n][k], v[0], rtol=1e-12, atol=1e-12)


def test_training_goes_on_from_a_saved_state_to_the_same_numbers() -> None:
    network, task = small()
    criterion = Criterion(0.2, window=7)

    def fresh() -> Lanes:
        return Lanes(network, 18, 0.3, task, criterion, seed=2)

    whole = fresh()
    whole.load({n: v.float() for n, v in random_parameters(network, 18, 0.1).items()})
    first = fresh()
    first.load(whole.parameters())
    whole.train(30)
    first.train(13)
    saved = first.state_dict()
    second = fresh()
    second.load_state_dict(saved)
    second.train(17)
    for n, v in whole.state_dict().items():
        assert torch.equal(v, second.state_dict()[n]), n
    with pytest.raises(ValueError, match="state weight must be"):
        Lanes(network, 1, 0.3, task, criterion, dtype=torch.float64).load_state_dict(saved)


def test_a_network_that_has_met_its_criterion_stays_as_it_is() -> None:
    network, task = small()
    # The second network cannot fail: nothing is wrong by more than 10.
    free = Lanes(network, 2, 0.3, task, Criterion(10.0, window=5))
    assert not free.train(20)
    assert free.solved == [5, 5]
    strict = Lanes(network, 2, 0.3, task, Criterion(0.0, window=5))
    assert strict.train(20)
    assert strict.solved == [None, None]
    assert strict.number[:2].tolist() == [20, 20]
    assert strict.recent_wrong.tolist() == [5, 5]
    before = free.parameters()
    free.train(5)
    assert all(torch.equal(v, before[n]) for n, v in free.parameters().items())


def test_a_test_is_running_the_tasks_test_sequences() -> None:
    network, task = small()
    lanes = Lanes(network, 18, 0.3, task, seed=5, stream=2, dtype=torch.float64)
    lanes.load(random_parameters(network, 18))
    before = lanes.parameters()
    criterion = Criterion(0.1, most_wrong=3, measure="absolute")
    wrong, error = lanes.test(30, criterion)
    for k in (0, 17):
        alone = Lanes(network, 1, 0.3, dtype=torch.float64)
        alone.load({n: v[k : k + 1] for n, v in before.items()})
        given = task.sequences(30, seed=5, stream=2 + k, purpose=1, dtype=torch.float64)
        found = alone.run(given)
        assert int((found.worst > 0.1).sum()) == wrong[k]
        torch.testing.assert_close(found.absolute.mean(), error[k])
    assert all(torch.equal(v, before[n]) for n, v in lanes.parameters().items())
    few, _ = lanes.test(30, criterion, enough=True)
    assert ((few > 3) == (wrong > 3)).all() and (few < wrong).any()
    assert torch.equal(lanes.test(30, criterion, only=[17])[0][17], wrong[17])
    with pytest.raises(ValueError, match="purpose must be positive, got 0"):
        lanes.test(1, purpose=0)


def test_ranking_asks_for_the_possible_symbols_first() -> None:
    network, task = paper("1-1"), embedded_reber()
    lanes = Lanes(network, 3, 0.3, task, seed=5, dtype=torch.float64)
    lanes.load(random_parameters(network, 3, 0.3))
    lanes.train(3000)
    wrong, _ = lanes.test(200, Criterion(0.5))
    for k in range(3):
        alone = Lanes(network, 1, 0.3, dtype=torch.float64)
        alone.load({n: v[k : k + 1] for n, v in lanes.parameters().items()})
        given = task.sequences(200, seed=5, stream=k, purpose=1, dtype=torch.float64)
        possible = task.possible(200, seed=5, stream=k, purpose=1)
        y = alone.run(given).outputs[0]
        may = (possible.unsqueeze(-1) >> torch.arange(7) & 1).bool()
        least = torch.where(may, y, 2.0).amin(-1)
        most = torch.where(may, -1.0, y).amax(-1)
        live = torch.arange(len(y)).unsqueeze(1) < given.lengths
        right = ((least > most) | ~live).all(0)
        assert int((~right).sum()) == wrong[k]
    assert 0 < wrong.min() < 200  # neither all nor nothing: the comparison means something


def test_a_lane_is_used_again() -> None:
    network, task = small()
    lanes = Lanes(network, 3, 0.3, task, Criterion(0.01, window=7), seed=2)
    start = {n: v.float() for n, v in random_parameters(network, 3, 0.1).items()}
    lanes.load(start)
    lanes.train(20)
    own = {n: v[0] for n, v in start.items()}
    lanes.restart(1, 9, own)
    lanes.retire(2)
    kept = {n: v[2] for n, v in lanes.parameters().items()}
    lanes.train(25)
    alone = Lanes(network, 1, 0.3, task, Criterion(0.01, window=7), seed=2, stream=9)
    alone.load(own)
    alone.train(25)
    for n, v in lanes.parameters().items():
        assert torch.equal(v[1], alone.parameters()[n][0])
        assert torch.equal(v[2], kept[n])
    assert lanes.number.tolist()[:3] == [45, 25, 20]
    assert lanes.recent_wrong[1] == alone.recent_wrong[0]
    torch.testing.assert_close(lanes.error_of_last(7), lanes.recent_error)
    torch.testing.assert_close(lanes.error_of_last(3)[1], alone.error_of_last(3)[0])
    with pytest.raises(ValueError, match=r"k must be in 0…2, got 3"):
        lanes.restart(3, 0, own)
    with pytest.raises(ValueError, match="parameters must have weight_ih"):
        lanes.restart(0, 0, {})


def test_fitting_in_pieces_is_training_at_once() -> None:
    network, task = small()
    whole, pieces = (Lanes(network, 2, 0.3, task, Criterion(0.0)) for _ in range(2))
    start = random_parameters(network, 2, 0.1)
    whole.load(start)
    pieces.load(start)
    whole.train(40)
    seen: list[int] = []
    pieces.fit(40, lambda lanes: seen.append(int(lanes.number[0])), seconds=1e-4)
    assert seen[-1] == 40 and len(seen) > 1
    for n, v in whole.parameters().items():
        assert torch.equal(pieces.parameters()[n], v)
    pieces.fit(40)  # nothing left to do
    assert pieces.number[0] == 40
    done = Lanes(network, 1, 0.3, task, Criterion(10.0, window=3))
    done.fit(10**9)
    assert done.solved == [3]


def test_stopping_rule_counts_as_python_does() -> None:
    network, task = small()
    criterion = Criterion(0.25, window=6, most_wrong=1, error=0.02)
    lanes = Lanes(network, 4, 0.5, task, criterion, dtype=torch.float64)
    lanes.load(random_parameters(network, 4, 0.1))
    alone = Lanes(network, 1, 0.5, dtype=torch.float64)
    alone.load({n: v[2] for n, v in lanes.parameters().items()})
    lanes.train(200)
    errors: list[float] = []
    met = None
    sequences = task.sequences(200, stream=2, dtype=torch.float64)
    found = alone.run(sequences, learn=True)
    for k in range(200):
        errors.append(float(found.squared[0, k]) ** 0.5)
        recent = errors[-6:]
        wrong = sum(e > 0.25 for e in recent)
        if len(recent) == 6 and wrong <= 1 and sum(e * e for e in recent) < 6 * 0.02:
            met = k + 1
            break
    assert met is not None and met > 6
    assert lanes.solved[2] == met


def test_learns_adding_over_a_short_lag() -> None:
    """The break-through that chance cannot give: guessing has a mean squared error of 0.04."""
    network, _ = small()
    lanes = Lanes(network, 16, 1.0, adding(26), Criterion(0.04), seed=1)
    draw = torch.Generator().manual_seed(0)
    shapes = network.shapes()
    start = {n: 0.2 * torch.rand(16, *s, generator=draw) - 0.1 for n, s in shapes.items()}
    start["bias"][:, 0], start["bias"][:, 1] = -3, -6
    lanes.load(start)
    lanes.train(30_000)
    assert lanes.recent_error.median() < 0.01


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Network(get_cell("lstm"), 0, 4, 1), "inputs must be positive, got 0"),
        (lambda: Network(get_cell("lstm"), 1, 4, 1, head="relu"), "head must be one of logistic"),
        (lambda: Network(get_cell("gru-reset-before"), 1, 4, 1), "one pointwise pass"),
        (lambda: Network(LSTM1997(block_size=2), 1, 3, 1), "multiple of the block size 2"),
        (lambda: Lanes(small()[0], 0, 0.1), "count must be positive, got 0"),
        (lambda: Lanes(small()[0], 2, [0.1]), "rate must be one number or 2, got 1"),
        (lambda: Lanes(small()[0], 2, 0.1).train(1), "training and testing need a task, got None"),
        (lambda: Lanes(*small()[:1], 2, 0.1, small()[1]).fit(0), "most must be positive, got 0"),
        (
            lambda: Lanes(Network(LSTM1997(), 3, 4, 1), 1, 0.1, adding(50)),
            "network.inputs must be 2 for the task adding 50, got 3",
        ),
        (lambda: Criterion(0.1, window=0), "window must be positive"),
        (lambda: Criterion(0.1, measure="cubed"), "measure must be one of squared, absolute"),
        (lambda: adding(20), "length must be at least 26, got 20"),
        (lambda: adding(50).sequences(-1), "count must be zero or positive, got -1"),
    ],
)
def test_errors_name_what_is_wrong(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
