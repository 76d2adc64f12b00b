"""Words by their letters: a layer that reads the characters of a word in both directions.

T = words of a sentence, B = sentences, U = different words, C = characters of a word, H = hidden
units of a direction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from gatewise.equations.cell import Cell
from gatewise.layers import Recurrent
from gatewise.models.index import Index


@dataclass(frozen=True)
class Spelled:
    """Sentences as letters; a word that occurs twice is spelled once."""

    words: torch.Tensor  # [T, B]: which of the U words
    characters: torch.Tensor  # [C, U]
    sizes: torch.Tensor  # [U]: characters of each
    lengths: torch.Tensor  # [B]: words of each sentence


class Speller(nn.Module):
    """A vector for any word, known or not, from its characters (Ling et al., 2015).

    word = [h→ after its last character ; h← after its first one]

    >>> speller = Speller(Index(["a", "b"]), 4, 8, "lstm")
    >>> speller(speller.batch([["abba", "a"], ["bab"]])).shape
    torch.Size([2, 2, 16])
    """

    def __init__(
        self,
        characters: Index,
        embedding_size: int,
        hidden_size: int,
        cell: Cell | str,
        executor: str = "auto",
    ) -> None:
        super().__init__()
        self.characters = characters
        self.embedding = nn.Embedding(len(characters), embedding_size)
        self.layer = Recurrent(
            cell, embedding_size, hidden_size, bidirectional=True, executor=executor
        )
        self.output_size = 2 * self.layer.output_size

    def batch(self, sentences: Sequence[Sequence[str]]) -> Spelled:
        """Sentences, none of them and none of their words empty, as letters."""
        distinct = {w: u for u, w in enumerate(dict.fromkeys(w for s in sentences for w in s))}
        return Spelled(
            padded([[distinct[w] for w in s] for s in sentences]),
            padded([[self.characters.number(c) for c in word] for word in distinct]),
            torch.tensor([len(word) for word in distinct]),
            torch.tensor([len(s) for s in sentences]),
        )

    def forward(self, spelled: Spelled) -> torch.Tensor:
        """The vector of every word, [T, B, 2H]."""
        _, state = self.layer(self.embedding(spelled.characters), lengths=spelled.sizes)
        h = state if isinstance(state, torch.Tensor) else state[0]  # [2, U, H]
        return h.transpose(0, 1).flatten(1)[spelled.words]


def padded(rows: Sequence[Sequence[int]], beyond: int = 0) -> torch.Tensor:
    """Rows of numbers side by side, [longest, rows], `beyond` where one has ended."""
    return pad_sequence([torch.tensor(r, dtype=torch.int64) for r in rows], padding_value=beyond)
