"""A language model: embedding, a stack of recurrent layers of any cell, a linear head.

T = steps, B = batch, V = vocabulary, E = embedding, H = hidden units, L = layers.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import nn

from gatewise.equations.cell import Cell
from gatewise.layers import Recurrent
from gatewise.models.sampling import Sampling
from gatewise.models.stepper import TokenStepper

_PROMPT_CHUNK = 1024  # a prompt of any length is read in pieces: memory stays constant
_LARGEST = {
    "vocabulary_size": 1 << 24,
    "embedding_size": 1 << 20,
    "hidden_size": 1 << 20,
    "num_layers": 1 << 10,
}


@dataclass(frozen=True)
class LanguageModelConfig:
    """The sizes of a language model; everything but its numbers.

    `cell` is a name of `gatewise cells` or `FILE.py:CLASS`. `tied` uses the embedding as the
    head's weight (Press & Wolf, 2017), which needs embedding_size == hidden_size.
    """

    vocabulary_size: int
    cell: str = "lstm"
    embedding_size: int = 128
    hidden_size: int = 256
    num_layers: int = 2
    dropout: float = 0.0
    tied: bool = False

    def __post_init__(self) -> None:
        for name, largest in _LARGEST.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an int, got {value!r}")
            if not 1 <= value <= largest:
                raise ValueError(f"{name} must be between 1 and {largest:,}, got {value}")
        if not isinstance(self.cell, str):
            raise TypeError(f"cell must be a name, got {self.cell!r}")
        if not isinstance(self.dropout, int | float) or not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must be at least 0 and below 1, got {self.dropout!r}")
        if self.tied and self.embedding_size != self.hidden_size:
            raise ValueError(
                "tied weights need embedding_size == hidden_size, got "
                f"{self.embedding_size} and {self.hidden_size}"
            )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> LanguageModelConfig:
        """The configuration that `to_json` wrote; ValueError or TypeError for anything else."""
        if not isinstance(data, dict):
            raise ValueError("a model configuration must be an object")
        known = {f.name for f in fields(cls)}
        if set(data) != known:
            raise ValueError("a model configuration must have exactly: " + ", ".join(sorted(known)))
        return cls(**data)


class LanguageModel(nn.Module):
    """Predicts the next token at every step, with a state that the caller carries.

    logits_t = V · dropout(layers(dropout(embedding(x_t)))) + b

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
        self.embedding = nn.Embedding(
            config.vocabulary_size, config.embedding_size, device=device, dtype=dtype
        )
        self.recurrent = Recurrent(
            config.cell if cell is None else cell,
            config.embedding_size,
            config.hidden_size,
            config.num_layers,
            dropout=config.dropout if config.num_layers > 1 else 0.0,
            device=device,
            dtype=dtype,
            executor=executor,
        )
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(
            config.hidden_size, config.vocabulary_size, device=device, dtype=dtype
        )
        if config.tied:
            self.head.weight = self.embedding.weight
        if config.tied:  # N(0, 1) rows would make logits of the size of the embedding
            nn.init.normal_(self.embedding.weight, std=config.embedding_size**-0.5)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
        """Logits [T, B, V] and the state after the last step, from tokens [T, B] int64."""
        x = self.dropout(self.embedding(tokens))  # [T, B, E]
        output, state = self.recurrent(x, state)  # [T, B, H]
        return self.head(self.dropout(output)), state

    def stream(self, batch: int = 1, threads: int = 1) -> TokenStepper:
        """The model one token at a time: `logits = stepper(token)`; see `TokenStepper`."""
        return TokenStepper(self.embedding, self.recurrent, self.head, batch, threads)

    def sample(
        self,
        prompt: Sequence[int] | torch.Tensor,
        length: int | None = None,
        sampling: Sampling | None = None,
        seed: int | None = None,
        forbidden: Sequence[int] = (),
    ) -> Iterator[int]:
        """Tokens that continue `prompt`, one by one, endlessly where `length` is None.

        Keeps the state and nothing else: memory does not grow. The same seed draws the same
        tokens. `forbidden` tokens are never drawn. The module must be in evaluation mode.
        """
        if len(prompt) == 0:
            raise ValueError("prompt must have at least one token")
        if length is not None and length < 0:
            raise ValueError(f"length must not be negative, got {length}")
        if seed is not None and not -(1 << 63) <= seed < 1 << 63:
            raise ValueError(f"seed must be between -2^63 and 2^63, got {seed}")
        if self.training:
            raise RuntimeError("sample needs the model in evaluation mode: call model.eval()")
        tokens = torch.as_tensor(prompt, dtype=torch.int64)
        generator = torch.Generator()
        generator.manual_seed(seed) if seed is not None else generator.seed()
        never = torch.tensor(list(forbidden), dtype=torch.int64)
        return self._sample(tokens, length, sampling or Sampling(), generator, never)

    def _sample(
        self,
        prompt: torch.Tensor,
        length: int | None,
        sampling: Sampling,
        generator: torch.Generator,
        never: torch.Tensor,
    ) -> Iterator[int]:
        with torch.inference_mode():  # entered per token: the caller's code runs outside
            stepper = self.stream()
            logits = self._read(prompt, stepper)
        for drawn in itertools.count():
            if drawn == length:
                return
            with torch.inference_mode():
                scores = logits.float().cpu()
                scores[never] = float("-inf")
                token = sampling.draw(scores, generator)
            yield token
            logits = stepper(token)

    def _read(self, prompt: torch.Tensor, stepper: TokenStepper) -> torch.Tensor:
        """The logits [V] after the prompt; leaves the state in `stepper`."""
        output = state = None
        for piece in prompt.split(_PROMPT_CHUNK):
            x = self.embedding(piece.to(self.head.weight.device).unsqueeze(1))
            output, state = self.recurrent(x, state)
        assert output is not None
        stepper.state = state
        return self.head(output[-1, 0])

    @torch.no_grad()
    def activity(self, tokens: torch.Tensor, names: Sequence[str]) -> dict[str, torch.Tensor]:
        """Gates and states of every layer over `tokens` [T]: name -> [L, T, size]."""
        x = self.embedding(tokens.unsqueeze(1))
        _, _, records = self.recurrent(x, record=tuple(names))
        return {name: r[:, :, 0] for name, r in records.items()}
