"""Attention over what an encoder put out: which of its steps matters to a query; and none.

T = queries, S = encoder's steps, B = batch, Q, M = numbers of a query and of an encoder's step,
K = numbers of a key, which is what a query is compared with.
"""

from __future__ import annotations

import torch
from torch import nn


class Attention(nn.Module):
    """Weights of the encoder's steps and their weighted mean.

    w_ts = softmax_s score(q_t, U m_s) over the steps that exist,  context_t = Σ_s w_ts m_s
    """

    of_memory: nn.Linear  # U

    def keys(self, memory: torch.Tensor) -> torch.Tensor:
        """The keys [S, B, K] of an encoder's steps [S, B, M]: the same for all queries."""
        return self.of_memory(memory)

    def score(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """[B, T, S] of queries [B, T, Q] and keys [B, S, K]."""
        raise NotImplementedError

    def forward(
        self,
        queries: torch.Tensor,
        memory: torch.Tensor,
        lengths: torch.Tensor,
        keys: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Contexts [T, B, M] and the attention map [T, B, S].

        Args:
            queries: [T, B, Q].
            memory: [S, B, M].
            lengths: [B], the encoder's steps that exist, at least one of each row.
            keys: `keys(memory)`, where more than one call needs them.
        """
        found = self.keys(memory) if keys is None else keys
        rows = memory.transpose(0, 1)  # [B, S, M]
        scores = self.score(queries.transpose(0, 1), found.transpose(0, 1))
        real = torch.arange(rows.shape[1], device=rows.device) < lengths[:, None]  # [B, S]
        weights = scores.masked_fill(~real[:, None], float("-inf")).softmax(-1)
        return (weights @ rows).transpose(0, 1), weights.transpose(0, 1)


class AdditiveAttention(Attention):
    """score(q, k) = v · tanh(W q + k) (Bahdanau, Cho & Bengio, 2015).

    `size` is K, by default half of Q: time and memory of training are T · S · K.

    >>> attend = AdditiveAttention(4, 6)
    >>> context, weights = attend(
    ...     torch.randn(2, 3, 4), torch.randn(5, 3, 6), torch.tensor([5, 2, 1])
    ... )
    >>> context.shape, weights.shape
    (torch.Size([2, 3, 6]), torch.Size([2, 3, 5]))
    """

    def __init__(self, query_size: int, memory_size: int, size: int | None = None) -> None:
        super().__init__()
        size = max(1, query_size // 2) if size is None else size
        self.of_query = nn.Linear(query_size, size)
        self.of_memory = nn.Linear(memory_size, size, bias=False)
        self.sum = nn.Linear(size, 1, bias=False)

    def score(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        both = self.of_query(queries)[:, :, None] + keys[:, None]
        return self.sum(both.tanh())[..., 0]


class MultiplicativeAttention(Attention):
    """score(q, k) = q · k, the `general` form (Luong, Pham & Manning, 2015)."""

    def __init__(self, query_size: int, memory_size: int) -> None:
        super().__init__()
        self.of_memory = nn.Linear(memory_size, query_size, bias=False)

    def score(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        return queries @ keys.mT


class FixedContext(nn.Module):
    """No attention: one context for all queries, what the encoder put out last in either direction.

    Every output is told the same fixed vector (Cho et al., 2014), whatever the source's length.

    >>> context, weights = FixedContext()(
    ...     torch.zeros(2, 1, 3), torch.arange(12.0).view(3, 1, 4), torch.tensor([2])
    ... )
    >>> context[:, 0].tolist(), weights  # forwards the second of two steps, backwards the first
    ([[4.0, 5.0, 2.0, 3.0], [4.0, 5.0, 2.0, 3.0]], None)
    """

    def keys(self, memory: torch.Tensor) -> None:
        """There is nothing to compare a query with."""

    def forward(
        self,
        queries: torch.Tensor,
        memory: torch.Tensor,
        lengths: torch.Tensor,
        keys: None = None,
    ) -> tuple[torch.Tensor, None]:
        """Contexts [T, B, M] and no map; the arguments as for `Attention`."""
        half = memory.shape[-1] // 2
        last = memory[lengths - 1, torch.arange(len(lengths), device=memory.device), :half]
        context = torch.cat([last, memory[0, :, half:]], -1)  # [B, M]
        return context.expand(len(queries), *context.shape), None
