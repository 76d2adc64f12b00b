"""Anomalies of a stream: predict the next value, compare, adapt. In memory that does not grow.

T = steps of a learning window, B = windows, H = hidden units.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from gatewise.equations.cell import Cell
from gatewise.executors.counter import checked_seed
from gatewise.layers import Recurrent
from gatewise.layers.stepper import Stepper
from gatewise.models.config import Config
from gatewise.models.running import Ceiling, Peaks, Scale, floats
from gatewise.models.table import moment

ALARM = 0.5  # the score from which on a value is reported
_LARGEST = 8.0  # spreads from the mean that the network sees; its input is cut there
_BEYOND = 1e100  # the square of a larger value is no number
_CLOCK = 7  # the last value, two waves of the day, one of the week
_WARM = 8  # steps of a learning window that only fill the state
_SCALE = (-6.0, 3.0)  # of the logarithm of the expected error


@dataclass(frozen=True)
class DetectorConfig(Config):
    """How a detector predicts and how it learns."""

    described = "a detector"
    largest = {
        "hidden_size": 1 << 16,
        "every": 1 << 20,
        "window": 1 << 20,
        "replay": 1 << 16,
        "memory": 1 << 24,
    }
    dropouts = ()

    cell: str = "gru"
    hidden_size: int = 32
    every: int = 16  # rows between two steps of learning
    window: int = 64  # T
    replay: int = 8  # B: the latest window and others drawn from the past
    memory: int = 8192  # rows kept to draw from
    learning_rate: float = 3e-3
    quiet: int = 20  # rows at the beginning that get no score
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate!r}")
        if self.quiet < 0:
            raise ValueError(f"quiet must be 0 or more, got {self.quiet}")
        checked_seed(self.seed)
        if not _WARM < self.window <= self.memory:
            raise ValueError(f"window must be in {_WARM + 1}…memory, got {self.window}")


class Finding(NamedTuple):
    """What a detector says of one value."""

    expected: float  # the forecast that was made before the value was seen
    spread: float  # the error that was expected of it; both in the stream's own unit
    surprise: float  # 1: as rare as the rarest so far
    score: float  # 0…1, from the surprise; 0 where a recent value was as surprising


def check_value(value: float) -> None:
    """ValueError for a value that no detector takes."""
    if not abs(value) <= _BEYOND:
        raise ValueError(f"value must be finite, at most {_BEYOND:g}, got {value}")


class AnomalyDetector:
    """Says of every value of a stream how surprising it is, and learns from it.

    A recurrent network forecasts each value from those before and from the clock, as a mean μ and
    an expected error b (the Laplace distribution's). Three things can be surprising, each measured
    against the largest of its kind so far: the value's level, the forecast's error |x - μ|, and the
    mean of the last five (x - μ) / b, where small errors all point the same way. The largest of the
    three is the surprise. Every 16 values the network takes a step of learning on the latest window
    and on some of the past.

    Everything is causal: what is said of a value depends on it and on those before it alone.

    Args:
        config: how it predicts and learns.
        cell: the cell itself, where `config.cell` names one that is not registered.
        executor: as for `gatewise.Recurrent`.

    Raises ValueError for a configuration out of range.

    >>> detector = AnomalyDetector(DetectorConfig(hidden_size=8))
    >>> finding = detector.step(datetime(2020, 1, 1), 3.0)
    >>> finding.score
    0.0
    """

    def __init__(
        self,
        config: DetectorConfig | None = None,
        cell: Cell | None = None,
        executor: str = "auto",
    ) -> None:
        self.config = config = DetectorConfig() if config is None else config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.layer = Recurrent(
                config.cell if cell is None else cell,
                _CLOCK,
                config.hidden_size,
                executor=executor,
            )
            self.head = nn.Linear(self.layer.output_size, 2)
        nn.init.zeros_(self.head.weight)  # the first forecast is the last value
        nn.init.zeros_(self.head.bias)
        self.network = nn.ModuleDict({"layer": self.layer, "head": self.head})
        self._random = np.random.default_rng(config.seed)
        self.time: datetime | None = None  # of the latest value
        self._scale, self._last = Scale(), 0.0
        self._inputs = torch.zeros(config.memory, _CLOCK)  # the latest rows, in a ring
        self._targets = torch.zeros(config.memory)
        self._errors: deque[float] = deque(maxlen=5)
        # A level or an error that came three or four times is no anomaly any more; a run of errors
        # is one at once, and is forgotten by the time the stream has changed for good.
        self._level, self._error = Ceiling(3), Ceiling(4)
        self._run = Ceiling(1, forgets=3e-4)
        self._peaks = Peaks(least=100, share=0.03)

    @cached_property
    def _optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(
            self.network.parameters(), self.config.learning_rate, betas=(0.9, 0.99), fused=True
        )

    @cached_property
    def _stepper(self) -> Stepper:
        return Stepper(self.layer, heads=(self.head,))

    def step(self, time: datetime, value: float) -> Finding:
        """What to say of the next `value`; ValueError where it is not finite, or beyond 1e100."""
        check_value(value)
        self.time, value = time, float(value)
        scale, row = self._scale, self._scale.count
        if row == 0:
            scale.mean = value
        mean, std = scale.mean, scale.std
        scale.add(value)
        z = min(_LARGEST, max(-_LARGEST, (value - mean) / std))
        x = torch.tensor([[self._last, *clock(time)]], dtype=torch.float32)
        change, log_spread = self._stepper.advance(x)[0].tolist()
        expected = self._last + change
        spread = math.exp(min(_SCALE[1], max(_SCALE[0], log_spread)))
        surprise = self._compare(z, z - expected, spread)
        score = self._peaks.keep(surprise) if row >= self.config.quiet else 0.0
        at = row % self.config.memory
        self._inputs[at], self._targets[at], self._last = x[0], z, z
        if scale.count % self.config.every == 0 and scale.count >= self.config.window:
            self._adapt(scale.count)
        return Finding(
            mean + std * expected, std * spread, surprise, score / (1 + score) if score else 0.0
        )

    def _compare(self, z: float, error: float, spread: float) -> float:
        self._errors.append(min(10.0, max(-10.0, error / max(spread, 0.02))))
        run = abs(sum(self._errors)) / len(self._errors)
        return max(
            self._level.measure(abs(z)),
            0.9 * self._error.measure(abs(error)),
            0.8 * self._run.measure(run),
        )

    def _adapt(self, count: int) -> None:
        """One step of learning: the Laplace likelihood of the latest window and of earlier ones."""
        config, memory = self.config, self.config.memory
        oldest = max(0, count - memory)
        latest = count - config.window
        starts = self._random.integers(oldest, latest + 1, config.replay - 1)
        first = torch.from_numpy(np.append(starts, latest))  # [B]
        rows = (first + torch.arange(config.window)[:, None]) % memory  # [T, B]
        x, target = self._inputs[rows], self._targets[rows]
        y = self.head(self.layer(x)[0])  # [T, B, 2]
        mean, log_spread = x[..., 0] + y[..., 0], y[..., 1].clamp(*_SCALE)
        loss = ((mean - target).abs() * torch.exp(-log_spread) + log_spread)[_WARM:].mean()
        self._optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self._optimizer.step()

    def precedes(self, time: datetime) -> bool:
        """Is `time` after all that the stream has had so far?"""
        return self.time is None or moment(self.time) < moment(time)

    # -- between two values ----------------------------------------------------------------

    def tensors(self) -> dict[str, torch.Tensor]:
        """Weights, the optimizer's means, the state, and the rows to learn from, by name."""
        found = {n: p.detach() for n, p in self.network.named_parameters()}
        for name, parameter in self.network.named_parameters():
            for key, value in self._optimizer.state.get(parameter, {}).items():
                found[f"optimizer.{key}.{name}"] = value
        states = self._states()
        found |= {f"state.{k}": s for k, s in enumerate(states)}
        return found | {"inputs": self._inputs, "targets": self._targets}

    def record(self) -> dict[str, Any]:
        """What else there is to remember, ready for JSON."""
        return {
            "time": None if self.time is None else self.time.isoformat(),
            "last": self._last,
            "errors": list(self._errors),
            **{name: part.record() for name, part in self._parts().items()},
            "random": self._random.bit_generator.state,
        }

    def restore(self, tensors: Mapping[str, torch.Tensor], record: Mapping[str, Any]) -> None:
        """Go on from what `tensors` and `record` gave, to the same numbers.

        Raises ValueError, TypeError or KeyError for what does not fit.
        """
        time = record["time"]
        self.time = None if time is None else datetime.fromisoformat(time)
        [self._last] = floats([record["last"]], 1)
        self._errors.extend(floats(record["errors"], None))
        for name, part in self._parts().items():
            part.restore(record[name])
        self._random.bit_generator.state = record["random"]
        with torch.no_grad():
            for name, parameter in self.network.named_parameters():
                _copy(parameter, name, tensors)
                means = ("exp_avg", "exp_avg_sq")
                if any(n.startswith("optimizer.") for n in tensors):
                    made = {key: torch.zeros_like(parameter) for key in means}
                    made["step"] = torch.zeros(())
                    for key, value in made.items():
                        _copy(value, f"optimizer.{key}.{name}", tensors)
                    self._optimizer.state[parameter] = made
            _copy(self._inputs, "inputs", tensors)
            _copy(self._targets, "targets", tensors)
            states = self._states()
            for k, state in enumerate(states):
                _copy(state, f"state.{k}", tensors)
        self._stepper.state = states[0] if len(states) == 1 else states
        self._stepper.refresh()

    def _states(self) -> tuple[torch.Tensor, ...]:
        state = self._stepper.state
        return (state,) if isinstance(state, torch.Tensor) else tuple(state)

    def _parts(self) -> dict[str, Any]:
        return {
            "scale": self._scale,
            "level": self._level,
            "error": self._error,
            "run": self._run,
            "peaks": self._peaks,
        }


def _copy(target: torch.Tensor, name: str, tensors: Mapping[str, torch.Tensor]) -> None:
    found = tensors[name]
    if found.shape != target.shape or found.dtype != target.dtype or not found.isfinite().all():
        raise ValueError(f"{name} must be finite, {target.dtype} {list(target.shape)}")
    target.copy_(found)


def clock(time: datetime) -> tuple[float, ...]:
    """The time of day and of the week as waves: 6 numbers."""
    day = 2 * math.pi * (time.hour * 3600 + time.minute * 60 + time.second) / 86400
    week = (2 * math.pi * time.weekday() + day) / 7
    return (
        math.sin(day),
        math.cos(day),
        math.sin(2 * day),
        math.cos(2 * day),
        math.sin(week),
        math.cos(week),
    )
