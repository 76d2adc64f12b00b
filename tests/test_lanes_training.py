"""Tasks drawn in C and networks in lanes trained on them, against Python's view of the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gatewise.cells import LSTM1997, get_cell
from gatewise.executors import counter
from gatewise.executors.lanes import Criterion, Lanes, Network, Task
from gatewise.tasks import (
    adding,
    embedded_reber,
    long_lag,
    multiplication,
    temporal_order,
    two_classes,
    two_sequences,
)
from tests.lanes import paper, random_parameters, small


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
