"""Attention over what an encoder put out: which of its steps matters to a query.

T = queries, S = encoder's steps, B = batch, Q, M = numbers of a query and of an encoder's step.
"""

from __future__ import annotations

import torch
from torch import nn


class Attention(nn.Module):
    """Weights of the encoder's steps and their weighted mean.

    w_ts = softmax_s score(q_t, m_s) over the steps that exist,  context_t = Σ_s w_ts m_s
    """

    def score(self, queries: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        """[B, T, S] of queries [B, T, Q] and memory [B, S, M]."""
        raise NotImplementedError

    def forward(
        self, queries: torch.Tensor, memory: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Contexts [T, B, M] and the attention map [T, B, S].

        Args:
            queries: [T, B, Q].
            memory: [S, B, M].
            lengths: [B], the encoder's steps that exist, at least one of each row.
        """
        rows = memory.transpose(0, 1)  # [B, S, M]
        scores = self.score(queries.transpose(0, 1), rows)
        real = torch.arange(rows.shape[1], device=rows.device) < lengths[:, None]  # [B, S]
        weights = scores.masked_fill(~real[:, None], float("-inf")).softmax(-1)
        return (weights @ rows).transpose(0, 1), weights.transpose(0, 1)


class AdditiveAttention(Attention):
    """score(q, m) = v · tanh(W q + U m) (Bahdanau, Cho & Bengio, 2015).

    >>> attend = AdditiveAttention(4, 6)
    >>> context, weights = attend(
    ...     torch.randn(2, 3, 4), torch.randn(5, 3, 6), torch.tensor([5, 2, 1])
    ... )
    >>> context.shape, weights.shape
    (torch.Size([2, 3, 6]), torch.Size([2, 3, 5]))
    """

    def __init__(self, query_size: int, memory_size: int, size: int | None = None) -> None:
        super().__init__()
        size = query_size if size is None else size
        self.of_query = nn.Linear(query_size, size)
        self.of_memory = nn.Linear(memory_size, size, bias=False)
        self.sum = nn.Linear(size, 1, bias=False)

    def score(self, queries: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        both = self.of_query(queries)[:, :, None] + self.of_memory(memory)[:, None]
        return self.sum(both.tanh())[..., 0]


class MultiplicativeAttention(Attention):
    """score(q, m) = q · W m, the `general` form (Luong, Pham & Manning, 2015)."""

    def __init__(self, query_size: int, memory_size: int) -> None:
        super().__init__()
        self.of_memory = nn.Linear(memory_size, query_size, bias=False)

    def score(self, queries: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        return queries @ self.of_memory(memory).mT
