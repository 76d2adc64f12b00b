"""A conditional random field over the tags of a sequence: which tag may follow which.

T = steps, B = batch, K = tags.
"""

from __future__ import annotations

import torch
from torch import nn


class CRF(nn.Module):
    """A linear chain over per-step scores (Lafferty, McCallum & Pereira, 2001).

    score(x, y) = begin[y_1] + Σ_t x_t[y_t] + Σ_t follow[y_{t-1}, y_t] + end[y_T]
    P(y | x) = exp score(x, y) / Σ_y' exp score(x, y')

    All sums over paths are taken in log space. Rows of a batch may differ in length; what lies
    beyond a row's length counts for nothing.

    >>> crf = CRF(3)
    >>> scores, lengths = torch.randn(5, 2, 3), torch.tensor([5, 2])
    >>> [len(path) for path in crf.best(scores, lengths)]
    [5, 2]
    """

    def __init__(self, tags: int) -> None:
        super().__init__()
        if tags < 1:
            raise ValueError(f"tags must be positive, got {tags}")
        self.begin = nn.Parameter(torch.empty(tags))
        self.follow = nn.Parameter(torch.empty(tags, tags))  # [from, to]
        self.end = nn.Parameter(torch.empty(tags))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.1, 0.1)

    def log_likelihood(
        self, scores: torch.Tensor, tags: torch.Tensor, lengths: torch.Tensor
    ) -> torch.Tensor:
        """log P(y | x) [B], of tags y [T, B] given scores x [T, B, K], lengths [B] at least 1."""
        return self._of_path(scores, tags, lengths) - self._of_all(scores, lengths)

    def _of_path(
        self, scores: torch.Tensor, tags: torch.Tensor, lengths: torch.Tensor
    ) -> torch.Tensor:
        real = torch.arange(len(scores), device=scores.device)[:, None] < lengths  # [T, B]
        tags = tags.where(real, 0)  # what stands beyond a row's length may be anything
        own = scores.gather(2, tags[:, :, None])[:, :, 0].where(real, 0.0).sum(0)
        steps = self.follow[tags[:-1], tags[1:]].where(real[1:], 0.0).sum(0)
        last = tags.gather(0, lengths[None] - 1)[0]
        return self.begin[tags[0]] + own + steps + self.end[last]

    def _of_all(self, scores: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        total = self.begin + scores[0]  # [B, K]: of all paths that end in a tag
        for t in range(1, len(scores)):
            onward = (total[:, :, None] + self.follow).logsumexp(1) + scores[t]
            total = onward.where((t < lengths)[:, None], total)
        return (total + self.end).logsumexp(1)

    @torch.no_grad()
    def best(self, scores: torch.Tensor, lengths: torch.Tensor) -> list[list[int]]:
        """The likeliest tags of each row (Viterbi, 1967)."""
        total, came = self.begin + scores[0], list[torch.Tensor]()
        for t in range(1, len(scores)):
            onward, previous = (total[:, :, None] + self.follow).max(1)  # [B, K] each
            total = (onward + scores[t]).where((t < lengths)[:, None], total)
            came.append(previous)
        last = (total + self.end).argmax(1).tolist()
        paths = []
        for row, (tag, length) in enumerate(zip(last, lengths.tolist(), strict=True)):
            path = [tag]
            for t in range(length - 2, -1, -1):
                path.append(int(came[t][row, path[-1]]))
            paths.append(path[::-1])
        return paths
