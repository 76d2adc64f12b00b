"""A Transformer language model: the control beside `LanguageModel`, with the same calls.

T = steps, B = batch, V = vocabulary, H = width, A = heads, D = H/A numbers of a head, S = cached
steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from gatewise.models.config import Config
from gatewise.models.token_model import TokenModel
from gatewise.models.transformer import Block, Cache, Transformer, first_kept, turning

_ROOM = 32  # steps that a new cache has room for
_LARGEST = {
    "vocabulary_size": 1 << 24,
    "hidden_size": 1 << 20,
    "num_layers": 1 << 10,
    "heads": 1 << 10,
    "window": 1 << 24,
}


@dataclass(frozen=True)
class TransformerConfig(Config):
    """The sizes of a Transformer language model; `window` is how many steps a step sees."""

    described = "a Transformer"
    largest = _LARGEST

    vocabulary_size: int
    hidden_size: int = 128
    num_layers: int = 2
    heads: int = 4
    window: int = 256
    dropout: float = 0.0
    tied: bool = True


class TransformerModel(TokenModel):
    """Embedding, a causal Transformer, a linear head.

    The state is the cache of keys and values, so texts are read in chunks, streamed and sampled
    like with a `LanguageModel`.

    >>> model = TransformerModel(TransformerConfig(10, hidden_size=8, heads=2, window=3))
    >>> logits, state = model(torch.zeros(5, 3, dtype=torch.int64))
    >>> logits.shape, state[0].keys.shape
    (torch.Size([5, 3, 10]), torch.Size([3, 2, 2, 4]))
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.embedding = nn.Embedding(config.vocabulary_size, width)
        self.transformer = Transformer(
            width,
            width,
            config.num_layers,
            config.heads,
            window=config.window,
            dropout=config.dropout,
        )
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(width, config.vocabulary_size)
        if config.tied:
            self.head.weight = self.embedding.weight
            nn.init.normal_(self.embedding.weight, std=width**-0.5)
        nn.init.zeros_(self.head.bias)

    def hidden(
        self, tokens: torch.Tensor, state: tuple[Cache, ...] | None = None
    ) -> tuple[torch.Tensor, tuple[Cache, ...]]:
        return self.transformer(self.embedding(tokens), state)

    def stream(self, batch: int = 1) -> TransformerStepper:
        """The model one token at a time: `logits = stepper(token)`; see `TransformerStepper`."""
        return TransformerStepper(self, batch)


class TransformerStepper:
    """A Transformer language model that is fed one token after another.

    The caches have room to spare, twice what they hold, so that a step copies nothing but its own
    keys and values; only when one is full what the window still reaches moves to a new one.
    """

    def __init__(self, model: TransformerModel, batch: int = 1) -> None:
        self._model, self.batch = model, batch
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        config = self._model.config
        head = config.hidden_size // config.heads
        empty = self._model.head.weight.new_empty(self.batch, config.heads, 0, head)
        self.state = (Cache(empty, empty, 0),) * config.num_layers

    @property
    def state(self) -> tuple[Cache, ...]:
        """The state as the model returns it: a copy."""
        seen = slice(first_kept(self._end, self._model.config.window), self._end)
        return tuple(
            Cache(keys[:, :, seen].clone(), values[:, :, seen].clone(), self._read)
            for keys, values in self._roomy
        )

    @state.setter
    def state(self, given: tuple[Cache, ...]) -> None:
        self._end, self._read = given[0].keys.shape[2], given[0].read
        self._roomy = [(_with_room(c.keys), _with_room(c.values)) for c in given]

    @property
    def state_bytes(self) -> int:
        """What the steps to come need: grows by a step's keys and values up to the window."""
        held = self._end - first_kept(self._end, self._model.config.window)
        return sum(2 * keys[:, :, :held].nbytes for keys, _ in self._roomy)

    @torch.inference_mode()
    def __call__(self, token: int | torch.Tensor) -> torch.Tensor:
        """The next step: token [B] int64 to logits [B, V]; with batch 1 also an int, to [V]."""
        tokens = torch.as_tensor(token, dtype=torch.int64).reshape(-1)
        if len(tokens) != self.batch:
            raise ValueError(f"token must be [{self.batch}], got [{len(tokens)}]")
        if self._end == self._roomy[0][0].shape[2]:
            self.state = self.state
        network, end = self._model.transformer, self._end
        size = network.output_size // self._model.config.heads
        turn = turning(self._read, 1, size).to(self._model.head.weight)
        seen = slice(first_kept(end, network.window), end + 1)
        x = network.embed(self._model.embedding(tokens))[:, None]  # [B, 1, H]
        for block, (keys, values) in zip(network.blocks, self._roomy, strict=True):
            assert isinstance(block, Block)
            query, key, value = block.heads_of(x, turn)
            keys[:, :, end], values[:, :, end] = key[:, :, 0], value[:, :, 0]
            read = scaled_dot_product_attention(query, keys[:, :, seen], values[:, :, seen])
            x = block.finish(x, read)
        self._end, self._read = end + 1, self._read + 1
        logits = self._model.head(network.norm(x[:, 0]))
        return logits[0] if isinstance(token, int) else logits


def _with_room(held: torch.Tensor) -> torch.Tensor:
    size = held.shape[2]
    roomy = held.new_empty(*held.shape[:2], max(_ROOM, 2 * size), held.shape[3])
    roomy[:, :, :size] = held
    return roomy
