"""Every task's sequences against its definition in the 1997 paper."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from gatewise.tasks import (
    embedded_reber,
    embedded_reber_sets,
    long_lag,
    multiplication,
    temporal_order,
    two_classes,
    two_sequences,
)
from gatewise.tasks.reber import SYMBOLS

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


def test_temporal_order_with_a_class_without_marks() -> None:
    x, _, target = temporal_order(2, 60, unmarked=True).sequences(COUNT)
    marks = (x >= 6).sum(0)
    assert set(marks.tolist()) == {0, 2} and torch.equal(target == 4, marks == 0)
    counts = torch.bincount(target, minlength=5) / COUNT
    assert all(within(float(c), 0.2, 0.4) for c in counts)
    first = (x[:20] >= 6).int().argmax(0)
    marked = torch.where(target < 4, x[first, torch.arange(COUNT)] == 7, target >= 2)
    assert torch.equal(marked | (target == 4), target >= 2)


def test_temporal_order_with_noise() -> None:
    clean = temporal_order(2, 60).sequences(COUNT)
    x, lengths, target = temporal_order(2, 60, noise=0.25).sequences(COUNT, dtype=torch.float64)
    assert torch.equal(lengths, clean.lengths) and torch.equal(target, clean.target)
    live = torch.arange(len(x)).unsqueeze(1) < lengths
    noise = (x - torch.nn.functional.one_hot(clean.x, 8))[live]  # [steps, 8]
    assert not x[~live].any()
    n = len(noise) ** 0.5
    assert (noise.mean(0).abs() < 5 * 0.25 / n).all()
    torch.testing.assert_close(noise.std(0), torch.full((8,), 0.25).double(), rtol=5 / n, atol=0)
    correlations = torch.corrcoef(noise.T) - torch.eye(8)
    assert correlations.abs().max() < 5 / n
    assert torch.corrcoef(torch.stack([noise[1:, 0], noise[:-1, 0]]))[0, 1].abs() < 5 / n


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


# Reber's grammar as a regular expression, its states eliminated by hand: (T S* X | P T* V) leads to
# the two places from which the string may end, and PX / XT* V … between them.
LOWER = "T*V"  # to where V ends the string and P goes up
REBER = re.compile(f"B(?:TS*X|P{LOWER}P)(?:X{LOWER}P)*(?:S|X{LOWER}V)E|BP{LOWER}VE")


def embedded(string: str) -> bool:
    return string[:2] in ("BT", "BP") and string[-2:] == string[1] + "E" and reber(string[2:-2])


def reber(string: str) -> bool:
    return REBER.fullmatch(string) is not None


def strings_of(task: Any, count: int, **options: Any) -> list[str]:
    x, lengths, target = task.sequences(count, **options)
    for k, n in enumerate(lengths.tolist()):
        assert torch.equal(x[1:n, k], target[: n - 1, k])
    words = torch.cat([x[:1], target])  # the first symbol, then what follows each
    text = ["".join(SYMBOLS[s] for s in column) for column in words.T.tolist()]
    return [word[: n + 1] for word, n in zip(text, lengths.tolist(), strict=True)]


def test_the_expression_knows_reber_strings() -> None:
    """From Reber (1967) and the literature on his grammar."""
    for string in ("BTXSE", "BPVVE", "BTSSXXTVVE", "BPTVPXVVE", "BTXXVPSE", "BPVPSE"):
        assert reber(string), string
    for string in ("BTSE", "BPTVPE", "BTXSXE", "BPVPXSE", "TXSE", "BTXS"):
        assert not reber(string), string


def test_embedded_reber() -> None:
    task = embedded_reber()
    strings = strings_of(task, COUNT)
    assert all(embedded(s) for s in strings)
    assert within(sum(s[1] == "P" for s in strings) / COUNT, 0.5, 0.5)
    # the shortest Reber strings: TXS has three free choices, PVV three
    shortest = sum(len(s) == 9 for s in strings) / COUNT
    assert within(shortest, 0.25, (0.25 * 0.75) ** 0.5)
    assert max(len(s) for s in strings) > 20


def test_what_may_follow_is_what_does_follow() -> None:
    """Over many strings, the symbols seen after a beginning are those marked as possible."""
    task = embedded_reber()
    strings = strings_of(task, 6 * COUNT)
    possible = task.possible(6 * COUNT)
    seen: dict[str, set[int]] = {}
    marked: dict[str, int] = {}
    for k, string in enumerate(strings):
        for t in range(len(string) - 1):
            seen.setdefault(string[: t + 1], set()).add(SYMBOLS.index(string[t + 1]))
            mark = marked.setdefault(string[: t + 1], int(possible[t, k]))
            assert mark == int(possible[t, k])
        assert not possible[len(string) - 1 :, k].any()
    for beginning, symbols in seen.items():
        mark = {b for b in range(7) if marked[beginning] >> b & 1}
        assert symbols <= mark, beginning
    common = ("B", "BT", "BP", "BTB", "BTBT", "BTBTX", "BPBPV", "BPBPVV", "BTBTXSE", "BTBTXSET")
    for beginning in common:
        mark = {b for b in range(7) if marked[beginning] >> b & 1}
        assert seen[beginning] == mark, beginning


def test_sets_of_embedded_reber_strings() -> None:
    pairs = [embedded_reber_sets(pair) for pair in (0, 1)]
    both = []
    for task in pairs:
        listed = strings_of(task, 512, purpose=1)
        assert all(embedded(s) for s in listed)
        training, test = listed[:256], listed[256:]
        assert not set(training) & set(test)
        drawn = strings_of(task, 4000)
        assert set(drawn) == set(training)  # each has 1 in 256, so none is missing
        both.append(training)
        own = dict(
            zip(strings_of(embedded_reber(), 50), embedded_reber().possible(50).T, strict=True)
        )
        for string, mark in zip(listed, task.possible(512, purpose=1).T, strict=True):
            if string in own:
                n = len(string) - 1
                assert torch.equal(mark[:n], own[string][:n])
    assert both[0] != both[1]
    assert embedded_reber_sets(0).parameters == pairs[0].parameters
    assert embedded_reber_sets(0, seed=1).parameters != pairs[0].parameters


@pytest.mark.parametrize(
    ("noisy_information", "noisy_targets"), [(False, False), (True, False), (False, True)]
)
def test_two_classes(noisy_information: bool, noisy_targets: bool) -> None:
    task = two_classes(100, 3, noisy_information, noisy_targets)
    x, lengths, target = task.sequences(COUNT, dtype=torch.float64)
    assert lengths.min() == 100 and lengths.max() == 110
    assert within(float(lengths.double().mean()), 105, 3.163)
    live = torch.arange(len(x)).unsqueeze(1) < lengths
    x, spread = x[..., 0], 0.2**0.5
    sign = x[:3].mean(0).sign()
    assert within(float((sign > 0).double().mean()), 0.5, 0.5)
    deviates = [x[3:][live[3:]] / spread]
    if noisy_information:
        # three elements of standard deviation 0.45 around ±1: their mean tells the class 3.9 sigma
        deviates.append(((x[:3] - sign) / spread).flatten())
        assert (x[:3].sign() != sign).any()
    else:
        assert torch.equal(x[:3], sign.expand(3, -1))
    for d in deviates:
        n, tolerance = len(d), 4.5
        # the first four moments of a standard normal deviate
        for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
            assert abs(d.pow(power).mean() - mean) < tolerance * (variance / n) ** 0.5, power
        for edge in (0.5, 1.0, 2.0, 3.0):
            tail = torch.erfc(torch.tensor(edge / 2**0.5))
            share = (d.abs() > edge).double().mean()
            assert abs(share - tail) < tolerance * (tail / n) ** 0.5 + 1e-5, edge
    clean = torch.where(sign > 0, 0.2, 0.8) if noisy_targets else (sign > 0).double()
    if noisy_targets:
        noise = target[:, 0] - clean
        assert within(float(noise.mean()), 0.0, 0.1**0.5)
        assert within(float(noise.square().mean()), 0.1, 0.1 * 2**0.5)
        test = task.sequences(300, purpose=1, dtype=torch.float64).target
        assert set(test.flatten().tolist()) == {0.2, 0.8}
    else:
        torch.testing.assert_close(target[:, 0].double(), clean.double())


def test_deviates_of_neighbouring_steps_are_uncorrelated() -> None:
    x = two_classes(200, 1).sequences(COUNT, dtype=torch.float64).x[1:200, :, 0] / 0.2**0.5
    for lag in (1, 2, 3, 4):
        a, b = x[lag:], x[:-lag]
        for f in (lambda v: v, torch.square):
            product = f(a) * f(b)
            spread = float(product.std()) / product.numel() ** 0.5
            assert abs(float(product.mean() - f(a).mean() * f(b).mean())) < 4.5 * spread, lag


@pytest.mark.parametrize(
    "task",
    [
        multiplication(40),
        temporal_order(2, 50),
        long_lag(5, 7),
        two_sequences(9, True),
        two_classes(40, 3, True, True),
        embedded_reber(),
    ],
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
        (lambda: temporal_order(2, 50, noise=-1.0), "noise must be zero or positive, got -1.0"),
        (lambda: temporal_order(2, 40), "length must be at least 50, got 40"),
        (lambda: long_lag(-1, 3), "lag must be zero or positive, got -1"),
        (lambda: long_lag(5, 0), "distractors must be positive, got 0"),
        (lambda: two_sequences(1), "lag must be at least 2, got 1"),
        (lambda: two_classes(10, 0), "information must be positive, got 0"),
        (lambda: two_classes(3, 3), "length must be above information = 3, got 3"),
        (lambda: embedded_reber_sets(training=0), "training must be positive, got 0"),
        (lambda: embedded_reber_sets(pair=-1), "stream must be zero or positive, got -1"),
        (lambda: two_classes().possible(1), "needs a ranked task, two classes 100 3 is none"),
    ],
)
def test_errors_name_what_is_wrong(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
