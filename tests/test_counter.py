"""Random numbers from a counter: known answers, uniformity, independence of chunking."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gatewise.executors.counter import on_tensors, philox, uniform
from gatewise.executors.cpu import toolchain
from gatewise.executors.cpu.uniform import uniform as compiled

# Known-answer vectors of Random123 1.14 (kat_vectors, philox4x32 10): counter, key, result.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip


def words(text: str) -> list[int]:
    return [int(w, 16) for w in text.split()]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_philox_known_answers(counter: str, key: str, expected: str) -> None:
    k0, k1 = words(key)
    got = philox(tuple(torch.tensor([w]) for w in words(counter)), (k0, k1))
    assert [int(w) for w in got] == words(expected)


def test_numbers_are_uniform() -> None:
    u = uniform(seed=1, stream=0, steps=range(100), rows=10, units=100)
    n = u.numel()
    assert 0 <= u.min() <= u.max() < 1
    # Five standard deviations of a mean of n uniform numbers, and of a count of n/16.
    assert abs(u.mean() - 0.5) < 5 * (1 / 12 / n) ** 0.5
    counts = torch.histc(u, 16, 0, 1)
    assert (counts - n / 16).abs().max() < 5 * (n / 16 * 15 / 16) ** 0.5
    # Neighbours along every axis are uncorrelated, to five standard deviations.
    v = u - 0.5
    for axis in range(3):
        a, b = v.narrow(axis, 0, v.shape[axis] - 1), v.narrow(axis, 1, v.shape[axis] - 1)
        assert abs((a * b).mean() * 12) < 5 * a.numel() ** -0.5


def test_a_number_depends_on_its_place_only() -> None:
    whole = uniform(5, 2, range(10), rows=6, units=9)
    assert torch.equal(uniform(5, 2, range(4, 10), rows=6, units=9), whole[4:])
    assert torch.equal(uniform(5, 2, range(10), rows=3, units=9), whole[:, :3])
    assert torch.equal(uniform(5, 2, range(10), rows=6, units=6), whole[..., :6])
    assert uniform(5, 2, range(0), rows=6, units=9).shape == (0, 6, 9)


@pytest.mark.skipif(not toolchain.ladder(), reason="this machine has no C compiler")
@given(
    seed=st.integers(-(2**63), 2**64 - 1),
    stream=st.integers(0, 2**32 - 1),
    first=st.integers(0, 2**31),
    sizes=st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 200)),
)
def test_compiled_numbers_are_the_defined_ones_to_the_bit(
    seed: int, stream: int, first: int, sizes: tuple[int, int, int]
) -> None:
    steps, (rows, units) = range(first, first + sizes[0]), sizes[1:]
    drawn = compiled(seed, stream, steps, rows, units)
    assert drawn is not None
    assert torch.equal(drawn, on_tensors(seed, stream, steps, rows, units, "cpu"))


def test_many_compiled_numbers_are_split_over_threads() -> None:
    torch.set_num_threads(3)
    drawn = compiled(7, 1, range(40, 80), 29, 130)
    assert drawn is not None
    assert torch.equal(drawn, on_tensors(7, 1, range(40, 80), 29, 130, "cpu"))


@pytest.mark.parametrize("other", [{"seed": 6}, {"seed": 5 + 2**32}, {"stream": 3}])
def test_seeds_and_streams_differ(other: dict[str, int]) -> None:
    place = {"seed": 5, "stream": 2}
    a = uniform(**place, steps=range(4), rows=3, units=5, device="cpu")
    b = uniform(**place | other, steps=range(4), rows=3, units=5, device="cpu")
    assert not torch.isclose(a, b).any()
