"""The CRF against the enumeration of every path."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewise.models.crf import CRF


def make(tags: int, seed: int) -> CRF:
    torch.manual_seed(seed)
    crf = CRF(tags).double()
    with torch.no_grad():
        for parameter in crf.parameters():
            parameter.normal_()
    return crf


def score(crf: CRF, x: torch.Tensor, path: tuple[int, ...]) -> torch.Tensor:
    """Of one path through x [T, K], as the equation says."""
    total = crf.begin[path[0]] + crf.end[path[-1]]
    total = total + sum(x[t, tag] for t, tag in enumerate(path))
    return total + sum(crf.follow[a, b] for a, b in itertools.pairwise(path))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.lists(st.integers(1, 5), min_size=1, max_size=3), st.integers(0, 9))
def test_every_path_counted(tags: int, lengths: list[int], seed: int) -> None:
    crf = make(tags, seed)
    x = torch.randn(max(lengths), len(lengths), tags, dtype=torch.float64)
    y = torch.randint(tags, x.shape[:2])
    found = crf.log_likelihood(x, y, torch.tensor(lengths))
    best = crf.best(x, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        own = x[:length, row]
        paths = list(itertools.product(range(tags), repeat=length))
        scores = torch.stack([score(crf, own, p) for p in paths])
        expected = score(crf, own, tuple(y[:length, row].tolist())) - scores.logsumexp(0)
        torch.testing.assert_close(found[row], expected, rtol=1e-10, atol=1e-10)
        assert tuple(best[row]) == paths[int(scores.argmax())]


def test_probabilities_of_all_paths_sum_to_one() -> None:
    crf, x = make(3, 0), torch.randn(4, 1, 3, dtype=torch.float64)
    paths = torch.tensor(list(itertools.product(range(3), repeat=4))).T
    many = x.expand(4, paths.shape[1], 3)
    found = crf.log_likelihood(many, paths, torch.full((paths.shape[1],), 4))
    assert found.exp().sum().item() == pytest.approx(1.0)


def test_padding_changes_nothing_nor_has_a_gradient() -> None:
    crf, lengths = make(3, 1), torch.tensor([2, 4])
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    y = torch.randint(3, (4, 2))
    y[2:, 0] = -1
    before = crf.log_likelihood(x, y, lengths)
    x[2:, 0] = 1e6
    x.requires_grad_()
    after = crf.log_likelihood(x, y, lengths)
    assert torch.equal(before, after)
    after.sum().backward()
    assert x.grad is not None
    assert not x.grad[2:, 0].any()


def test_it_learns_what_may_not_follow() -> None:
    """Tags alternate; the scores say nothing: all must be learned from what follows what."""
    crf = CRF(2)
    y = torch.tensor([[0, 1], [1, 0], [0, 1], [1, 0]])
    x, lengths = torch.zeros(4, 2, 2), torch.tensor([4, 4])
    optimizer = torch.optim.AdamW(crf.parameters(), 0.1, weight_decay=0.0)
    for _ in range(60):
        optimizer.zero_grad()
        (-crf.log_likelihood(x, y, lengths).sum()).backward()
        optimizer.step()
    (path,) = crf.best(torch.zeros(6, 1, 2), torch.tensor([6]))
    assert path in ([0, 1] * 3, [1, 0] * 3)
