"""A deep bidirectional language model: every word from those before it, and from those after it.

T = words of a sentence, B = sentences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from gatewise.equations.cell import Cell
from gatewise.models.context import ContextConfig, ContextEncoder
from gatewise.models.index import Index
from gatewise.models.spelling import Spelled, padded

_NOTHING, _BORDER, _WORDS = -1, 0, 1  # classes: none (the sentence has ended), border, words from
_FREQUENT = (1000, 4000)  # words up to which a step's product is with all; then by group


@dataclass(frozen=True)
class SentenceBatch:
    """Sentences as letters, and what each direction is to predict at each of its steps."""

    spelled: Spelled
    ahead: torch.Tensor  # [T+1, B]: the words in order, then the border
    back: torch.Tensor  # [T+1, B]: from the last to the first, then the border


class BidirectionalLanguageModel(nn.Module):
    """Two language models over the same spelled words, with one head (Peters et al., 2018).

    P(w_t | w_1 … w_{t-1}) = head(h→_{t-1}),  P(w_t | w_{t+1} … w_T) = head(h←_{t+1})

    Words are read by their characters, so that none is unknown; one that is not in `words` is
    predicted as an unknown one. After its last word each direction predicts the border. The head
    is an adaptive softmax (Grave et al., 2017): first among the frequent words and two groups of
    rarer ones, then within a group. So `words` must hold the frequent ones first.

    >>> words, letters = Index(["ab", "b"]), Index(["a", "b"])
    >>> model = BidirectionalLanguageModel(ContextConfig(hidden_size=8), words, letters)
    >>> model.nats(model.batch([["ab", "b"], ["ba"]])).shape
    torch.Size([2])
    """

    def __init__(
        self,
        config: ContextConfig,
        words: Index,
        characters: Index,
        *,
        cell: Cell | str | None = None,
        executor: str = "auto",
    ) -> None:
        super().__init__()
        self.config, self.words = config, words
        self.encoder = ContextEncoder(config, characters, cell=cell, executor=executor)
        self.dropout = nn.Dropout(config.dropout)
        classes = _WORDS + len(words)
        groups = [n for n in _FREQUENT if n < classes] or [classes - 1]
        self.head = nn.AdaptiveLogSoftmaxWithLoss(config.hidden_size, classes, groups)

    def batch(self, sentences: Sequence[Sequence[str]]) -> SentenceBatch:
        """Sentences, none of them empty, as numbers."""
        rows = [[_WORDS + self.words.number(w) for w in s] for s in sentences]
        return SentenceBatch(
            self.encoder.speller.batch(sentences),
            padded([[*row, _BORDER] for row in rows], _NOTHING),
            padded([[*reversed(row), _BORDER] for row in rows], _NOTHING),
        )

    def nats(self, batch: SentenceBatch) -> torch.Tensor:
        """-log P of all words and borders, forwards and backwards: [2], each summed."""
        found = []
        for h, target in zip(self.encoder(batch.spelled), (batch.ahead, batch.back), strict=True):
            real = target != _NOTHING
            found.append(-self.head(self.dropout(h[real]), target[real]).output.sum())
        return torch.stack(found)
