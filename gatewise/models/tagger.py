"""A tagger: characters and words, a stack of layers of any cell in both directions, tags.

T = words of a sentence, B = sentences, U = different words of a batch, C = characters of a word,
K = tags, H = hidden units of a direction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from gatewise.equations.cell import Cell
from gatewise.layers import Recurrent
from gatewise.models.config import Config
from gatewise.models.crf import CRF
from gatewise.models.index import Index

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
    """Sentences as numbers; a word that occurs twice is spelled once."""

    words: torch.Tensor  # [T, B]
    spelled: torch.Tensor  # [T, B]: which of the U spelled words
    characters: torch.Tensor  # [C, U]
    sizes: torch.Tensor  # [U]: characters of each
    lengths: torch.Tensor  # [B]


class Tagger(nn.Module):
    """A stacked bidirectional tagger (Huang et al., 2015; Lample et al., 2016).

    scores_t = V · layers([word_t ; characters→(word_t) ; characters←(word_t)]) + b

    Words are looked up in lower case, their characters keep their case. Tags are chosen step by
    step, or together by a `CRF`. Dropout drops whole inputs' numbers for a sentence.

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
        cell: Cell | str | None = None,
        executor: str = "auto",
    ) -> None:
        super().__init__()
        self.config, self.words, self.characters = config, words, characters
        run = config.cell if cell is None else cell
        both: dict[str, Any] = {"bidirectional": True, "executor": executor}
        self.word_embedding = nn.Embedding(len(words), config.embedding_size)
        self.character_embedding = nn.Embedding(len(characters), config.character_embedding)
        nn.init.normal_(self.word_embedding.weight, std=0.1)  # sums with the characters' states
        self.speller = Recurrent(run, config.character_embedding, config.character_size, **both)
        width = config.embedding_size + 2 * self.speller.output_size
        self.layers = Recurrent(
            run,
            width,
            config.hidden_size,
            config.num_layers,
            input_dropout=config.dropout,
            **both,
        )
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(2 * self.layers.output_size, tags)
        self.crf = CRF(tags) if config.crf else None

    def batch(self, sentences: Sequence[Sequence[str]]) -> TagBatch:
        """Sentences, none of them empty, as numbers."""
        distinct = {
            word: u for u, word in enumerate(dict.fromkeys(w for s in sentences for w in s))
        }
        letters = [[self.characters.number(c) for c in word] for word in distinct]
        return TagBatch(
            _padded([[self.words.number(w.lower()) for w in s] for s in sentences]),
            _padded([[distinct[w] for w in s] for s in sentences]),
            _padded(letters),
            torch.tensor([len(word) for word in distinct]),
            torch.tensor([len(s) for s in sentences]),
        )

    def forward(self, batch: TagBatch) -> torch.Tensor:
        """Scores [T, B, K]."""
        letters = self.character_embedding(batch.characters)  # [C, U, ·]
        _, state = self.speller(letters, lengths=batch.sizes)
        h = state if isinstance(state, torch.Tensor) else state[0]  # [2, U, ·]
        spelled = h.transpose(0, 1).flatten(1)[batch.spelled]  # [T, B, ·]
        x = torch.cat([self.word_embedding(batch.words), spelled], -1)
        output, _ = self.layers(x, lengths=batch.lengths)
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


def _padded(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    return pad_sequence([torch.tensor(r, dtype=torch.int64) for r in rows])
