"""A language model: embedding, a stack of recurrent layers of any cell, a linear head.

T = steps, B = batch, V = vocabulary, E = embedding, H = hidden units, L = layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gatewise.equations.cell import Cell
from gatewise.layers import Recurrent
from gatewise.models.config import Config
from gatewise.models.regularise import locked_dropout, word_dropout
from gatewise.models.stepper import TokenStepper
from gatewise.models.token_model import TokenModel

_TRAINABLE = ("full", "bf16")  # how products may read weights that learn
_LARGEST = {
    "vocabulary_size": 1 << 24,
    "embedding_size": 1 << 20,
    "hidden_size": 1 << 20,
    "num_layers": 1 << 10,
}


@dataclass(frozen=True)
class LanguageModelConfig(Config):
    """The sizes of a language model; everything but its numbers.

    `cell` is a name of `gatewise cells` or `FILE.py:CLASS`. `tied` uses the embedding as the
    head's weight; where the sizes differ, a linear map takes what the layers say to the size of the
    embedding (Press & Wolf, 2017). `dropout` drops numbers anew at every step. The others have one
    mask for a whole chunk: `input_dropout` of what the first layer reads, `hidden_dropout` of what
    the others read, `output_dropout` of what the last one says, `recurrent_dropout` of fed-back
    units (Gal & Ghahramani, 2016), `weight_dropout` of recurrent weights, `embedding_dropout` of
    whole words (Merity, Keskar & Socher, 2017). With `init_range` r every first weight is drawn
    from U(-r, r). `weights` is how products of the layers read them, as for `gatewise.Recurrent`;
    with "bf16" those of the head are rounded too, in training.
    """

    described = "a language model"
    largest = _LARGEST
    dropouts = (
        "dropout",
        "input_dropout",
        "hidden_dropout",
        "output_dropout",
        "recurrent_dropout",
        "weight_dropout",
        "embedding_dropout",
    )

    vocabulary_size: int
    cell: str = "lstm"
    embedding_size: int = 128
    hidden_size: int = 256
    num_layers: int = 2
    dropout: float = 0.0
    tied: bool = False
    input_dropout: float = 0.0
    hidden_dropout: float = 0.0
    output_dropout: float = 0.0
    recurrent_dropout: float = 0.0
    weight_dropout: float = 0.0
    embedding_dropout: float = 0.0
    init_range: float | None = None
    weights: str = "full"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.cell, str):
            raise TypeError(f"cell must be a name, got {self.cell!r}")
        scale = self.init_range
        if scale is not None and not (isinstance(scale, int | float) and 0 < scale < 100):
            raise ValueError(f"init_range must be positive and below 100, got {scale!r}")
        if self.hidden_dropout and self.num_layers == 1:
            raise ValueError(
                f"hidden_dropout is between layers, num_layers is 1, got {self.hidden_dropout}"
            )
        if self.weights not in _TRAINABLE:
            raise ValueError(f"weights must be full or bf16, got {self.weights!r}")


class LanguageModel(TokenModel):
    """Predicts the next token at every step, with a state that the caller carries.

    logits_t = V · dropped(layers(dropout(embedding(x_t)))) + b, or V · P · dropped(…) + b where the
    head shares its weight with an embedding of another size than the layers'.

    Args:
        config: the sizes.
        cell: the cell itself, where `config.cell` names one that is not registered.
        executor: as for `gatewise.Recurrent`.

    >>> model = LanguageModel(LanguageModelConfig(10, embedding_size=4, hidden_size=8))
    >>> logits, state = model(torch.zeros(5, 3, dtype=torch.int64))
    >>> logits.shape
    torch.Size([5, 3, 10])
    """

    def __init__(
        self,
        config: LanguageModelConfig,
        *,
        cell: Cell | None = None,
        executor: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.projection: nn.Linear | None = None
        self.embedding = nn.Embedding(
            config.vocabulary_size, config.embedding_size, device=device, dtype=dtype
        )
        hidden = [config.hidden_dropout] * (config.num_layers - 1)
        self.recurrent = Recurrent(
            config.cell if cell is None else cell,
            config.embedding_size,
            config.hidden_size,
            config.num_layers,
            dropout=config.dropout if config.num_layers > 1 else 0.0,
            device=device,
            dtype=dtype,
            executor=executor,
            input_dropout=[config.input_dropout, *hidden],
            recurrent_dropout=config.recurrent_dropout,
            weight_dropout=config.weight_dropout,
            weights=config.weights,
        )
        self.dropout = nn.Dropout(config.dropout)
        size = config.embedding_size if config.tied else config.hidden_size
        if size != config.hidden_size:
            self.projection = nn.Linear(
                config.hidden_size, size, bias=False, device=device, dtype=dtype
            )
        self.head = nn.Linear(size, config.vocabulary_size, device=device, dtype=dtype)
        if config.tied:
            self.head.weight = self.embedding.weight
        if config.tied:  # N(0, 1) rows would make logits of the size of the embedding
            nn.init.normal_(self.embedding.weight, std=config.embedding_size**-0.5)
        nn.init.zeros_(self.head.bias)
        if config.init_range is not None:
            for parameter in self.parameters():
                nn.init.uniform_(parameter, -config.init_range, config.init_range)

    def hidden(self, tokens: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
        config, x = self.config, self.embedding(tokens)  # [T, B, E]
        x = word_dropout(x, tokens, config.vocabulary_size, config.embedding_dropout, self.training)
        return self.recurrent(self.dropout(x), state)  # [T, B, H]

    def dropped(self, output: torch.Tensor) -> torch.Tensor:
        return self.dropout(locked_dropout(output, self.config.output_dropout, self.training))

    def projected(self, output: torch.Tensor) -> torch.Tensor:
        return output if self.projection is None else self.projection(output)

    @property
    def rounded(self) -> bool:
        return self.training and self.config.weights == "bf16"

    def stream(self, batch: int = 1, threads: int = 1) -> TokenStepper:
        """The model one token at a time: `logits = stepper(token)`; see `TokenStepper`."""
        heads = [m for m in (self.projection, self.head) if m is not None]
        return TokenStepper(self.embedding, self.recurrent, heads, batch, threads)

    @torch.no_grad()
    def activity(self, tokens: torch.Tensor, names: Sequence[str]) -> dict[str, torch.Tensor]:
        """Gates and states of every layer over `tokens` [T]: name -> [L, T, size]."""
        x = self.embedding(tokens.unsqueeze(1))
        _, _, records = self.recurrent(x, record=tuple(names))
        return {name: r[:, :, 0] for name, r in records.items()}
