"""The anomaly detector's task: a stream from a table, read once, each value before it is learned.

N = rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gatewise.cells import get_cell
from gatewise.equations.cell import Cell
from gatewise.models import processes
from gatewise.models.anomaly import ALARM, AnomalyDetector, DetectorConfig, Finding, check_value
from gatewise.models.settings import Settings
from gatewise.models.table import read_series, read_table
from gatewise.models.task import Loss, Predictor, Source, Task, named_cell

_RECORD = "record"  # what a detector remembers beside its tensors: JSON, as bytes
_FOUND = "found"  # what it said of every row so far
_FREE = ("batch", "learning_rate", "evaluations", "seed")  # settings of a stream


@dataclass(frozen=True)
class Columns:
    """Where a table has the stream, and which scores are alarms."""

    time: str
    value: str
    label: str | None = None
    threshold: float = ALARM

    def __post_init__(self) -> None:
        for name in ("time", "value", "label"):
            given = getattr(self, name)
            if not isinstance(given, str) and not (name == "label" and given is None):
                raise TypeError(f"{name} must be the name of a column, got {given!r}")
        if not isinstance(self.threshold, int | float) or not 0 < self.threshold <= 1:
            raise ValueError(f"threshold must be above 0, at most 1, got {self.threshold!r}")

    def read(self, path: Path) -> tuple[list[datetime], list[float]]:
        """The stream in a file; ValueError names the row that no detector takes."""
        times, values = read_series(path, self.time, self.value)
        for row, value in enumerate(values, 1):
            try:
                check_value(value)
            except ValueError as error:
                raise ValueError(f"{path}, row {row}, column {self.value!r}: {error}") from None
        return times, values

    def labelled(self, path: Path) -> list[tuple[int, int]]:
        """First and last rows of the known anomalies of a file; none without a label column."""
        if self.label is None:
            return []
        marks = read_table(path, [self.label]).values[:, 0]
        if not np.isin(marks, (0, 1)).all():
            raise ValueError(f"{path}: column {self.label!r} must hold nothing but 0 and 1")
        edges = np.flatnonzero(np.diff(np.concatenate([[0], marks, [0]])))
        return [(int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2], strict=True)]


@dataclass(frozen=True)
class AnomalyOptions:
    """Which columns make the stream, and how it is forecast and learned.

    `label` is a column with 1 in the rows of known anomalies and 0 elsewhere, for `evaluate`;
    `threshold` is the score from which on a row is an alarm. Every `batch` rows (a setting of
    training) there is a step of learning.
    """

    time: str = "timestamp"
    column: str = "value"
    label: str | None = None
    threshold: float = ALARM
    cell: str = "gru"
    hidden_size: int = 32
    window: int = 64
    replay: int = 8
    memory: int = 8192
    quiet: int = 20

    def __post_init__(self) -> None:
        self.columns()

    def columns(self) -> Columns:
        return Columns(self.time, self.column, self.label, self.threshold)

    def config(self, settings: Settings) -> DetectorConfig:
        own = {f.name for f in fields(DetectorConfig)} & {f.name for f in fields(self)}
        return DetectorConfig(
            every=settings.batch,
            learning_rate=settings.learning_rate,
            seed=settings.seed,
            **{n: getattr(self, n) for n in own},
        )


class AnomalyPredictor(Predictor[nn.Module]):
    """A detector where its stream left it: new rows go on with that stream."""

    def __init__(
        self, config: DetectorConfig, columns: Columns, cell: Cell | None, executor: str
    ) -> None:
        self.columns, self._cell, self._executor = columns, cell, executor
        self.detector = AnomalyDetector(config, cell, executor)

    @property
    def model(self) -> nn.Module:  # type: ignore[override]
        return self.detector.network

    def to_json(self) -> dict[str, Any]:
        return {"config": asdict(self.detector.config), "columns": asdict(self.columns)}

    @classmethod
    def from_json(
        cls, data: Any, cell: Cell | None = None, executor: str = "auto"
    ) -> AnomalyPredictor:
        if not isinstance(data, dict):
            raise ValueError("a detector must be an object")
        config = DetectorConfig.from_json(data["config"])
        columns = Columns(**data["columns"])
        made = named_cell(config.cell, cell)
        return cls(config, columns, None if isinstance(made, str) else made, executor)

    def memory(self) -> dict[str, torch.Tensor]:
        """All that the detector goes on from beside the network's numbers."""
        network = dict(self.model.named_parameters())
        found = {n: t for n, t in self.detector.tensors().items() if n not in network}
        record = json.dumps(self.detector.record()).encode()
        return found | {_RECORD: torch.frombuffer(bytearray(record), dtype=torch.uint8)}

    def go_on_from(self, carried: Mapping[str, torch.Tensor]) -> None:
        record = json.loads(carried[_RECORD].numpy().tobytes())
        self.detector.restore({**carried, **dict(self.model.named_parameters())}, record)

    def follow(self, path: Path) -> tuple[list[datetime], list[float], Iterator[Finding]]:
        """Times, values and what a copy of the detector says of them, learning on the way.

        Raises ValueError where the file begins before the stream so far has ended.
        """
        times, values = self.columns.read(path)
        if not self.detector.precedes(times[0]):
            raise ValueError(
                f"{path} begins at {times[0]}; this detector has read its stream up to "
                f"{self.detector.time}, and goes on after it"
            )
        copy = AnomalyDetector(self.detector.config, self._cell, self._executor)
        copy.restore(self.detector.tensors(), self.detector.record())
        return times, values, (copy.step(t, v) for t, v in zip(times, values, strict=True))

    def predict(self, path: Path) -> Iterator[dict[str, Any]]:
        """Each row with the forecast made before it was seen, its surprise and its score."""
        times, values, findings = self.follow(path)
        for time, value, found in zip(times, values, findings, strict=True):
            yield {"time": time.isoformat(sep=" "), "value": value, **found._asdict()}

    def render(self, row: dict[str, Any]) -> str:
        mark = "  alarm" if row["score"] >= self.columns.threshold else ""
        return (
            f"{row['time']}  {row['value']:g}, expected {row['expected']:.4g} "
            f"± {row['spread']:.2g}, score {row['score']:.2f}{mark}"
        )

    def evaluate(self, path: Path) -> dict[str, float]:
        """Errors of the forecasts, alarms; with labels how many anomalies were found."""
        windows = self.columns.labelled(path)
        _, values, findings = self.follow(path)
        return figures(values, as_table(list(findings)), windows, self.columns.threshold)

    def picture(
        self, found: Mapping[str, Mapping[str, float]], data: Path, out: Path
    ) -> list[Path]:
        """The stream, what was expected of it, the scores and the known anomalies."""
        times, values, findings = self.follow(data)
        table, windows = as_table(list(findings)), self.columns.labelled(data)
        return [self.draw(times, values, table, windows, out, data.name)]

    def draw(
        self,
        times: list[datetime],
        values: list[float],
        found: NDArray[np.float64],
        windows: list[tuple[int, int]],
        out: Path,
        title: str,
    ) -> Path:
        """A stream, its forecasts, scores and known anomalies, as a PNG in the folder `out`."""
        from gatewise.models.series_plots import plot_anomalies

        path, threshold = out / "anomalies.png", self.columns.threshold
        scores, expected = found[:, 3].tolist(), found[:, 0].tolist()
        named: dict[str, Any] = {"expected": expected, "windows": windows, "threshold": threshold}
        plot_anomalies(times, values, scores, path, title, **named)
        return path


class AnomalyTask(Task[AnomalyPredictor]):
    """Read a stream once; forecast each value, compare, then learn from it."""

    kind = "anomaly"
    summary = "anomalies of a stream, from a table of times and values; it learns while it reads"
    Options = AnomalyOptions
    Predictor = AnomalyPredictor
    defaults = {"epochs": 1.0, "batch": 16, "learning_rate": 3e-3}
    items = "rows"
    loss_name = "absolute_error"
    metric = "absolute_error"
    online = True

    def __init__(
        self,
        predictor: AnomalyPredictor,
        name: str,
        times: list[datetime],
        values: list[float],
        windows: list[tuple[int, int]],
        batch: int,
    ) -> None:
        self.predictor, self.name, self.windows = predictor, name, windows
        self._times, self._values, self._batch = times, values, batch
        self._found: list[Finding] = []
        text = json.dumps([[t.isoformat(), v] for t, v in zip(times, values, strict=True)])
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()

    @classmethod
    def begin(
        cls,
        source: Source,
        options: AnomalyOptions,
        settings: Settings,
        cell: Cell | None = None,
        executor: str = "auto",
    ) -> AnomalyTask:
        if source.path is None:
            raise ValueError("a detector needs DATA: a table with a column of times and of values")
        if source.held_out is not None:
            raise ValueError(
                "held_out is not for a stream: each value is forecast before it is learned from"
            )
        _check(settings, Settings(**cls.defaults))
        if processes.count() > 1:
            raise ValueError("a stream is read by one process, not under torchrun")
        config = options.config(settings)
        made = get_cell(options.cell) if cell is None else cell
        columns = options.columns()
        times, values = columns.read(source.path)
        predictor = AnomalyPredictor(config, columns, made, executor)
        windows = columns.labelled(source.path)
        return cls(predictor, source.path.name, times, values, windows, settings.batch)

    def __len__(self) -> int:
        return -(-len(self._values) // self._batch)

    def loss(self, epoch: int, batch: int) -> Loss:
        """What the forecasts of the next rows were off by; the detector has learned from them."""
        rows = range(batch * self._batch, min(len(self._values), (batch + 1) * self._batch))
        detector, wrong = self.predictor.detector, 0.0
        for row in rows:
            found = detector.step(self._times[row], self._values[row])
            self._found.append(found)
            wrong += abs(self._values[row] - found.expected)
        return Loss(torch.tensor(wrong, dtype=torch.float64), len(rows))

    def score(self) -> dict[str, float]:
        """Over the rows read so far, each forecast before it was learned from."""
        values, threshold = self._values[: len(self._found)], self.predictor.columns.threshold
        return figures(values, as_table(self._found), self.windows, threshold)

    def carried(self) -> dict[str, torch.Tensor]:
        return self.predictor.memory() | {_FOUND: torch.from_numpy(as_table(self._found))}

    def carry(self, tensors: dict[str, torch.Tensor]) -> None:
        self._found = [Finding(*row) for row in tensors[_FOUND].tolist()]
        self.predictor.go_on_from(tensors)

    def about(self) -> str:
        first, last = self._times[0], self._times[-1]
        return f"{len(self._values):,} rows from {first} to {last}"

    def pictures(self, out: Path) -> list[Path]:
        rows, table = len(self._found), as_table(self._found)
        windows = [(a, min(b, rows - 1)) for a, b in self.windows if a < rows]
        times, values = self._times[:rows], self._values[:rows]
        return [self.predictor.draw(times, values, table, windows, out, self.title())]


def as_table(findings: list[Finding]) -> NDArray[np.float64]:
    """[N, 4]: expected, spread, surprise, score."""
    return np.array(findings, dtype=np.float64).reshape(len(findings), len(Finding._fields))


def figures(
    values: Sequence[float],
    found: NDArray[np.float64],
    windows: list[tuple[int, int]],
    threshold: float = ALARM,
) -> dict[str, float]:
    """What the forecasts were off by, beside repeating the last value, and what was reported.

    With known anomalies: how many hold an alarm, and how many alarms are in none of them.
    """
    alarms = np.flatnonzero(found[:, 3] >= threshold)
    result = {
        "absolute_error": float(np.abs(values - found[:, 0]).mean()),
        "last_value_error": float(np.abs(np.diff(values)).mean()) if len(values) > 1 else 0.0,
        "alarms": float(len(alarms)),
    }
    if windows:
        spans = [range(a, b + 1) for a, b in windows if a < len(values)]
        result["anomalies"] = float(len(spans))
        result["found"] = float(sum(any(a in s for a in alarms) for s in spans))
        result["false_alarms"] = float(sum(not any(a in s for s in spans) for a in alarms))
    return result


def _check(settings: Settings, usual: Settings) -> None:
    """ValueError for a setting that means nothing for a stream that is read once."""
    same = replace(settings, **{n: getattr(usual, n) for n in _FREE})
    for field in fields(Settings):
        if getattr(same, field.name) != getattr(usual, field.name):
            raise ValueError(
                f"{field.name} is not for the task anomaly: a stream is read once, in order; "
                f"it has {', '.join(_FREE)}"
            )
