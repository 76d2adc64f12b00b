"""Forecasters: many steps ahead, several series, a point and quantiles.

B = windows, L = look-back, F = horizon, S = series, K = outputs of a step (a point, then the
quantiles), P = steps of a segment, M = segments of the horizon, E = embedding, H = hidden units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import avg_pool1d

from gatewise.equations.cell import Cell
from gatewise.layers import Recurrent, make_state
from gatewise.models.config import Config

_LARGEST = {"look_back": 1 << 20, "horizon": 1 << 20, "segment": 1 << 20}
_LARGEST |= {"series": 1 << 16, "hidden_size": 1 << 16, "num_layers": 1 << 10}
_EMBEDDING = 16  # numbers that tell the decoder which segment, and which series


@dataclass(frozen=True)
class ForecasterConfig(Config):
    """The sizes of a forecaster; everything but its numbers.

    `model` is a name in `FORECASTERS`. `segment`, the sizes and the cell are the recurrent one's.
    """

    described = "a forecaster"
    largest = _LARGEST

    series: int
    look_back: int = 96
    horizon: int = 24
    quantiles: tuple[float, ...] = (0.1, 0.5, 0.9)
    model: str = "recurrent"
    cell: str = "gru"
    segment: int = 24
    hidden_size: int = 128
    num_layers: int = 1
    dropout: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model not in FORECASTERS:
            raise ValueError(f"model must be one of {', '.join(FORECASTERS)}, got {self.model!r}")
        if self.segment > self.look_back:
            raise ValueError(f"segment must be at most look_back = {self.look_back}")
        q = self.quantiles
        if not all(isinstance(x, float) and 0 < x < 1 for x in q) or list(q) != sorted(set(q)):
            raise ValueError(f"quantiles must rise between 0 and 1, got {q!r}")

    @property
    def outputs(self) -> int:
        return 1 + len(self.quantiles)

    @classmethod
    def from_json(cls, data: Any) -> ForecasterConfig:
        """See `Config`; JSON has lists for tuples."""
        if isinstance(data, dict) and isinstance(data.get("quantiles"), list):
            data = {**data, "quantiles": tuple(data["quantiles"])}
        return super().from_json(data)


class Forecaster(nn.Module):
    """What every forecaster shares: the normalisation around it.

    z = (x - μ) / σ per series, with μ and σ of the training rows, and then per window the last
    value is taken away and put back behind: series drift, and what is learned of a shape should
    not depend on where it stands. μ and σ are buffers: saved with the model, undone by it.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, config: ForecasterConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(config.series, dtype=torch.float64))
        self.register_buffer("std", torch.ones(config.series, dtype=torch.float64))

    def fit_scale(self, rows: torch.Tensor) -> None:
        """Take μ and σ from the training rows [N, S]; a constant series keeps σ = 1."""
        rows = rows.double()
        varies = rows.amax(0) > rows.amin(0)  # the spread of equal numbers is a residue, not 0
        self.mean.copy_(rows.mean(0))
        self.std.copy_(torch.where(varies, rows.std(0, correction=0), 1.0))

    def scale(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows [..., S] in their own units as float32 in units of the training data's spread."""
        return ((rows.double() - self.mean) / self.std).float()

    def unscale(self, scaled: torch.Tensor) -> torch.Tensor:
        """What `scale` was given, to float32's precision: [..., S]."""
        return scaled.double() * self.std + self.mean

    def forward(self, window: torch.Tensor) -> torch.Tensor:
        """The next F steps [B, F, S, K] of scaled windows [B, L, S]."""
        last = window[:, -1:]  # [B, 1, S]
        return self.ahead(window - last) + last.unsqueeze(-1)

    def ahead(self, window: torch.Tensor) -> torch.Tensor:
        """`forward` for windows that end in 0."""
        raise NotImplementedError

    @torch.no_grad()
    def forecast(self, rows: torch.Tensor) -> torch.Tensor:
        """The next F steps [F, S, K] after the rows [≥ L, S], all in the series' own units.

        Quantiles are put in order: they are learned apart and may cross.
        """
        window = self.scale(rows[-self.config.look_back :]).unsqueeze(0)
        y = self(window)[0]
        y = torch.cat([y[..., :1], y[..., 1:].sort(-1).values], -1)
        return self.unscale(y.transpose(-1, -2)).transpose(-1, -2)


class RecurrentForecaster(Forecaster):
    """A recurrent encoder over segments of the window, and one decoder step for each segment ahead.

    Every series is a sequence of its own; all share the weights. A segment of P values is one step:

        e_k = relu(W x_k + b),  s = encoder(e_1 … e_{L/P}),
        y_m = V · decoder(s, (position_m, series)),  m = 1 … M,

    so a look-back of days is a handful of steps, and no error feeds on an earlier forecast.

    Source: Lin et al., SegRNN: segment recurrent neural network for long-term time series
    forecasting, 2023.

    >>> model = RecurrentForecaster(ForecasterConfig(series=2, look_back=8, horizon=5, segment=2))
    >>> model(torch.zeros(3, 8, 2)).shape
    torch.Size([3, 5, 2, 4])
    """

    def __init__(
        self, config: ForecasterConfig, cell: Cell | None = None, executor: str = "auto"
    ) -> None:
        super().__init__(config)
        made, hidden = config.cell if cell is None else cell, config.hidden_size
        self.segments = math.ceil(config.horizon / config.segment)  # M
        self.read = nn.Linear(config.segment, hidden)
        self.encoder = Recurrent(made, hidden, hidden, config.num_layers, executor=executor)
        self.decoder = Recurrent(made, 2 * _EMBEDDING, hidden, config.num_layers, executor=executor)
        self.position = nn.Parameter(torch.randn(self.segments, _EMBEDDING))
        self.identity = nn.Parameter(torch.randn(config.series, _EMBEDDING))
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(self.decoder.output_size, config.segment * config.outputs)

    def ahead(self, window: torch.Tensor) -> torch.Tensor:
        c, (batch, length, series) = self.config, window.shape
        rows, ahead = batch * series, self.segments
        used = length - length % c.segment  # the oldest steps that fill no segment are left out
        x = window[:, length - used :].transpose(1, 2).reshape(rows, -1, c.segment)
        _, state = self.encoder(torch.relu(self.read(x)).transpose(0, 1))  # [L/P, B·S, H]
        asked = torch.cat(
            [
                self.position.repeat(rows, 1),  # [B·S·M, E]
                self.identity.repeat_interleave(ahead, 0).repeat(batch, 1),
            ],
            -1,
        )
        output, _ = self.decoder(asked.unsqueeze(0), _repeated(state, ahead))  # [1, B·S·M, H]
        y = self.head(self.dropout(output[0])).reshape(batch, series, -1, c.outputs)
        return y[:, :, : c.horizon].transpose(1, 2)


def _repeated(state: Any, times: int) -> Any:
    """Every row of a state `times` times, one after the other."""
    if isinstance(state, torch.Tensor):
        return state.repeat_interleave(times, 1)
    return make_state(state._fields, (s.repeat_interleave(times, 1) for s in state))


class DLinear(Forecaster):
    """The control: one linear map of the window's moving average, one of the rest.

    y = W_t trend + W_s (x - trend) + b, with a centred mean over 25 steps, the ends repeated.

    Source: Zeng et al., Are transformers effective for time series forecasting?, 2023.
    """

    WIDTH = 25

    def __init__(
        self, config: ForecasterConfig, cell: Cell | None = None, executor: str = "auto"
    ) -> None:
        super().__init__(config)
        size = config.horizon * config.outputs
        self.trend = nn.Linear(config.look_back, size)
        self.rest = nn.Linear(config.look_back, size)

    def ahead(self, window: torch.Tensor) -> torch.Tensor:
        x = window.transpose(1, 2)  # [B, S, L]
        side = self.WIDTH // 2
        padded = torch.cat(
            [x[..., :1].expand(-1, -1, side), x, x[..., -1:].expand(-1, -1, side)], -1
        )
        trend = avg_pool1d(padded, self.WIDTH, stride=1)
        y = self.trend(trend) + self.rest(x - trend)  # [B, S, F·K]
        return y.unflatten(-1, (-1, self.config.outputs)).transpose(1, 2)


FORECASTERS: dict[str, type[RecurrentForecaster | DLinear]] = {
    "recurrent": RecurrentForecaster,
    "dlinear": DLinear,
}


def make_forecaster(
    config: ForecasterConfig, cell: Cell | None = None, executor: str = "auto"
) -> Forecaster:
    """The model that `config` names, untrained."""
    return FORECASTERS[config.model](config, cell, executor)


def forecast_loss(
    y: torch.Tensor, truth: torch.Tensor, quantiles: tuple[float, ...]
) -> torch.Tensor:
    """Squared error of the point plus the pinball losses of the quantiles, summed.

    (y_0 - x)² + Σ_q max(q (x - y_q), (q - 1)(x - y_q)), for y [..., K] and truth x [...].
    Each pinball loss is least where y_q is the quantile q (Koenker & Bassett, 1978).
    """
    error = truth.unsqueeze(-1) - y[..., 1:]
    q = y.new_tensor(quantiles)
    pinball = torch.maximum(q * error, (q - 1) * error)
    return (y[..., 0] - truth).square().sum() + pinball.sum()
