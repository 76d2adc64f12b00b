"""A language model one token at a time.

Shapes: B = batch, V = vocabulary, N = size of a state, L = layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from gatewise.layers import Recurrent
from gatewise.layers.stepper import Stepper


class TokenStepper:
    """A language model that is fed one token after another and remembers its state.

    logits_t, state = model(token_t, state) in evaluation mode, with the layers and the heads run
    in one call of the kernel, their weights kept packed; see `gatewise.layers.Stepper`. Made by
    `LanguageModel.stream`.

    >>> from gatewise.models import LanguageModel, LanguageModelConfig
    >>> model = LanguageModel(LanguageModelConfig(10, embedding_size=4, hidden_size=8)).eval()
    >>> stepper = model.stream()
    >>> logits = [stepper(token) for token in (3, 1, 4)]
    >>> whole, _ = model(torch.tensor([[3], [1], [4]]))
    >>> bool((torch.stack(logits) - whole[:, 0]).abs().max() < 1e-6)
    True
    """

    def __init__(
        self,
        embedding: nn.Embedding,
        recurrent: Recurrent,
        heads: Sequence[nn.Linear],
        batch: int = 1,
        threads: int = 1,
    ) -> None:
        self._embedding = embedding
        self._table = embedding.weight.detach()  # [V, E]: the parameter's memory
        self._stepper = Stepper(recurrent, batch, threads, heads)
        self.batch = batch

    def __call__(self, token: int | torch.Tensor) -> torch.Tensor:
        """The next step: token [B] int64 to logits [B, V]; with batch 1 also an int, to [V].

        Raises TypeError or ValueError for anything that is not one token of the vocabulary for
        each row.
        """
        weight = self._embedding.weight
        if weight.data_ptr() != self._table.data_ptr():
            self._table = weight.detach()
        table, last = self._table, self._embedding.num_embeddings - 1
        if isinstance(token, int) and self.batch == 1:
            if not 0 <= token <= last:
                raise ValueError(f"token must be in 0…{last}, got {token}")
            row = table[token : token + 1]
            return self._stepper.advance(row.contiguous()).squeeze(0)
        if not isinstance(token, torch.Tensor) or token.dtype != torch.int64:
            given = token.dtype if isinstance(token, torch.Tensor) else type(token).__name__
            raise TypeError(f"token must be an int64 tensor, or an int for batch 1, got {given}")
        if token.shape != (self.batch,):
            raise ValueError(f"token must be [{self.batch}], got {list(token.shape)}")
        if token.min() < 0 or token.max() > last:
            raise ValueError(f"token must be in 0…{last}, got {token.tolist()}")
        return self._stepper.advance(table.index_select(0, token))

    @property
    def obstacles(self) -> list[str]:
        """Why steps do not run in the kernel; empty where they do."""
        return self._stepper.obstacles

    @property
    def state(self) -> Any:
        """The state as the model returns it, each [L, B, N]: a copy."""
        return self._stepper.state

    @state.setter
    def state(self, given: Any) -> None:
        self._stepper.state = given

    @property
    def state_bytes(self) -> int:
        """What the steps to come need, however many were read."""
        state = self._stepper.state
        return sum(t.nbytes for t in ((state,) if isinstance(state, torch.Tensor) else state))

    def reset(self, rows: torch.Tensor | None = None) -> None:
        """Zero the state: of all rows, or of those that `rows` (bool [B]) marks."""
        self._stepper.reset(rows)

    def refresh(self) -> None:
        """Read the weights again, after writing into `parameter.data`."""
        self._stepper.refresh()
