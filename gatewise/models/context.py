"""Words in their sentence: what two language models, one from each end, know at every word.

T = words of a sentence, B = sentences, L = layers, J = L + 1 levels, H = hidden units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gatewise.equations.cell import Cell
from gatewise.equations.trace import trace
from gatewise.layers import Recurrent
from gatewise.models.config import Config
from gatewise.models.index import Index
from gatewise.models.spelling import Spelled, Speller
from gatewise.models.task import named_cell

_SIZES = ("character_embedding", "character_size", "hidden_size")


@dataclass(frozen=True)
class ContextConfig(Config):
    """The sizes of an encoder; everything but its numbers and its characters."""

    described = "a context encoder"
    largest = {**dict.fromkeys(_SIZES, 1 << 20), "num_layers": 1 << 10}

    cell: str = "lstm"
    character_embedding: int = 32
    character_size: int = 64  # hidden units of a direction, over a word's characters
    hidden_size: int = 200  # of a direction, over a sentence's words
    num_layers: int = 2
    dropout: float = 0.2


class ContextEncoder(nn.Module):
    """Two stacks over spelled words, one in each direction, that never see each other.

    x_t = W · spelled(word_t),  h→_{t,j} = layer→_j(h→_{t,j-1}, h→_{t-1,j}),  h←_{t,j} likewise

    So a word can be predicted from what either stack knows before it has read the word. Both read
    a border first, a vector of their own.

    >>> letters = Index(["a", "b"])
    >>> encoder = ContextEncoder(ContextConfig(hidden_size=8), letters)
    >>> encoder.levels(encoder.speller.batch([["ab", "b", "a"]])).shape
    torch.Size([3, 3, 1, 16])
    """

    def __init__(
        self,
        config: ContextConfig,
        characters: Index,
        *,
        cell: Cell | str | None = None,
        executor: str = "auto",
    ) -> None:
        super().__init__()
        self.config = config
        run, size = config.cell if cell is None else cell, config.hidden_size
        letters = (config.character_embedding, config.character_size)
        self.speller = Speller(characters, *letters, run, executor)
        self.project = nn.Linear(self.speller.output_size, size)
        self.border = nn.Parameter(0.1 * torch.randn(2, size))
        between = config.dropout if config.num_layers > 1 else 0.0
        options: dict[str, Any] = {"dropout": between, "executor": executor}
        self.ahead = Recurrent(run, size, size, config.num_layers, **options)
        self.back = Recurrent(run, size, size, config.num_layers, **options)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, spelled: Spelled) -> tuple[torch.Tensor, torch.Tensor]:
        """The top of each stack, [T+1, B, H], after the border and then after every word.

        Each in the order it reads: the second from the last word to the first.
        """
        x, lengths = self._read(spelled), spelled.lengths
        ahead, _ = self.ahead(self._begun(x, 0), lengths=lengths + 1)
        back, _ = self.back(self._begun(flipped(x, lengths), 1), lengths=lengths + 1)
        return ahead, back

    def levels(self, spelled: Spelled) -> torch.Tensor:
        """Every level of every word, [J, T, B, 2H]: x beside itself, then each layer's two states.

        The state of a stack at a word is the one after reading it.
        """
        x, lengths = self._read(spelled), spelled.lengths
        ahead = self._levels(self.ahead, x, lengths, 0)
        back = self._levels(self.back, flipped(x, lengths), lengths, 1)
        return torch.cat([ahead, flipped(back, lengths)], -1)

    def _read(self, spelled: Spelled) -> torch.Tensor:
        return self.dropout(self.project(self.speller(spelled)))  # [T, B, H]

    def _begun(self, x: torch.Tensor, side: int) -> torch.Tensor:
        return torch.cat([self.border[side].expand(1, x.shape[1], -1), x])

    def _levels(
        self, stack: Recurrent, x: torch.Tensor, lengths: torch.Tensor, side: int
    ) -> torch.Tensor:
        output = trace(stack.cell).output
        _, _, records = stack(self._begun(x, side), lengths=lengths + 1, record=(output,))
        return torch.cat([x[None], records[output][:, 1:]])  # [J, T, B, H]

    def to_json(self) -> dict[str, Any]:
        return {"config": self.config.to_json(), "characters": self.speller.characters.to_json()}

    @classmethod
    def from_json(
        cls, data: Any, cell: Cell | None = None, executor: str = "auto"
    ) -> ContextEncoder:
        """The encoder that `to_json` described, untrained; ValueError or TypeError otherwise."""
        if not isinstance(data, dict):
            raise ValueError("a context encoder must be an object")
        config = ContextConfig.from_json(data.get("config"))
        characters = Index.from_json(data.get("characters"))
        return cls(config, characters, cell=named_cell(config.cell, cell), executor=executor)


def flipped(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Each row's own steps in the opposite order, of [..., T, B, H]; what lies beyond stays.

    >>> flipped(torch.tensor([1, 2, 3, 4]).view(4, 1, 1), torch.tensor([3])).flatten().tolist()
    [3, 2, 1, 4]
    """
    t = torch.arange(x.shape[-3], device=x.device)[:, None]
    source = torch.where(t < lengths, lengths - 1 - t, t)  # [T, B]
    return x.gather(-3, source[..., None].expand(x.shape))


class ContextFeatures(nn.Module):
    """A trained encoder as another model's input: a mean of its levels that the model weighs.

    features_t = γ Σ_j softmax(s)_j h_{t,j} (Peters et al., 2018), with γ and s learned.

    A frozen encoder is not trained along, and drops nothing.

    >>> features = ContextFeatures(ContextEncoder(ContextConfig(hidden_size=8), Index(["a"])))
    >>> features(features.encoder.speller.batch([["a", "aa"]])).shape
    torch.Size([2, 1, 16])
    """

    def __init__(self, encoder: ContextEncoder, frozen: bool = True) -> None:
        super().__init__()
        self.encoder, self.frozen = encoder.requires_grad_(not frozen), frozen
        self.output_size = 2 * encoder.config.hidden_size
        self.scores = nn.Parameter(torch.zeros(encoder.config.num_layers + 1))
        self.scale = nn.Parameter(torch.ones(()))

    def train(self, mode: bool = True) -> ContextFeatures:
        super().train(mode)
        self.encoder.train(mode and not self.frozen)
        return self

    def weights(self) -> torch.Tensor:
        """How much of each level is taken, [J]; they sum to one."""
        return self.scores.softmax(0)

    def forward(self, spelled: Spelled) -> torch.Tensor:
        """[T, B, 2H]."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            levels = self.encoder.levels(spelled)  # [J, T, B, 2H]
        return self.scale * torch.einsum("j,jtbh->tbh", self.weights(), levels)
