"""An encoder-decoder: a sentence in one language to a sentence in another.

S = steps of the source, T = of the target, B = sentences, V = subwords, E = embedding, H = hidden
units, L = layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from gatewise.equations.cell import Cell
from gatewise.layers import Recurrent
from gatewise.models.attention import (
    AdditiveAttention,
    Attention,
    FixedContext,
    MultiplicativeAttention,
)
from gatewise.models.config import Config
from gatewise.models.head import negative_log_likelihood
from gatewise.models.sampling import with_own

PAD, BEGIN, END = 0, 1, 2  # subwords that no sentence has
ATTENTIONS = ("additive", "multiplicative", "none")
_LARGEST = {
    "vocabulary_size": 1 << 24,
    "embedding_size": 1 << 20,
    "hidden_size": 1 << 20,
    "num_layers": 1 << 10,
}


@dataclass(frozen=True)
class TranslatorConfig(Config):
    """The sizes of a translator; `attention` is additive, multiplicative or none."""

    described = "a translator"
    largest = _LARGEST

    vocabulary_size: int
    cell: str = "lstm"
    embedding_size: int = 256
    hidden_size: int = 256
    num_layers: int = 1
    dropout: float = 0.3
    attention: str = "multiplicative"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attention not in ATTENTIONS:
            allowed = ", ".join(ATTENTIONS)
            raise ValueError(f"attention must be one of {allowed}, got {self.attention!r}")


class Memory(NamedTuple):
    """What the encoder leaves for the decoder."""

    steps: torch.Tensor  # [S, B, 2H]
    keys: torch.Tensor | None  # [S, B, K], what attention compares with, if there is any
    lengths: torch.Tensor  # [B]
    state: tuple[torch.Tensor, ...]  # the decoder's first, each [L, B, ·]

    def rows(self, chosen: torch.Tensor) -> Memory:
        """Of the sentences `chosen`, in that order."""
        keys = None if self.keys is None else self.keys[:, chosen]
        state = tuple(s[:, chosen] for s in self.state)
        return Memory(self.steps[:, chosen], keys, self.lengths[chosen], state)


class Translator(nn.Module):
    """A stacked encoder of both directions, a stacked decoder, attention between them.

    m = encoder(x);  h_t = decoder(y_{t-1}, h_{t-1});  c_t, w_t = attention(h_t, m)
    P(y_t) = softmax(V · dropout(tanh(W [h_t; c_t])))

    The decoder's first states are read off the encoder's last ones. Without attention c is the same
    at every step, what the encoder put out last (Cho et al., 2014). As in Luong et al. (2015),
    attention follows the recurrent layers, so in training all steps run in one call. Source and
    target share their subwords and the embedding, which is V too where E = H.

    >>> model = Translator(TranslatorConfig(9, embedding_size=4, hidden_size=4)).eval()
    >>> source, lengths = torch.tensor([[3, 4], [5, 0]]), torch.tensor([2, 1])
    >>> logits, weights = model(source, lengths, torch.tensor([[1, 1], [6, 7], [8, 3]]))
    >>> logits.shape, weights.shape
    (torch.Size([3, 2, 9]), torch.Size([3, 2, 2]))
    """

    def __init__(
        self, config: TranslatorConfig, *, cell: Cell | str | None = None, executor: str = "auto"
    ) -> None:
        super().__init__()
        self.config = config
        run, width = config.cell if cell is None else cell, config.hidden_size
        between = config.dropout if config.num_layers > 1 else 0.0
        shape = (config.embedding_size, width, config.num_layers)
        options: dict[str, Any] = {"dropout": between, "executor": executor}
        self.embedding = nn.Embedding(config.vocabulary_size, config.embedding_size)
        nn.init.normal_(self.embedding.weight, std=config.embedding_size**-0.5)
        self.encoder = Recurrent(run, *shape, bidirectional=True, **options)
        self.decoder = Recurrent(run, *shape, **options)
        self.bridges = nn.ModuleList(nn.Linear(2 * n, n) for n in self._state_sizes())
        output = self.decoder.output_size
        self.attention = _attention(config.attention, output, 2 * output)
        self.join = nn.Linear(3 * output, width)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(width, config.vocabulary_size)
        if config.embedding_size == width:
            self.head.weight = self.embedding.weight
        nn.init.zeros_(self.head.bias)

    def _state_sizes(self) -> list[int]:
        with torch.no_grad():
            x = self.embedding.weight.new_zeros(1, 1, self.decoder.input_size)
            _, state = self.decoder(x)
        return [s.shape[-1] for s in _parts(state)]

    def encode(self, source: torch.Tensor, lengths: torch.Tensor) -> Memory:
        """Read source [S, B]; the lengths [B] are at least 1."""
        x = self.dropout(self.embedding(source))
        steps, state = self.encoder(x, lengths=lengths)
        first = []
        for bridge, part in zip(self.bridges, _parts(state), strict=True):
            both = part.unflatten(0, (-1, 2)).transpose(1, 2).flatten(2)  # [L, B, 2·]
            first.append(bridge(both).tanh())
        return Memory(steps, self.attention.keys(steps), lengths, tuple(first))

    def decode(
        self, target: torch.Tensor, state: tuple[torch.Tensor, ...], memory: Memory
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...], torch.Tensor | None]:
        """Logits [T, B, V] of what follows each step of target [T, B], the state after the last.

        The attention map [T, B, S] is None without attention.
        """
        joined, after, weights = self._joined(target, state, memory)
        return self.head(joined), after, weights

    def _joined(
        self,
        target: torch.Tensor,
        state: tuple[torch.Tensor, ...],
        memory: Memory,
        sizes: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...], torch.Tensor | None]:
        """`decode` before the head, [T, B, H]; of rows with `sizes` [B] only so many steps."""
        x = self.dropout(self.embedding(target))
        given = state[0] if len(state) == 1 else state
        output, after = self.decoder(x, given, lengths=sizes)  # [T, B, H]
        context, weights = self.attention(output, memory.steps, memory.lengths, memory.keys)
        joined = self.join(torch.cat([output, context], -1)).tanh()
        return self.dropout(joined), _parts(after), weights

    def forward(
        self, source: torch.Tensor, lengths: torch.Tensor, target: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits [T, B, V] and the attention map, the decoder reading `target` [T, B]."""
        memory = self.encode(source, lengths)
        logits, _, weights = self.decode(target, memory.state, memory)
        return logits, weights

    def loss(
        self,
        source: torch.Tensor,
        lengths: torch.Tensor,
        target: torch.Tensor,
        own: float = 0.0,
        smoothing: float = 0.0,
    ) -> torch.Tensor:
        """-log P(target | source), summed; target [T, B] from BEGIN to END, then PAD.

        With `own` > 0 the decoder reads its own likeliest subword instead of the true one with
        that probability: scheduled sampling (Bengio et al., 2015), what it reads being taken from
        one pass over the true target (Mihaylova & Martins, 2019). `smoothing` spreads that much
        of the target's probability over all subwords (Szegedy et al., 2016).
        """
        memory, read = self.encode(source, lengths), target[:-1]
        if own > 0.0:
            with torch.no_grad():
                guess = self.decode(read, memory.state, memory)[0].argmax(-1)  # [T-1, B]
            read = with_own(read, guess, own).where(read > END, read)
        real = target[1:] != PAD
        joined, _, _ = self._joined(read, memory.state, memory, real.sum(0))
        # The head is the largest product: only for steps that exist.
        return negative_log_likelihood(
            joined[real], self.head, target[1:][real], smoothing=smoothing
        )


def _attention(name: str, query_size: int, memory_size: int) -> Attention | FixedContext:
    if name == "none":
        return FixedContext()
    made = {"additive": AdditiveAttention, "multiplicative": MultiplicativeAttention}[name]
    return made(query_size, memory_size)


def _parts(state: Any) -> tuple[torch.Tensor, ...]:
    return (state,) if isinstance(state, torch.Tensor) else tuple(state)
