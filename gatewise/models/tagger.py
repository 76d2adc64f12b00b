"""A tagger: characters and words, a stack of layers of any cell in both directions, tags.

T = words of a sentence, B = sentences, K = tags.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from gatewise.equations.cell import Cell
from gatewise.layers import Recurrent
from gatewise.models.config import Config
from gatewise.models.context import ContextFeatures
from gatewise.models.crf import CRF
from gatewise.models.index import Index
from gatewise.models.spelling import Spelled, Speller, padded

_LARGEST = dict.fromkeys(
    ("embedding_size", "character_embedding", "character_size", "hidden_size"), 1 << 20
)
_LARGEST |= {"num_layers": 1 << 10}


@dataclass(frozen=True)
class TaggerConfig(Config):
    """The sizes of a tagger; everything but its numbers and its vocabularies."""

    described = "a tagger"
    largest = _LARGEST

    cell: str = "lstm"
    embedding_size: int = 100
    character_embedding: int = 32
    character_size: int = 64  # hidden units of a direction, over a word's characters
    hidden_size: int = 200
    num_layers: int = 2
    dropout: float = 0.4
    crf: bool = False


@dataclass(frozen=True)
class TagBatch:
    """Sentences as numbers: known words, letters, and letters as the context's model knows them."""

    words: torch.Tensor  # [T, B]
    spelled: Spelled
    context: Spelled | None

    @property
    def lengths(self) -> torch.Tensor:
        return self.spelled.lengths  # [B]


class Tagger(nn.Module):
    """A stacked bidirectional tagger (Huang et al., 2015; Lample et al., 2016).

    scores_t = V · layers([word_t ; spelled(word_t) ; context_t]) + b

    Words are looked up in lower case, their characters keep their case. `context` is what a
    bidirectional language model knows of the words in their sentence (Peters et al., 2018), where
    one is given. Tags are chosen step by step, or together by a `CRF`. Dropout drops whole inputs'
    numbers for a sentence.

    >>> tagger = Tagger(TaggerConfig(hidden_size=8), Index(["the"]), Index(["t", "h", "e"]), 3)
    >>> batch = tagger.batch([["the", "hat"], ["The"]])
    >>> tagger(batch).shape
    torch.Size([2, 2, 3])
    """

    def __init__(
        self,
        config: TaggerConfig,
        words: Index,
        characters: Index,
        tags: int,
        *,
        context: ContextFeatures | None = None,
        cell: Cell | str | None = None,
        executor: str = "auto",
    ) -> None:
        super().__init__()
        self.config, self.words = config, words
        run = config.cell if cell is None else cell
        self.word_embedding = nn.Embedding(len(words), config.embedding_size)
        nn.init.normal_(self.word_embedding.weight, std=0.1)  # sums with the characters' states
        letters = (config.character_embedding, config.character_size)
        self.speller = Speller(characters, *letters, run, executor)
        self.context = context
        width = config.embedding_size + self.speller.output_size
        self.layers = Recurrent(
            run,
            width + (0 if context is None else context.output_size),
            config.hidden_size,
            config.num_layers,
            input_dropout=config.dropout,
            bidirectional=True,
            executor=executor,
        )
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(2 * self.layers.output_size, tags)
        self.crf = CRF(tags) if config.crf else None

    def batch(self, sentences: Sequence[Sequence[str]]) -> TagBatch:
        """Sentences, none of them empty, as numbers."""
        return TagBatch(
            padded([[self.words.number(w.lower()) for w in s] for s in sentences]),
            self.speller.batch(sentences),
            None if self.context is None else self.context.encoder.speller.batch(sentences),
        )

    def forward(self, batch: TagBatch) -> torch.Tensor:
        """Scores [T, B, K]."""
        parts = [self.word_embedding(batch.words), self.speller(batch.spelled)]
        if self.context is not None and batch.context is not None:
            parts.append(self.context(batch.context))
        output, _ = self.layers(torch.cat(parts, -1), lengths=batch.lengths)
        return self.head(self.dropout(output))

    def loss(self, batch: TagBatch, tags: torch.Tensor) -> torch.Tensor:
        """-log P(tags | words) of all sentences together; tags [T, B], -1 where none is known."""
        scores = self(batch)
        if self.crf is None:
            return cross_entropy(
                scores.flatten(0, 1), tags.flatten(), ignore_index=-1, reduction="sum"
            )
        return -self.crf.log_likelihood(scores, tags, batch.lengths).sum()

    @torch.no_grad()
    def tag(self, batch: TagBatch) -> list[list[int]]:
        """The numbers of the tags of each sentence."""
        scores = self(batch)
        if self.crf is not None:
            return self.crf.best(scores, batch.lengths)
        rows = zip(scores.argmax(-1).T.tolist(), batch.lengths.tolist(), strict=True)
        return [row[:length] for row, length in rows]
