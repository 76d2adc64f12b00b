"""Draw the next token: which tokens may come, and with which probability."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn from logits.

    In this order: logits are divided by `temperature`; only the `top_k` likeliest tokens stay;
    of these, the smallest set that holds the probability `top_p` (Holtzman et al., 2020); of
    these, the ones at least `min_p` times as likely as the likeliest (Nguyen et al., 2024).
    What stays is normalised. `greedy` takes the likeliest token, the limit of temperature 0.

    Raises ValueError for a value out of range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    greedy: bool = False

    def __post_init__(self) -> None:
        if not 0.0 < self.temperature < float("inf"):
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        if not 0.0 <= self.min_p <= 1.0:
            raise ValueError(f"min_p must be between 0 and 1, got {self.min_p}")

    def distribution(self, logits: torch.Tensor) -> torch.Tensor:
        """Probabilities [V] of the next token, from logits [V]."""
        logits = logits.double()
        if self.greedy:
            return torch.nn.functional.one_hot(logits.argmax(), len(logits)).double()
        # The largest logit first to 0: a tiny temperature must not overflow.
        probability = ((logits - logits.max()) / self.temperature).softmax(-1)
        ranked, order = probability.sort(descending=True, stable=True)
        if self.top_k is not None:
            ranked = _renormalised(ranked, torch.arange(len(ranked)) < self.top_k)
        before = ranked.cumsum(-1) - ranked
        if self.top_p < 1.0:  # rounding of the sum must not cut the tail where nothing is asked
            ranked = _renormalised(ranked, before < self.top_p)
        ranked = _renormalised(ranked, ranked >= self.min_p * ranked[0])
        return torch.zeros_like(ranked).scatter(0, order, ranked)

    def draw(self, logits: torch.Tensor, generator: torch.Generator | None = None) -> int:
        """One token, from logits [V]."""
        if self.greedy:
            return int(logits.argmax())
        return int(torch.multinomial(self.distribution(logits), 1, generator=generator))


def with_own(inputs: torch.Tensor, guesses: torch.Tensor, probability: float) -> torch.Tensor:
    """Inputs [T, B], each but the first replaced with `probability` by the guess of a step before.

    Scheduled sampling (Bengio et al., 2015): guesses [T, B] are what a model says follows inputs.
    """
    swapped = torch.rand(inputs[1:].shape, device=inputs.device) < probability
    return torch.cat([inputs[:1], guesses[:-1].where(swapped, inputs[1:])])


def _renormalised(probability: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    kept = probability * keep
    return kept / kept.sum()
