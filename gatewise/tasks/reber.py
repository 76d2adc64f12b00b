"""The embedded Reber grammar: strings without end, and fixed sets of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate, count

from gatewise.executors.lanes import Task
from gatewise.tasks.text import code

SYMBOLS = "BTPSXVE"
_SETS = 3  # the purpose under which fixed sets are drawn: neither training nor a test
_AT_ONCE = 512

# One string: (symbol, next symbol, bits of the symbols that may be next) for every step.
String = tuple[tuple[int, int, int], ...]


def embedded_reber() -> Task:
    """Strings of the embedded Reber grammar (1997, experiment 1): predict every next symbol.

    B, T or P, a Reber string, the same T or P again, E. Symbols are 0 … 6 in the order BTPSXVE;
    the last is a target only.

    >>> x, lengths, target = embedded_reber().sequences(1)
    >>> "".join(SYMBOLS[s] for s in x[: lengths[0], 0])[:3] in ("BTB", "BPB")
    True
    """
    return Task(
        "embedded Reber",
        code("embedded_reber.c"),
        (),
        inputs=len(SYMBOLS),
        outputs=len(SYMBOLS),
        symbols=True,
        every_step=True,
        target_symbols=True,
        ranked=True,
    )


def embedded_reber_sets(pair: int = 0, seed: int = 0, training: int = 256, test: int = 256) -> Task:
    """As `embedded_reber`, from a fixed training set.

    Training picks strings of the training set at random; a test runs those of the training set,
    then those of the test set, none of which is in the training set.

    Args:
        pair: which pair of sets.
        seed: of the sets' random numbers.
        training, test: how many strings each has.

    Raises:
        TypeError, ValueError: a set without strings, a negative pair, or a seed out of range.
    """
    for name, value in {"training": training, "test": test}.items():
        if value < 1:
            raise ValueError(f"{name} must be positive, got {value}")
    drawn = _strings(seed, pair)
    train = [next(drawn) for _ in range(training)]
    known = set(train)
    fresh = (s for s in drawn if s not in known)
    strings = train + [next(fresh) for _ in range(test)]
    sizes = [1 + 3 * len(s) for s in strings]
    begins = accumulate(sizes[:-1], initial=3 + len(strings))
    data = [float(n) for s in strings for n in (len(s), *(v for step in s for v in step))]
    head = (training, len(strings), max(map(len, strings)), *begins)
    return replace(
        embedded_reber(),
        name=f"embedded Reber, pair {pair}",
        code=code("listed.c"),
        parameters=(*map(float, head), *data),
    )


def _strings(seed: int, pair: int) -> Iterator[String]:
    task = embedded_reber()
    for first in count(0, _AT_ONCE):
        drawn = (_AT_ONCE, seed, pair, first, _SETS)
        x, lengths, target = task.sequences(*drawn)
        held = (x, target, task.possible(*drawn))  # [T, B] each
        columns = zip(*(t.T.tolist() for t in held), lengths.tolist(), strict=True)
        for symbols, targets, possible, n in columns:
            yield tuple(zip(symbols[:n], targets[:n], possible[:n], strict=True))
