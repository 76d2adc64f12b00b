"""What every language model does with its tokens, whatever runs over time in it.

T = steps, B = batch, V = vocabulary, H = hidden units.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from gatewise.executors.counter import checked_seed
from gatewise.models.corpus import IGNORED
from gatewise.models.head import logits_of, negative_log_likelihood
from gatewise.models.sampling import Sampling

_PROMPT_CHUNK = 1024  # a prompt of any length is read in pieces: memory stays constant


class TokenStream(Protocol):
    """A language model that is fed one token after another and remembers its state."""

    state: Any

    def __call__(self, token: int) -> torch.Tensor: ...


class TokenModel(nn.Module):
    """Predicts the next token at every step, with a state that the caller carries.

    logits_t = V · projected(dropped(hidden_t)) + b, where `hidden` is the subclass's.
    """

    head: nn.Linear
    dropout: nn.Dropout

    def hidden(self, tokens: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
        """What the layers say [T, B, H], and the state after the last step."""
        raise NotImplementedError

    def dropped(self, output: torch.Tensor) -> torch.Tensor:
        """The layers' output with some of its numbers dropped, in training."""
        return self.dropout(output)

    def projected(self, output: torch.Tensor) -> torch.Tensor:
        """What the head reads of the layers' output [..., H], dropped or not."""
        return output

    def logits(self, output: torch.Tensor) -> torch.Tensor:
        """[..., V] from the layers' output [..., H], dropped or not."""
        return logits_of(self.projected(output), self.head.weight, self.head.bias, self.rounded)

    def surprisal(self, output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """-log P of the targets [T, B] that are not IGNORED, summed, from output [T, B, H]."""
        read = self.projected(output).flatten(0, 1)
        return negative_log_likelihood(
            read, self.head, targets.flatten(), IGNORED, rounded=self.rounded
        )

    @property
    def rounded(self) -> bool:
        """Whether the products of the head are taken in bfloat16."""
        return False

    def stream(self, batch: int = 1) -> TokenStream:
        """The model one token at a time: `logits = stepper(token)`."""
        raise NotImplementedError

    def forward(self, tokens: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
        """Logits [T, B, V] and the state after the last step, from tokens [T, B] int64."""
        output, state = self.hidden(tokens, state)
        return self.logits(self.dropped(output)), state

    def sample(
        self,
        prompt: Sequence[int] | torch.Tensor,
        length: int | None = None,
        sampling: Sampling | None = None,
        seed: int | None = None,
        forbidden: Sequence[int] = (),
    ) -> Iterator[int]:
        """Tokens that continue `prompt`, one by one, endlessly where `length` is None.

        Keeps the state and nothing else: memory does not grow with a state that does not. The
        same seed draws the same tokens. `forbidden` tokens are never drawn. The module must be
        in evaluation mode.
        """
        if len(prompt) == 0:
            raise ValueError("prompt must have at least one token")
        if length is not None and length < 0:
            raise ValueError(f"length must not be negative, got {length}")
        if seed is not None:
            seed = checked_seed(seed)
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
            logits = self.read(prompt, stepper)
        for drawn in itertools.count():
            if drawn == length:
                return
            with torch.inference_mode():
                scores = logits.float().cpu()
                scores[never] = float("-inf")
                if scores.max() == float("-inf"):
                    raise ValueError("every token is forbidden: there is none to draw")
                token = sampling.draw(scores, generator)
            yield token
            logits = stepper(token)

    def read(self, prompt: torch.Tensor, stepper: TokenStream) -> torch.Tensor:
        """The logits [V] after the tokens [T] of a prompt; leaves the state in `stepper`."""
        output = state = None
        for piece in prompt.split(_PROMPT_CHUNK):
            output, state = self.hidden(piece.to(self.head.weight.device).unsqueeze(1), state)
        assert output is not None
        stepper.state = state
        return self.logits(output[-1, 0])
