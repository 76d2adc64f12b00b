"""Every task's sequences against its definition in the 1997 paper."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gatewise.tasks import long_lag, multiplication, temporal_order, two_sequences

COUNT = 1500


def within(mean: float, expected: float, spread: float) -> bool:
    """Is a mean of COUNT draws within four standard errors?"""
    return abs(mean - expected) < 4 * spread / COUNT**0.5


def test_multiplication() -> None:
    x, lengths, target = multiplication(100).sequences(COUNT, dtype=torch.float64)
    values, markers = x.unbind(-1)
    marked = markers == 1
    assert (marked.sum(0) == 2).all()
    assert lengths.min() == 100 and lengths.max() == 110
    product = torch.where(marked, values, torch.ones_like(values)).prod(0)
    torch.testing.assert_close(target[:, 0], product)
    assert values.min() >= 0 and values.max() <= 1
    assert (values[0][marked[0]] == 1).all() and marked[0].any()
    assert (markers[0][~marked[0]] == -1).all()


@pytest.mark.parametrize(
    ("marks", "spans"), [(2, [(10, 20), (50, 60)]), (3, [(10, 20), (33, 43), (66, 76)])]
)
def test_temporal_order(marks: int, spans: list[tuple[int, int]]) -> None:
    x, lengths, target = temporal_order(marks).sequences(COUNT)
    rows = torch.arange(COUNT)
    assert lengths.min() == 100 and lengths.max() == 110
    assert (x[0] == 0).all() and (x[lengths - 1, rows] == 1).all()
    is_mark = x >= 6
    assert (is_mark.sum(0) == marks).all()
    classes = torch.zeros(COUNT, dtype=torch.int64)
    for low, high in spans:
        here = is_mark[low : high + 1]
        assert (here.sum(0) == 1).all()
        assert here.any(1).all()  # every position of the span is used, its ends too
        classes = 2 * classes + ((x[low : high + 1] == 7) & here).any(0).long()
    assert torch.equal(target, classes)
    counts = torch.bincount(target, minlength=2**marks) / COUNT
    assert all(within(float(c), 2.0**-marks, 0.5) for c in counts)
    live = torch.arange(1, len(x)).unsqueeze(1) < lengths - 1
    assert set(x[1:][live & ~is_mark[1:]].unique().tolist()) == {2, 3, 4, 5}


def test_long_lag() -> None:
    q, p = 50, 20
    x, lengths, target = long_lag(q, p).sequences(COUNT)
    rows = torch.arange(COUNT)
    assert (x[0] == p + 2).all() and torch.equal(x[1], p + target)
    assert (x[lengths - 1, rows] == p + 3).all()
    live = torch.arange(2, len(x)).unsqueeze(1) < lengths - 1
    assert set(x[2:][live].unique().tolist()) == set(range(p))
    more = (lengths - q - 3).double()
    # geometric with 0.1: mean 9, standard deviation sqrt(0.9)/0.1
    assert more.min() == 0 and within(float(more.mean()), 9.0, 9.487)
    assert within(float(target.double().mean()), 0.5, 0.5)


def test_two_sequences() -> None:
    p = 12
    x, lengths, target = two_sequences(p).sequences(COUNT)
    assert (lengths == p).all()
    torch.testing.assert_close(target[:-1], x[1:])
    assert torch.equal(target[-1], x[0]) and set(x[0].tolist()) == {p - 1, p}
    assert torch.equal(x[1:], torch.arange(p - 1).unsqueeze(1).expand(-1, COUNT))
    assert within(float((x[0] == p).double().mean()), 0.5, 0.5)


def test_two_sequences_with_a_random_middle() -> None:
    p = 12
    task = two_sequences(p, random_middle=True)
    x, _, target = task.sequences(COUNT)
    assert task.judge_end
    torch.testing.assert_close(target[:-1], x[1:])
    assert torch.equal(target[-1], x[0]) and set(x[0].tolist()) == {p - 1, p}
    assert set(x[1:].unique().tolist()) == set(range(p - 1))
    assert within(float(x[1:].double().mean()), (p - 2) / 2, 3.2)


@pytest.mark.parametrize(
    "task",
    [multiplication(40), temporal_order(2, 50), long_lag(5, 7), two_sequences(9, True)],
    ids=lambda t: t.name,
)
def test_sequences_do_not_depend_on_their_neighbours(task: Any) -> None:
    whole = task.sequences(21, seed=1, stream=3)
    for first, count in ((0, 1), (5, 9), (20, 1)):
        x, lengths, target = task.sequences(count, seed=1, stream=3, first=first)
        span = slice(first, first + count)
        assert torch.equal(lengths, whole.lengths[span])
        assert torch.equal(x, whole.x[: len(x), span])
        rows = whole.target[:, span] if task.every_step else whole.target[span]
        assert torch.equal(target, rows[: len(target)] if task.every_step else rows)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: multiplication(20), "length must be at least 26, got 20"),
        (lambda: temporal_order(4), "marks must be 2 or 3, got 4"),
        (lambda: temporal_order(2, 40), "length must be at least 50, got 40"),
        (lambda: long_lag(-1, 3), "lag must be zero or positive, got -1"),
        (lambda: long_lag(5, 0), "distractors must be positive, got 0"),
        (lambda: two_sequences(1), "lag must be at least 2, got 1"),
    ],
)
def test_errors_name_what_is_wrong(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
