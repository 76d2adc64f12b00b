"""Examples in batches: shuffled anew in every pass, those of similar length together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch

from gatewise.models import processes

Item = TypeVar("Item")

_POOL = 50  # batches' worth of examples are sorted by length at a time


class Batches:
    """Which examples each batch of each pass holds: a function of the seed alone.

    A pass draws the examples in a random order, sorts every 50 batches' worth of them by length,
    so that little is padded, and gives out the batches in a random order again.

    >>> batches = Batches([5, 1, 4, 2, 3], size=2, seed=0)
    >>> sorted(i for k in range(len(batches)) for i in batches.examples(epoch=7, batch=k))
    [0, 1, 2, 3, 4]
    """

    def __init__(self, lengths: Sequence[int], size: int, seed: int) -> None:
        if not lengths:
            raise ValueError("there must be at least one example, got none")
        if size < 1:
            raise ValueError(f"size must be positive, got {size}")
        self._lengths = torch.tensor(lengths)
        self.size, self.seed = size, seed
        self._epoch, self._order = -1, list[list[int]]()

    def __len__(self) -> int:
        """Batches in one pass."""
        return -(-len(self._lengths) // self.size)

    def examples(self, epoch: int, batch: int) -> list[int]:
        """The numbers of the examples in `batch` of the pass `epoch`, this process's share."""
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._shuffled(epoch)
        return list(processes.share(self._order[batch]))

    def _shuffled(self, epoch: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % (1 << 63))
        drawn = torch.randperm(len(self._lengths), generator=generator)
        pools = [p[self._lengths[p].argsort(stable=True)] for p in drawn.split(_POOL * self.size)]
        batches = [b.tolist() for b in torch.cat(pools).split(self.size)]
        return [batches[k] for k in torch.randperm(len(batches), generator=generator).tolist()]


def chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """The items in their order, `size` at a time; the last ones may be fewer.

    >>> list(chunks("abcde", 2))
    ['ab', 'cd', 'e']
    """
    return (items[k : k + size] for k in range(0, len(items), size))
