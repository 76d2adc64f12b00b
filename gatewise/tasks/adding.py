"""Adding two marked numbers of a long sequence."""

from __future__ import annotations

from importlib.resources import files

from gatewise.executors.lanes import Task


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
    if length < 26:
        raise ValueError(f"length must be at least 26, got {length}")
    code = (files("gatewise.tasks") / "source" / "adding.c").read_text("utf-8")
    return Task(f"adding {length}", code, (float(length),), inputs=2, outputs=1)
