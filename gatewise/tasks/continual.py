"""Embedded Reber strings one after the other, in one stream that says nothing of their ends."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gatewise.executors.lanes import Sequences
from gatewise.tasks.reber import SYMBOLS, embedded_reber

_END, _BEGIN = SYMBOLS.index("E"), SYMBOLS.index("B")


@dataclass(frozen=True)
class ContinualReber:
    """The continual embedded Reber grammar (Gers, Schmidhuber & Cummins, 2000).

    A sequence is `strings` strings without a gap: after the E of one comes the B of the next, and
    the state is never reset between. Every next symbol is predicted, the B too.

    Args:
        strings: how many make a sequence.

    Raises:
        ValueError: `strings` below 1.

    >>> x, lengths, target = ContinualReber(2).sequences(1)
    >>> "".join(SYMBOLS[s] for s in x[: lengths[0], 0])[-1]
    'E'
    """

    strings: int

    def __post_init__(self) -> None:
        if self.strings < 1:
            raise ValueError(f"strings must be positive, got {self.strings}")

    inputs = outputs = len(SYMBOLS)
    symbols = every_step = target_symbols = ranked = True

    @property
    def name(self) -> str:
        return f"continual Reber {self.strings}"

    def sequences(
        self, count: int, seed: int = 0, stream: int = 0, first: int = 0, purpose: int = 0
    ) -> Sequences:
        """Sequences number first … first+count-1; strings number first·strings … of that stream.

        Raises ValueError as `Task.sequences`.
        """
        n = self.strings
        x, lengths, target = embedded_reber().sequences(count * n, seed, stream, first * n, purpose)
        whole = (lengths + 1).view(count, n).sum(1)
        read = self._joined(x, lengths, _END)
        return Sequences(read, whole, self._joined(target, lengths, _BEGIN))

    def possible(
        self, count: int, seed: int = 0, stream: int = 0, first: int = 0, purpose: int = 0
    ) -> torch.Tensor:
        """int64 [T, B]: bit k is set where symbol k may come next; 0 past a sequence's length."""
        drawn = (count * self.strings, seed, stream, first * self.strings, purpose)
        task = embedded_reber()
        return self._joined(task.possible(*drawn), task.sequences(*drawn).lengths, 1 << _BEGIN)

    def _joined(self, steps: torch.Tensor, lengths: torch.Tensor, last: int) -> torch.Tensor:
        """Strings [T, count·strings], each followed by `last`, one after the other: [T', count]."""
        pieces = [
            torch.cat([column[:n], column.new_tensor([last])])
            for column, n in zip(steps.T, lengths.tolist(), strict=True)
        ]
        rows = [
            torch.cat(pieces[k : k + self.strings]) for k in range(0, len(pieces), self.strings)
        ]
        return torch.nn.utils.rnn.pad_sequence(rows) if rows else steps[:0]
