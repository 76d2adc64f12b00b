"""Recall of values by their keys."""

from __future__ import annotations

import torch

from gatewise.executors.lanes import Sequences
from gatewise.tasks.drawn import UNASKED, Drawn, below, check_range

KEYS = VALUES = 32
BLANK = KEYS + VALUES


def associative_recall(length: int, shortest: int = 1, gap: int = 0) -> Drawn:
    """Pairs of a key and a value, then the keys again in another order: what was the value?

    The number of pairs is uniform in `shortest` … `length`; keys differ, values are free. Symbols:
    32 keys, then 32 values; outputs are the values. With `gap`, so many blanks as are uniform in
    0 … `gap` stand between the pairs and the queries, a 65th symbol.

    Source: Arora et al., Zoology: measuring and improving recall in efficient language models, 2023
    (multi-query associative recall).

    Raises:
        ValueError: not 1 <= shortest <= length <= 32, the number of keys, or a negative gap.
    """
    check_range(length, shortest)
    if length > KEYS:
        raise ValueError(f"length must be at most {KEYS}, the number of keys, got {length}")
    if gap < 0:
        raise ValueError(f"gap must be zero or positive, got {gap}")

    def make(u: torch.Tensor) -> Sequences:
        pairs = shortest + below(u[:, :1], length - shortest + 1)  # [B, 1]
        parts = u[:, 1:].split([KEYS, length, length, blanks], 1)
        keys = parts[0].argsort(1)[:, :length]
        values = below(parts[1], VALUES)
        place = torch.arange(length)
        queried = torch.where(place < pairs, parts[2], 2.0).argsort(1)  # the unused come last
        shown = torch.stack([keys, KEYS + values], -1).flatten(1)
        asked = keys.gather(1, queried)
        wait = below(parts[3], gap + 1) if blanks else 0  # [B, 1]
        begin = 2 * pairs + wait  # of the queries
        time = torch.arange(3 * length + gap)
        ask = (time - begin).clamp(0, length - 1)
        ends, first = time < begin + pairs, time < 2 * pairs
        padded = shown[:, time.clamp(max=2 * length - 1)]  # as long as the whole; masked away
        x = torch.where(time < begin, BLANK, asked.gather(1, ask))
        x = torch.where(first, padded, torch.where(ends, x, 0))
        answer = values.gather(1, queried).gather(1, ask)
        target = torch.where(ends & (time >= begin), answer, UNASKED)
        lengths = (begin + pairs)[:, 0]
        longest = int(lengths.max()) if len(u) else 0
        return Sequences(x.T[:longest].contiguous(), lengths, target.T[:longest].contiguous())

    blanks = int(gap > 0)  # as symbols, and as random numbers
    name = f"associative recall {length}" + (f", {gap} blanks" if gap else "")
    numbers, symbols = 1 + KEYS + 2 * length + blanks, BLANK + blanks
    return Drawn(name, make, numbers, symbols, VALUES, symbols=True, target_symbols=True)
