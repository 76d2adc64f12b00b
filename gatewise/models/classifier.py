"""A sequence classifier: both directions over the sequence, pooled, one linear layer.

T = steps, B = batch, I = input size, V = vocabulary, H = hidden units, C = classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from gatewise.equations.cell import Cell
from gatewise.layers import Recurrent
from gatewise.models.config import Config

_LARGEST = {
    "classes": 1 << 20,
    "inputs": 1 << 20,
    "hidden_size": 1 << 16,
    "num_layers": 1 << 10,
    "embedding_size": 1 << 16,
}


@dataclass(frozen=True)
class ClassifierConfig(Config):
    """The sizes of a classifier; everything but its numbers.

    `inputs` is the size of a step, or of the vocabulary where `tokens` is true.
    """

    described = "a classifier"
    largest = _LARGEST

    inputs: int
    classes: int
    tokens: bool = False
    cell: str = "lstm"
    embedding_size: int = 64
    hidden_size: int = 64
    num_layers: int = 2
    dropout: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.tokens, bool) or not isinstance(self.cell, str):
            raise TypeError("tokens must be true or false and cell a name")


class SequenceClassifier(nn.Module):
    """Which class a sequence belongs to, from all of its steps.

    logits = W (mean_t h_t ‖ max_t h_t) + b, with h_t of both directions of a stack of layers.

    Vectors are brought to mean 0 and spread 1 first, by `fit_scale`, which is saved with the model.

    >>> model = SequenceClassifier(ClassifierConfig(inputs=3, classes=5, hidden_size=8)).eval()
    >>> model(torch.randn(7, 2, 3), torch.tensor([7, 4])).shape
    torch.Size([2, 5])
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self, config: ClassifierConfig, cell: Cell | None = None, executor: str = "auto"
    ) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(1 if config.tokens else config.inputs))
        self.register_buffer("std", torch.ones(1 if config.tokens else config.inputs))
        size = config.inputs
        if config.tokens:
            size = config.embedding_size
            self.embedding = nn.Embedding(config.inputs, size)
        self.recurrent = Recurrent(
            config.cell if cell is None else cell,
            size,
            config.hidden_size,
            config.num_layers,
            dropout=config.dropout if config.num_layers > 1 else 0.0,
            bidirectional=True,
            executor=executor,
        )
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(4 * self.recurrent.output_size, config.classes)

    def fit_scale(self, inputs: Sequence[torch.Tensor]) -> None:
        """Take mean and spread per number from the training sequences, each [T, I]."""
        steps = torch.cat(list(inputs)).double()
        std = steps.std(0, correction=0)
        self.mean.copy_(steps.mean(0))
        self.std.copy_(torch.where(std > 0, std, torch.ones_like(std)))

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Logits [B, C] of vectors [T, B, I] or tokens [T, B], of which `lengths` [B] ≥ 1 exist."""
        if self.config.tokens:
            x = self.embedding(x)
        else:
            x = (x - self.mean) / self.std
        live = (torch.arange(len(x))[:, None] < lengths).unsqueeze(-1)  # [T, B, 1]
        h, _ = self.recurrent(self.dropout(x), lengths=lengths)  # [T, B, 2H], 0 behind the end
        mean = h.sum(0) / lengths[:, None]
        largest = h.masked_fill(~live, -torch.inf).amax(0)
        return self.head(self.dropout(torch.cat([mean, largest], -1)))


def padded(sequences: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Sequences of any lengths, [T, …] each, as one batch [T, B, …] with its lengths [B]."""
    lengths = torch.tensor([len(s) for s in sequences])
    return nn.utils.rnn.pad_sequence(list(sequences)), lengths
