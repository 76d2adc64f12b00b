"""Tables from files: CSV by its header, Parquet where pyarrow is installed; numbers and times.

N = rows, S = columns.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gatewise.models.extras import require


@dataclass(frozen=True)
class Table:
    """Numeric columns of a file, in the order of its rows."""

    names: tuple[str, ...]
    values: NDArray[np.float64]  # [N, S]


def read_table(path: str | Path, columns: Sequence[str] | None = None) -> Table:
    """Columns of numbers; without names all that hold nothing else.

    Raises ValueError naming the file, the row and the column of what is no finite number, a column
    that is not there, or a file without rows; OSError where it cannot be read.

    >>> # read_table("prices.csv", ["open", "close"]).values.shape
    """
    names, rows = _read(Path(path))
    wanted = list(columns) if columns else [n for n in names if _is_number(rows[0][n])]
    for name in wanted:
        if name not in names:
            raise ValueError(f"column {name!r} is not in {path}: it has {', '.join(names)}")
    if not wanted:
        raise ValueError(f"{path} has no column of numbers: it has {', '.join(names)}")
    values = np.empty((len(rows), len(wanted)))
    for k, name in enumerate(wanted):
        for n, row in enumerate(rows):
            values[n, k] = _number(row[name], f"{path}, row {n + 1}, column {name!r}")
    return Table(tuple(wanted), values)


def read_times(path: str | Path, column: str) -> list[datetime]:
    """A column of dates and times, as ISO 8601 writes them."""
    names, rows = _read(Path(path))
    if column not in names:
        raise ValueError(f"column {column!r} is not in {path}: it has {', '.join(names)}")
    times = []
    for n, row in enumerate(rows):
        value = row[column]
        try:
            times.append(value if isinstance(value, datetime) else datetime.fromisoformat(value))
        except (TypeError, ValueError):
            raise ValueError(f"{path}, row {n + 1}: {column!r} is no time: {value!r:.40}") from None
    return times


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """All rows of a CSV or Parquet file, each a dict by column."""
    return _read(Path(path))[1]


def _read(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    names, rows = _parquet(path) if path.suffix.lower() in (".parquet", ".pq") else _csv(path)
    if not rows:
        raise ValueError(f"{path} has no rows")
    return names, rows


def _csv(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            names = next(reader, [])
            if not names or len(set(names)) < len(names):
                raise ValueError(f"{path} must begin with a line of different column names")
            rows = []
            for row in _lines(reader, path):
                if len(row) != len(names):
                    raise ValueError(
                        f"{path}, line {reader.line_num}: {len(row)} fields, expected {len(names)}"
                    )
                rows.append(dict(zip(names, row, strict=True)))
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text") from None
    return names, rows


def _lines(reader: Any, path: Path) -> Iterator[list[str]]:
    try:
        yield from (row for row in reader if row)
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from None


def _parquet(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    parquet = require("pyarrow.parquet", "series", str(path))
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        table = parquet.read_table(path)
    except Exception as error:  # pyarrow's own errors share no base with the built-in ones
        raise ValueError(f"{path} is no Parquet file: {str(error).splitlines()[0]}") from None
    return list(table.column_names), table.to_pylist()


def _number(value: Any, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{where}: {value!r:.40} is no number") from None
    if not np.isfinite(number):
        raise ValueError(f"{where}: {value!r:.40} is not finite")
    return number


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
