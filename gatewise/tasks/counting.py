"""Languages that need counting."""

from __future__ import annotations

import torch
from torch.nn.functional import one_hot

from gatewise.executors.lanes import Sequences
from gatewise.tasks.drawn import Drawn, below, check_range, steps_of


def equal_counts(length: int, shortest: int = 1, letters: int = 2) -> Drawn:
    """Strings aⁿbⁿ, or aⁿbⁿcⁿ with three letters: which symbols may come next, at every step.

    The start symbol, then n of each letter, n uniform in `shortest` … `length`. Input symbols: the
    letters 0, 1, …, then the start. The target is 1 for what may come next, else 0: the first
    letter after the start, the first or the second while a's are read, and from then on the one
    letter, or the end (the last output), that counting allows.

    Source: Gers & Schmidhuber, LSTM recurrent networks learn simple context-free and
    context-sensitive languages, 2001.

    Raises:
        ValueError: fewer than two letters, or not 1 <= shortest <= length.
    """
    if letters < 2:
        raise ValueError(f"letters must be at least 2, got {letters}")
    check_range(length, shortest)

    def make(u: torch.Tensor) -> Sequences:
        n = shortest + below(u[:, 0], length - shortest + 1)
        lengths = 1 + letters * n
        read = steps_of(lengths)  # letters
        live = read < lengths
        x = torch.where(read > 0, (read - 1) // n, letters)
        allowed = one_hot((read // n).clamp(max=letters), letters + 1)
        either = (read > 0) & (read <= n)
        allowed[..., :2] |= either.unsqueeze(-1).to(allowed.dtype)
        target = torch.where(live.unsqueeze(-1), allowed, 0).float()
        return Sequences(torch.where(live, x, 0), lengths, target)

    name = "".join(f"{chr(ord('a') + k)}ⁿ" for k in range(letters))
    return Drawn(f"{name} {length}", make, 1, letters + 1, letters + 1, symbols=True)
