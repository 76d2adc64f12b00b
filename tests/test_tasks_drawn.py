"""Tasks drawn by PyTorch against their definitions, read off the sequences symbol by symbol."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import accumulate, pairwise
from typing import Any

import pytest
import torch

from gatewise.tasks import (
    ContinualReber,
    associative_recall,
    copy,
    embedded_reber,
    equal_counts,
    parity,
    permutation_products,
    selective_copy,
    spike_delays,
    timed_spikes,
)
from gatewise.tasks.copying import BLANK, SIGNAL
from gatewise.tasks.drawn import UNASKED
from gatewise.tasks.recall import BLANK as PAUSE
from gatewise.tasks.recall import KEYS

COUNT = 300
TASKS = [
    ContinualReber(2),
    equal_counts(7),
    copy(6, shortest=0),
    selective_copy(20, shortest=12),
    parity(9),
    permutation_products(9, 3),
    associative_recall(5),
    associative_recall(4, gap=3),
    spike_delays(6, spread=3),
    timed_spikes(6),
]


def rows(task: Any, **how: int) -> Iterator[tuple[list[Any], list[Any]]]:
    """Inputs and targets of each sequence, step by step."""
    x, lengths, target = task.sequences(COUNT, **how)
    assert len(x) == len(target) == lengths.max() and lengths.min() >= 1
    for b, n in enumerate(lengths.tolist()):
        yield x[:n, b].tolist(), target[:n, b].tolist()


@pytest.mark.parametrize("letters", [2, 3])
def test_equal_counts(letters: int) -> None:
    seen = set()
    for x, target in rows(equal_counts(6, shortest=2, letters=letters)):
        n = x.count(0)
        seen.add(n)
        assert x == [letters, *(k for k in range(letters) for _ in range(n))]
        word = "".join("abc"[k] for k in x[1:])
        strings = [("abc"[:letters], m) for m in range(1, 30)]
        language = {"".join(c * m for c in chosen) for chosen, m in strings}
        for t in range(len(x)):
            begun = word[:t]
            longer = {s[t : t + 1] or "end" for s in language if s.startswith(begun)}
            outputs = [*"abc"[:letters], "end"]
            assert target[t] == [float(o in longer) for o in outputs]
    assert seen == set(range(2, 7))


@pytest.mark.parametrize("make", [copy, selective_copy])
def test_copies(make: Any) -> None:
    places, spans = set(), set()
    for x, target in rows(make(17, shortest=13, items=3)):
        assert x[-3:] == [SIGNAL] * 3 and SIGNAL not in x[:-3]
        told = [s for s in x if s < BLANK]
        assert target == [UNASKED] * (len(x) - 3) + told and len(told) == 3
        places |= {t for t, s in enumerate(x) if s < BLANK}
        spans.add(len(x) - 3 - (3 if make is copy else 0))
    assert spans == set(range(13, 18))
    assert places == (set(range(3)) if make is copy else set(range(17)))


def test_parity() -> None:
    for x, target in rows(parity(9)):
        assert target == [sum(x[: t + 1]) % 2 for t in range(9)]


@pytest.mark.parametrize(("objects", "order"), [(3, 6), (5, 120)])
def test_permutation_products(objects: int, order: int) -> None:
    task = permutation_products(40, objects)
    assert task.outputs == order
    met: dict[int, tuple[int, ...]] = {}  # class -> what the moves did to a row of objects
    for x, target in rows(task):
        row = list(range(objects))
        for symbol, state in zip(x, target, strict=True):
            if symbol == 0:
                row[0], row[1] = row[1], row[0]
            else:
                row = [*row[1:], row[0]]
            assert met.setdefault(state, tuple(row)) == tuple(row)
    assert len(met) == len(set(met.values())) == order
    assert sorted(met.values()) == [met[k] for k in range(order)]


def test_associative_recall() -> None:
    pairs = set()
    for x, target in rows(associative_recall(5, shortest=2)):
        n = len(x) // 3
        pairs.add(n)
        told = dict(zip(x[0 : 2 * n : 2], x[1 : 2 * n : 2], strict=True))
        assert len(told) == n and max(told) < KEYS <= min(told.values())
        assert sorted(x[2 * n :]) == sorted(told)
        assert target == [UNASKED] * 2 * n + [told[k] - KEYS for k in x[2 * n :]]
    assert pairs == {2, 3, 4, 5}
    waits = set()
    for x, target in rows(associative_recall(3, shortest=2, gap=4)):
        blanks = x.count(PAUSE)
        n = (len(x) - blanks) // 3
        waits.add(blanks)
        whole = x[: 2 * n] + x[2 * n + blanks :]
        assert PAUSE not in whole
        assert target[: 2 * n + blanks] == [UNASKED] * (2 * n + blanks)
        told = dict(zip(whole[0 : 2 * n : 2], whole[1 : 2 * n : 2], strict=True))
        assert [told[k] - KEYS for k in whole[2 * n :]] == target[2 * n + blanks :]
    assert waits == {0, 1, 2, 3, 4}
    orders = [x[0:6:2] == x[6:] for x, _ in rows(associative_recall(3, shortest=3))]
    assert 0 < sum(orders) < COUNT / 2  # one of six


def test_spike_delays() -> None:
    seen = set()
    for x, target in rows(spike_delays(6, spread=3)):
        spikes = [t for t, (v,) in enumerate(x) if v == 1]
        assert spikes[0] == 0 and spikes[-1] == len(x) - 1 and len(spikes) == 6
        assert sum(v for (v,) in x) == 6
        asked = {t: v for t, (v,) in enumerate(target) if not math.isnan(v)}
        assert asked == {b: b - a - 6 for a, b in pairwise(spikes)}
        seen |= set(asked.values())
    assert seen == {0, 1, 2, 3}


def test_timed_spikes() -> None:
    for x, target in rows(timed_spikes(6)):
        spikes = [t for t, (v,) in enumerate(target) if v == 1]
        assert spikes[0] == 0 and spikes[-1] == len(x) - 1
        for a, b in pairwise(spikes):
            assert [v for (v,) in x[a + 1 : b + 1]] == [b - a - 6] * (b - a)


def test_continual_reber() -> None:
    end, begin = "BTPSXVE".index("E"), "BTPSXVE".index("B")
    singles = embedded_reber().sequences(3 * COUNT, seed=4, purpose=1)
    words = [list(w[:n]) for w, n in zip(singles.x.T.tolist(), singles.lengths, strict=True)]
    task = ContinualReber(3)
    allowed = task.possible(COUNT, seed=4, purpose=1).T.tolist()
    for k, (x, target) in enumerate(rows(task, seed=4, purpose=1)):
        three = words[3 * k : 3 * k + 3]
        assert x == [s for w in three for s in (*w, end)]
        assert target == [*x[1:], begin]
        may = allowed[k][: len(x)]
        assert all(m >> s & 1 for m, s in zip(may, target, strict=True))
        ends = accumulate(len(w) + 1 for w in three)
        assert all(may[t - 1] == 1 << begin for t in ends)
        assert not any(allowed[k][len(x) :])


@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.name)
def test_sequences_do_not_depend_on_their_neighbours(task: Any) -> None:
    whole = task.sequences(9, seed=1, stream=3)
    x, lengths, target = task.sequences(4, seed=1, stream=3, first=5)
    assert torch.equal(lengths, whole.lengths[5:])
    for row, n in enumerate(lengths.tolist()):
        assert torch.equal(x[:n, row], whole.x[:n, 5 + row])
        torch.testing.assert_close(
            target[:n, row], whole.target[:n, 5 + row], rtol=0, atol=0, equal_nan=True
        )
    for other in ({"seed": 2}, {"stream": 4}, {"purpose": 1}, {"first": 9}):
        drawn = task.sequences(9, **{"seed": 1, "stream": 3, **other})
        assert not (drawn.x.shape == whole.x.shape and torch.equal(drawn.x, whole.x))
    assert task.sequences(0).x.shape[1] == len(task.sequences(0).lengths) == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ContinualReber(0), "strings must be positive, got 0"),
        (lambda: equal_counts(3, 4), "length must be at least shortest"),
        (lambda: equal_counts(3, letters=1), "letters must be at least 2, got 1"),
        (lambda: copy(3, items=0), "items must be positive, got 0"),
        (lambda: selective_copy(9, items=10), "that at least 10, got 9, 9"),
        (lambda: parity(0), "at least 1, got 0"),
        (lambda: permutation_products(3, 2), "objects must be at least 3, got 2"),
        (lambda: associative_recall(33), "at most 32, the number of keys, got 33"),
        (lambda: spike_delays(5, spread=0), "spread must be positive, got 0"),
        (lambda: parity(3).sequences(-1), "count must be zero or positive, got -1"),
        (lambda: parity(3).sequences(1, purpose=16), "purpose must be in 0…15, got 16"),
    ],
)
def test_errors_name_what_is_wrong(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
