"""How to train: for how long, in which steps, at which learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from gatewise.executors.counter import checked_seed

_FLOOR = 0.02  # of the peak learning rate, where the cosine ends
OPTIMIZERS = ("adamw", "sgd")


@dataclass(frozen=True)
class Settings:
    """How to train. Exactly one of `steps`, `epochs` and `minutes` says how long.

    Minutes become steps once, by timing the first ones, so that the schedule can be resumed.
    The learning rate warms up, then follows a cosine down to 2 % of its peak; with `decay` it is
    multiplied by that after every pass over the data from pass `decay_after` on instead.
    """

    steps: int | None = None
    epochs: float | None = None
    minutes: float | None = None
    batch: int = 16
    optimizer: str = "adamw"
    learning_rate: float = 5e-3
    warmup: int = 100  # steps, at most a tenth of all
    decay: float | None = None
    decay_after: int = 0  # passes
    weight_decay: float = 0.01
    clip: float = 1.0  # largest norm of the gradient
    evaluations: int = 10  # over the whole run
    patience: int = 5  # evaluations without a better held-out figure before an early stop
    average: int = 0  # weights, once the figure is worse than before the last so many evaluations
    seed: int = 0

    def __post_init__(self) -> None:
        lengths = [n for n in ("steps", "epochs", "minutes") if getattr(self, n) is not None]
        if len(lengths) != 1:
            raise ValueError(
                f"give one of steps, epochs and minutes, got {' and '.join(lengths) or 'none'}"
            )
        positive = (lengths[0], "batch", "learning_rate", "clip", "evaluations", "patience")
        for name in (*positive, *(["decay"] if self.decay is not None else [])):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ValueError(f"{name} must be positive, got {value!r}")
        checked_seed(self.seed)
        for name in ("warmup", "decay_after", "weight_decay", "average"):
            if not isinstance(getattr(self, name), int | float) or getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)!r}")
        if self.optimizer not in OPTIMIZERS:
            allowed = ", ".join(OPTIMIZERS)
            raise ValueError(f"optimizer must be one of {allowed}, got {self.optimizer!r}")

    def learning_rate_at(self, step: int, total: int | None, epoch: int = 0) -> float:
        """The rate of step 0, 1, … of `total`, in pass `epoch`."""
        warmup = self.warmup if total is None else min(self.warmup, total // 10)
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        if self.decay is not None:
            return self.learning_rate * self.decay ** max(0, epoch + 1 - self.decay_after)
        if total is None:
            return self.learning_rate
        done = min(1.0, (step - warmup) / max(1, total - warmup))
        cosine = (1 + math.cos(math.pi * done)) / 2
        return self.learning_rate * (_FLOOR + (1 - _FLOOR) * cosine)

    def about_steps(self, per_epoch: int) -> float:
        """How many steps these settings mean; minutes are not known yet and count as ten passes."""
        if self.steps is not None:
            return self.steps
        return max(1.0, (10.0 if self.epochs is None else self.epochs) * per_epoch)

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer, at the peak rate."""
        if self.optimizer == "sgd":
            return torch.optim.SGD(
                parameters, self.learning_rate, weight_decay=self.weight_decay, fused=True
            )
        return torch.optim.AdamW(
            parameters,
            self.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=self.weight_decay,
            fused=True,
        )
