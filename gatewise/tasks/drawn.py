"""Tasks drawn by PyTorch, under the contract of those drawn in C.

B = sequences, N = random numbers of a sequence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from gatewise.executors.counter import checked_seed, uniform
from gatewise.executors.lanes import Sequences

UNASKED = -1  # a target symbol where nothing is to be predicted; among numbers it is NaN
_PURPOSES = 16


Make = Callable[[torch.Tensor], Sequences]


@dataclass(frozen=True)
class Drawn:
    """A task whose sequences PyTorch makes of random numbers.

    Args:
        name: for messages and reports.
        make: uniform numbers [B, N] in [0, 1) to B sequences, each from its own row.
        numbers: N.
        inputs: numbers of a step, or symbols there are.
        outputs: the same of a target.
        symbols: are inputs symbols?
        target_symbols: are targets symbols? `UNASKED` where nothing is to be predicted.
        every_step: is there a target at every step?
    """

    name: str
    make: Make
    numbers: int
    inputs: int
    outputs: int
    symbols: bool = False
    target_symbols: bool = False
    every_step: bool = True

    def sequences(
        self, count: int, seed: int = 0, stream: int = 0, first: int = 0, purpose: int = 0
    ) -> Sequences:
        """Sequences number first … first+count-1 of one stream, as `Task.sequences`.

        Sequence n is a function of (seed, stream, purpose, n) alone.

        Raises:
            TypeError, ValueError: a seed out of range, a negative count, stream or number; a
                purpose outside 0…15.
        """
        seed = checked_seed(seed)
        for name, value in {"count": count, "stream": stream, "first": first}.items():
            if value < 0:
                raise ValueError(f"{name} must be zero or positive, got {value}")
        if not 0 <= purpose < _PURPOSES:
            raise ValueError(f"purpose must be in 0…{_PURPOSES - 1}, got {purpose}")
        word = stream * _PURPOSES + purpose
        return self.make(uniform(seed, word, range(first, first + count), 1, self.numbers)[:, 0])


def below(uniform: torch.Tensor, n: int) -> torch.Tensor:
    """Whole numbers 0 … n-1."""
    return (uniform * n).to(torch.int64)


def steps_of(lengths: torch.Tensor) -> torch.Tensor:
    """0 … longest-1 as a column [T, 1]."""
    return torch.arange(int(lengths.max()) if len(lengths) else 0).unsqueeze(1)


def check_range(length: int, shortest: int, least: int = 1) -> None:
    """Raise ValueError unless least <= shortest <= length."""
    if not least <= shortest <= length:
        raise ValueError(
            f"length must be at least shortest, and that at least {least}, got {length}, {shortest}"
        )
