"""Adding and multiplying two marked numbers of a long sequence."""

from __future__ import annotations

from gatewise.executors.lanes import Task
from gatewise.tasks.text import code


def adding(length: int) -> Task:
    """The adding problem (Hochreiter & Schmidhuber, 1997, experiment 4).

    Pairs (value uniform in [-1, 1), marker); one of the first ten and one of the first
    `length`/2 - 1 are marked 1. Sequences have length … length·1.1 pairs; the target at the end is
    0.5 + (X1 + X2) / 4. A marked first pair has the value 0.

    Raises:
        ValueError: `length` below 26, where fewer than two of ten pairs could be marked.

    >>> x, lengths, target = adding(100).sequences(3)
    >>> x.shape[1:], target.shape
    (torch.Size([3, 2]), torch.Size([3, 1]))
    """
    return _marked_pairs("adding", length, multiply=False)


def multiplication(length: int) -> Task:
    """The multiplication problem (Hochreiter & Schmidhuber, 1997, experiment 5).

    As `adding`, with values in [0, 1), the target X1 · X2, and 1 for a marked first pair.

    Raises:
        ValueError: as `adding`.
    """
    return _marked_pairs("multiplication", length, multiply=True)


def _marked_pairs(name: str, length: int, multiply: bool) -> Task:
    if length < 26:
        raise ValueError(f"length must be at least 26, got {length}")
    text = code("marked_pairs.c", MULTIPLY=int(multiply))
    return Task(f"{name} {length}", text, (float(length),), inputs=2, outputs=1)
