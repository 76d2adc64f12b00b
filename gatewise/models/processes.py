"""One model trained by several processes, each on its share of every batch (torchrun, gloo).

Every process has the whole model and all data. Of a batch it takes every P-th row; gradients are
summed over the processes, so that all of them take the step that one process would take with the
whole batch. In a single process everything here gives back what it is given.

P = processes, B = rows of a batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn

Item = TypeVar("Item")


class EmptyShare(Exception):
    """A batch has fewer rows than there are processes: this one has nothing to do."""


@contextmanager
def torchrun() -> Iterator[None]:
    """Inside, this process is one of those that torchrun started, if it did."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    dist.init_process_group("gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def count() -> int:
    """P."""
    return dist.get_world_size() if dist.is_initialized() else 1


def number() -> int:
    """Which of the processes this is; number 0 writes the files and speaks."""
    return dist.get_rank() if dist.is_initialized() else 0


def share(rows: Sequence[Item]) -> Sequence[Item]:
    """This process's rows of a batch, every P-th; raises EmptyShare where there is none."""
    own = rows[number() :: count()]
    if not len(own):
        raise EmptyShare
    return own


def share_rows(t: torch.Tensor, dim: int) -> torch.Tensor:
    """This process's rows of a batch of which each has its place along `dim`."""
    if count() == 1:
        return t
    return t.index_select(dim, torch.arange(number(), t.shape[dim], count()))


def whole_rows(t: torch.Tensor, dim: int) -> torch.Tensor:
    """The batch of which every process gives its `share_rows`; of equal size in all."""
    if count() == 1:
        return t
    parts = [torch.empty_like(t) for _ in range(count())]
    dist.all_gather(parts, t.contiguous())
    return torch.stack(parts, dim + 1).flatten(dim, dim + 1)


def summed(values: Iterable[float]) -> list[float]:
    """Numbers summed over the processes."""
    return _reduced(values, dist.ReduceOp.SUM)


def largest(values: Iterable[float]) -> list[float]:
    """The largest of each number over the processes: what one has decided, all have."""
    return _reduced(values, dist.ReduceOp.MAX)


def _reduced(values: Iterable[float], operation: dist.ReduceOp.RedOpType) -> list[float]:
    given = [float(v) for v in values]
    if count() == 1:
        return given
    together = torch.tensor(given, dtype=torch.float64)
    dist.all_reduce(together, operation)
    return together.tolist()


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Sum the gradients over the processes, in one message; a missing one counts as zero."""
    if count() == 1:
        return
    learning = [p for p in parameters if p.requires_grad]
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in learning]
    flat = torch.cat([g.flatten() for g in grads])
    dist.all_reduce(flat)
    for p, part in zip(learning, flat.split([p.numel() for p in learning]), strict=True):
        p.grad = part.view_as(p).clone()


def first_says(t: torch.Tensor) -> torch.Tensor:
    """Process 0's tensor, in all."""
    if count() > 1:
        t = t.clone()
        dist.broadcast(t, 0)
    return t


def wait() -> None:
    """Until all processes are here."""
    if count() > 1:
        dist.barrier()
