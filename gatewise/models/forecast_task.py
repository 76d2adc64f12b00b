"""The forecaster's task: rows of a table in order, windows of them, the next steps of each.

N = rows, B = windows, L = look-back, F = horizon, S = series, K = outputs of a step.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gatewise.cells import get_cell
from gatewise.equations.cell import Cell
from gatewise.models.batches import Batches
from gatewise.models.forecaster import Forecaster, ForecasterConfig, forecast_loss, make_forecaster
from gatewise.models.settings import Settings
from gatewise.models.table import Table, read_table
from gatewise.models.task import Loss, Predictor, Source, Task, named_cell

_EVALUATION_BATCH = 256


@dataclass(frozen=True)
class ForecastOptions:
    """Which columns to forecast, how far, from how much, with what.

    `columns` and `quantiles` are lists with commas; without columns all that are numbers. `split`
    is rows to train on, to choose by and to test on (8640,2880,2880), or shares (0.7,0.1,0.2).
    `season` is the period of the seasonal-naive forecast in `evaluate`.
    """

    columns: str = ""
    look_back: int = 96
    horizon: int = 24
    quantiles: str = "0.1,0.5,0.9"
    split: str = "0.7,0.1,0.2"
    season: int = 24
    model: str = "recurrent"
    cell: str = "gru"
    segment: int = 24
    hidden_size: int = 128
    num_layers: int = 1
    dropout: float = 0.3

    def config(self, series: int) -> ForecasterConfig:
        return ForecasterConfig(
            series,
            self.look_back,
            self.horizon,
            tuple(_numbers("quantiles", self.quantiles)),
            self.model,
            self.cell,
            self.segment,
            self.hidden_size,
            self.num_layers,
            self.dropout,
        )

    def borders(self, rows: int) -> tuple[int, int, int]:
        """The ends of the three parts of a table of so many rows; ValueError where one is short."""
        parts = _numbers("split", self.split)
        if len(parts) != 3 or not all(0 < part < math.inf for part in parts):
            raise ValueError(f"split must be three positive numbers, got {self.split!r}")
        if sum(parts) <= 1 + 1e-9:
            ends = [round(rows * sum(parts[: k + 1])) for k in range(3)]
        else:
            ends = [int(sum(parts[: k + 1])) for k in range(3)]
        least = self.look_back + self.horizon
        if ends[2] > rows or ends[0] < least or min(np.diff(ends)) < self.horizon:
            raise ValueError(
                f"split {self.split} does not fit {rows} rows: training needs look_back + horizon "
                f"= {least}, the other two parts horizon = {self.horizon} each"
            )
        return ends[0], ends[1], ends[2]


@dataclass(frozen=True)
class Seen:
    """Which rows of the training file the model knows, so that a test leaves them out."""

    rows: int
    test: int  # rows after them that are the test
    digest: str
    begins: int  # rows at the beginning that tell the file
    beginning: str  # their digest

    @classmethod
    def of(cls, values: np.ndarray[Any, Any], rows: int, test: int, least: int) -> Seen:
        """The first `rows` of a file; `least` is how many any file to test on must have."""
        return cls(rows, test, _digest(values[:rows]), least, _digest(values[:least]))

    def tested(self, values: np.ndarray[Any, Any]) -> range:
        """The rows to test on: of the training file those set apart, of another file all.

        Raises ValueError for the beginning of the training file: the model has learned from it.
        """
        if len(values) > self.rows and _digest(values[: self.rows]) == self.digest:
            return range(self.rows, min(len(values), self.rows + self.test))
        if len(values) <= self.rows and _digest(values[: self.begins]) == self.beginning:
            raise ValueError(
                f"these {len(values)} rows begin as the file that the model has learned from, "
                f"whose first {self.rows} rows it knows: give all of it, or other data"
            )
        return range(len(values))


class ForecastPredictor(Predictor[Forecaster]):
    """A forecaster with the names of its columns."""

    def __init__(self, model: Forecaster, columns: tuple[str, ...], season: int, seen: Seen):
        self.model, self.columns, self.season, self.seen = model, columns, season, seen

    def to_json(self) -> dict[str, Any]:
        return {
            "config": self.model.config.to_json(),
            "columns": list(self.columns),
            "season": self.season,
            "seen": list(astuple(self.seen)),
        }

    @classmethod
    def from_json(
        cls, data: Any, cell: Cell | None = None, executor: str = "auto"
    ) -> ForecastPredictor:
        if not isinstance(data, dict):
            raise ValueError("a forecaster must be an object")
        config = ForecasterConfig.from_json(data["config"])
        columns, season = tuple(data["columns"]), data["season"]
        if len(columns) != config.series or not all(isinstance(c, str) for c in columns):
            raise ValueError("the columns do not fit the model")
        if not isinstance(season, int) or not 1 <= season <= config.look_back:
            raise ValueError("the season does not fit the model")
        made = named_cell(config.cell, cell)
        given = None if isinstance(made, str) else made
        model = make_forecaster(config, given, executor)
        rows, test, digest, begins, beginning = data["seen"]
        seen = Seen(int(rows), int(test), str(digest), int(begins), str(beginning))
        return cls(model, columns, season, seen)

    def read(self, path: Path) -> torch.Tensor:
        """The model's columns of a file: [N, S]; ValueError where it is too short."""
        rows = torch.from_numpy(read_table(path, self.columns).values)
        if len(rows) < self.model.config.look_back:
            raise ValueError(
                f"{path} has {len(rows)} rows, fewer than the look-back of "
                f"{self.model.config.look_back}"
            )
        return rows

    def predict(self, path: Path) -> Iterator[dict[str, Any]]:
        """The steps after the file's last row, each series with its point and quantiles."""
        y = self.model.forecast(self.read(path))  # [F, S, K]
        names = ["forecast", *(f"q{q:g}" for q in self.model.config.quantiles)]
        for step, ahead in enumerate(y.tolist(), 1):
            for column, values in zip(self.columns, ahead, strict=True):
                yield {"step": step, "column": column, **dict(zip(names, values, strict=True))}

    def evaluate(self, path: Path) -> dict[str, float]:
        """Errors on rows the model has not seen, in units of the training data's spread.

        The mean over all windows, steps and series, beside the seasonal-naive forecast (the value
        one season ago), and the share of the truth between the outermost quantiles.
        """
        rows = self.read(path)
        tested = self.seen.tested(rows.numpy())
        return self.score(rows, tested) | self._naive(self.model.scale(rows), tested)

    def score(self, rows: torch.Tensor, span: range) -> dict[str, float]:
        """`mse`, `mae`, `loss` and, with two quantiles or more, `coverage` in rows [N, S]."""
        config, scaled = self.model.config, self.model.scale(rows)
        sums = dict.fromkeys(("mse", "mae", "loss", "coverage"), 0.0)
        count = 0
        with torch.no_grad():
            for starts in self.starts(span).split(_EVALUATION_BATCH):
                window, truth = cut(scaled, starts, config.look_back, config.horizon)
                y = self.model(window)
                error = y[..., 0] - truth
                sums["mse"] += error.square().sum().item()
                sums["mae"] += error.abs().sum().item()
                sums["loss"] += forecast_loss(y, truth, config.quantiles).item()
                if len(config.quantiles) > 1:
                    low, high = y[..., 1:].amin(-1), y[..., 1:].amax(-1)
                    sums["coverage"] += ((low <= truth) & (truth <= high)).sum().item()
                count += truth.numel()
        if len(config.quantiles) < 2:
            del sums["coverage"]
        return {name: value / count for name, value in sums.items()}

    def starts(self, span: range) -> torch.Tensor:
        """The first forecast row of every window whose forecast lies in `span`."""
        first = max(span.start, self.model.config.look_back)
        stop = span.stop - self.model.config.horizon + 1
        if stop <= first:
            raise ValueError(f"{len(span)} rows hold no window of this model")
        return torch.arange(first, stop)

    def _naive(self, scaled: torch.Tensor, span: range) -> dict[str, float]:
        config = self.model.config
        ago = torch.arange(config.horizon) % self.season - self.season
        mse = mae = count = 0.0
        for starts in self.starts(span).split(_EVALUATION_BATCH):
            _, truth = cut(scaled, starts, 1, config.horizon)
            error = scaled[starts[:, None] + ago] - truth
            mse, mae = mse + error.square().sum().item(), mae + error.abs().sum().item()
            count += error.numel()
        return {"seasonal_naive_mse": mse / count, "seasonal_naive_mae": mae / count}


class ForecastTask(Task[ForecastPredictor]):
    """Forecast the next rows of a table from those before, with quantiles."""

    kind = "forecast"
    summary = "forecasts of series, a point and quantiles, from columns of CSV or Parquet"
    Options = ForecastOptions
    Predictor = ForecastPredictor
    defaults = {"epochs": 5, "batch": 64, "learning_rate": 1e-3, "evaluations": 5}
    items = "windows"
    metric = "mse"

    def __init__(self, predictor: ForecastPredictor, table: Table, ends: Any, settings: Settings):
        self.predictor = predictor
        self.rows, self.ends = torch.from_numpy(table.values), ends
        self.fingerprint = _digest(table.values[: ends[2]])
        predictor.model.fit_scale(self.rows[: ends[0]])
        self._scaled = predictor.model.scale(self.rows)
        self._starts = predictor.starts(range(ends[0]))
        self._batches = Batches([1] * len(self._starts), settings.batch, settings.seed)

    @classmethod
    def begin(
        cls,
        source: Source,
        options: ForecastOptions,
        settings: Settings,
        cell: Cell | None = None,
        executor: str = "auto",
    ) -> ForecastTask:
        if source.path is None:
            raise ValueError("a forecast needs a table to learn from")
        if source.held_out is not None:
            raise ValueError("held_out is not for a forecast: its split is --set split=…")
        if not 1 <= options.season <= options.look_back:
            raise ValueError(f"season must be in 1…look_back, got {options.season}")
        columns = [c.strip() for c in options.columns.split(",") if c.strip()]
        table = read_table(source.path, columns)
        ends = options.borders(len(table.values))
        cell = get_cell(options.cell) if cell is None else cell
        model = make_forecaster(options.config(len(table.names)), cell, executor)
        least = options.look_back + options.horizon
        seen = Seen.of(table.values, ends[1], ends[2] - ends[1], least)
        predictor = ForecastPredictor(model, table.names, options.season, seen)
        task = cls(predictor, table, ends, settings)
        task.name = source.path.name
        return task

    @property
    def model(self) -> Forecaster:
        return self.predictor.model

    def __len__(self) -> int:
        return len(self._batches)

    def loss(self, epoch: int, batch: int) -> Loss:
        config = self.model.config
        starts = self._starts[self._batches.examples(epoch, batch)]
        window, truth = cut(self._scaled, starts, config.look_back, config.horizon)
        return Loss(forecast_loss(self.model(window), truth, config.quantiles), truth.numel())

    def score(self) -> dict[str, float]:
        return self.predictor.score(self.rows, range(self.ends[0], self.ends[1]))

    def items_in(self, count: float) -> float:
        config = self.model.config
        return count / (config.horizon * config.series)

    def about(self) -> str:
        train, chosen, tested = self.ends[0], *np.diff(self.ends).tolist()
        return (
            f"{len(self.predictor.columns)} series, {train:,} rows to learn from, "
            f"{chosen:,} held out, {tested:,} for `gatewise evaluate`"
        )

    def title(self) -> str:
        config = self.model.config
        return f"{self.name}: {config.horizon} steps from {config.look_back} ({config.model})"

    def pictures(self, out: Path) -> list[Path]:
        """Forecasts of the best model over held-out truth."""
        from gatewise.models.saved import load
        from gatewise.models.series_plots import plot_forecasts

        best = load(out, "best", cell_of(self.model), kind=self.kind).predictor
        assert isinstance(best, ForecastPredictor)
        path = out / "forecast.png"
        held = range(self.ends[0], self.ends[1])
        plot_forecasts(best.model, self.rows, best.starts(held), best.columns, path, self.title())
        return [path]


def cell_of(model: Forecaster) -> Cell | None:
    """The cell of a forecaster that has one."""
    encoder: Any = getattr(model, "encoder", None)
    return None if encoder is None else encoder.cell


def cut(
    scaled: torch.Tensor, starts: torch.Tensor, look_back: int, horizon: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The windows [B, L, S] before the rows `starts`, and the truth [B, F, S] from there on."""
    before = starts[:, None] + torch.arange(-look_back, 0)
    return scaled[before], scaled[starts[:, None] + torch.arange(horizon)]


def _numbers(name: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ValueError(f"{name} must be numbers with commas, got {text!r}") from None


def _digest(values: np.ndarray[Any, Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
