"""The loss of a linear head over many classes, without all its logits in memory at once.

N = rows, H = what a row holds, V = classes.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy, linear, log_softmax

# Logits at a time, 16 MiB of fp32: they stay near the processor, and the allocator keeps the block
# from one chunk to the next, where the pages of a larger one are fetched from the system each time.
_LOGITS = 1 << 22


def logits_of(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, rounded: bool = False
) -> torch.Tensor:
    """W·x + b [..., V]; `rounded` multiplies in bfloat16."""
    if not rounded:
        return linear(x, weight, bias)
    with torch.autocast(x.device.type, torch.bfloat16):
        return linear(x, weight, bias).to(x.dtype)


def negative_log_likelihood(
    x: torch.Tensor,
    head: nn.Linear,
    target: torch.Tensor,
    ignored: int | None = None,
    smoothing: float = 0.0,
    rounded: bool = False,
) -> torch.Tensor:
    """-log softmax(W·x + b)[target], summed over the rows.

    On the CPU many rows are taken in chunks: the logits [N, V] and their gradients never stand in
    memory as a whole, and what the way back needs is found on the way there. (PyTorch 2.13's
    `linear_cross_entropy` does this without smoothing, and takes second derivatives to be zero.)

    Args:
        x: [N, H].
        head: W [V, H], b [V].
        target: [N] int64.
        ignored: the target of rows that do not count.
        smoothing: how much of the target's probability is spread over all classes (Szegedy et al.,
            2016).
        rounded: the products are taken in bfloat16, and not in chunks.

    >>> head = nn.Linear(3, 2)
    >>> for p in head.parameters():
    ...     p = nn.init.zeros_(p)
    >>> loss = negative_log_likelihood(torch.ones(4, 3), head, torch.tensor([0, 1, 1, -1]), -1)
    >>> round(loss.item() / math.log(2), 4)
    3.0
    """
    if ignored is not None and not bool((real := target != ignored).all()):
        x, target = x[real], target[real]
    chunks = 1 if rounded else math.ceil(len(x) * head.out_features / _LOGITS)
    if chunks <= 1 or x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
        return _whole(x, head.weight, head.bias, target, smoothing, rounded)
    learning = torch.is_grad_enabled()  # not to be asked inside the function
    return _Chunked.apply(x, head.weight, head.bias, target, smoothing, chunks, learning)


def _whole(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    target: torch.Tensor,
    smoothing: float,
    rounded: bool = False,
) -> torch.Tensor:
    logits = logits_of(x, weight, bias, rounded)
    return cross_entropy(logits, target, reduction="sum", label_smoothing=smoothing)


class _Chunked(torch.autograd.Function):
    """The sum with its gradient, chunk by chunk: of the logits, softmax minus the wanted shares."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        target: torch.Tensor,
        smoothing: float,
        chunks: int,
        learning: bool,
    ) -> torch.Tensor:
        total, spread = x.new_zeros(()), smoothing / len(weight)
        gradients = [torch.empty_like(x), torch.zeros_like(weight), torch.zeros_like(bias)]
        dx, dw, db = gradients
        places = zip(x.chunk(chunks), target.chunk(chunks), dx.chunk(chunks), strict=True)
        for rows, wanted, into in places:
            # [V, n]: products whose long side comes first are the faster ones (MKL on AVX2: 127
            # GFLOP/s where [n, V] has 77).
            found = log_softmax(torch.addmm(bias[:, None], weight, rows.T), 0)
            total -= (1 - smoothing) * found.gather(0, wanted[None]).sum()
            if smoothing:
                total -= spread * found.sum()
            if learning:
                share = found.exp_()
                share.scatter_add_(0, wanted[None], share.new_full((1, len(rows)), smoothing - 1))
                if smoothing:
                    share -= spread
                torch.mm(share.T, weight, out=into)
                dw.addmm_(share, rows)
                db += share.sum(1)
        ctx.smoothing = smoothing
        ctx.save_for_backward(x, weight, bias, target, *(gradients if learning else ()))
        return total

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (grad,) = grads
        x, weight, bias, target, *gradients = ctx.saved_tensors
        if torch.is_grad_enabled():  # of a gradient that is to be differentiated again
            asked = [t for t in (x, weight, bias) if t.requires_grad]
            loss = _whole(x, weight, bias, target, ctx.smoothing)
            found = iter(torch.autograd.grad(loss, asked, grad, create_graph=True))
            parts = [next(found) if t.requires_grad else None for t in (x, weight, bias)]
        else:
            parts = [grad * g for g in gradients]
        return *parts, None, None, None, None
