"""Batches: every example once per pass, little padding, an order that the seed alone decides."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewise.models.batches import Batches


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=300), st.integers(1, 9), st.integers(0, 99)
)
def test_a_pass_holds_every_example_once(lengths: list[int], size: int, epoch: int) -> None:
    batches = Batches(lengths, size, seed=3)
    seen = [batches.examples(epoch, k) for k in range(len(batches))]
    assert sorted(i for batch in seen for i in batch) == list(range(len(lengths)))
    assert all(len(batch) <= size for batch in seen)


def test_the_order_depends_on_seed_and_pass_alone() -> None:
    lengths = list(range(100))
    one, two, three = (Batches(lengths, 7, seed) for seed in (0, 0, 1))
    two.examples(5, 0)  # what was asked for before does not matter
    assert [one.examples(1, k) for k in range(15)] == [two.examples(1, k) for k in range(15)]
    assert one.examples(1, 0) != one.examples(2, 0)
    assert one.examples(1, 0) != three.examples(1, 0)


def test_lengths_of_a_batch_are_close() -> None:
    lengths = [k % 40 for k in range(1000)]
    batches = Batches(lengths, 10, seed=0)
    spans = [
        max(lengths[i] for i in b) - min(lengths[i] for i in b)
        for b in (batches.examples(0, k) for k in range(len(batches)))
    ]
    assert sum(spans) / len(spans) < 5  # 40 drawn at random would span 36


def test_what_cannot_be_batched() -> None:
    with pytest.raises(ValueError, match="at least one example"):
        Batches([], 3, 0)
    with pytest.raises(ValueError, match="size must be positive, got 0"):
        Batches([1], 0, 0)
