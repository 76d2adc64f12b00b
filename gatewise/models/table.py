"""Tables from files: CSV by its header, Parquet where pyarrow is installed; numbers and times.

N = rows, S = columns.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gatewise.models.extras import require

_PARQUET = (".parquet", ".pq")
TABLES = (".csv", *_PARQUET)  # ends of names
_BACK = 100  # one row of so many, at most, may be before the one above it: clocks are put back


@dataclass(frozen=True)
class Table:
    """Numeric columns of a file, in the order of its rows."""

    names: tuple[str, ...]
    values: NDArray[np.float64]  # [N, S]


def read_table(path: str | Path, columns: Sequence[str] | None = None) -> Table:
    """Columns of numbers; without names those where more than half of the rows hold one.

    Raises ValueError naming the file, the row and the column of what is no finite number, a column
    that is not there, or a file without rows; OSError where it cannot be read.

    >>> # read_table("prices.csv", ["open", "close"]).values.shape
    """
    return _numbers(path, *_read(Path(path)), columns)


def _numbers(
    path: str | Path,
    names: list[str],
    rows: list[dict[str, Any]],
    columns: Sequence[str] | None = None,
) -> Table:
    wanted = list(columns) if columns else [n for n in names if _mostly_numbers(rows, n)]
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
    return _times(path, *_read(Path(path)), column)


def _times(
    path: str | Path, names: list[str], rows: list[dict[str, Any]], column: str
) -> list[datetime]:
    if column not in names:
        raise ValueError(f"column {column!r} is not in {path}: it has {', '.join(names)}")
    times = []
    for n, row in enumerate(rows):
        value = row[column]
        try:
            times.append(_time(value))
        except (TypeError, ValueError):
            raise ValueError(f"{path}, row {n + 1}: {column!r} is no time: {value!r:.40}") from None
    return times


def _time(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):  # a column of days
        return datetime.combine(value, datetime.min.time())
    # Python 3.10 knows no Z.
    return datetime.fromisoformat(value[:-1] + "+00:00" if value[-1:] in ("Z", "z") else value)


def read_series(path: str | Path, time: str, value: str) -> tuple[list[datetime], list[float]]:
    """A column of times in the order of the rows, and one of numbers.

    A clock that is put back once in a while is allowed. Raises as `read_times` and `read_table`,
    and ValueError where the rows are in another order than their times.
    """
    names, rows = _read(Path(path))
    times = _times(path, names, rows, time)
    order = [moment(t) for t in times]
    back = [row for row, (before, now) in enumerate(pairwise(order), 2) if now < before]
    if order[-1] < order[0] or _BACK * len(back) > len(times):
        raise ValueError(
            f"{path}, row {back[0]}: {times[back[0] - 1]} is before {times[back[0] - 2]}, and so "
            f"in {len(back)} of {len(times)} rows: sort them by {time!r}"
        )
    return times, _numbers(path, names, rows, [value]).values[:, 0].tolist()


def moment(time: datetime) -> datetime:
    """The time with a zone, so that any two can be compared; without one it counts as UTC."""
    return time if time.tzinfo is not None else time.replace(tzinfo=timezone.utc)


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """All rows of a CSV or Parquet file, each a dict by column."""
    return _read(Path(path))[1]


def column_names(path: Path) -> list[str]:
    """The names of a CSV or Parquet file's columns; raises as `read_table`."""
    if path.suffix.lower() in _PARQUET:
        return _parquet(path)[0]
    with _opened(path) as (_, names):
        return names


def _read(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    names, rows = _parquet(path) if path.suffix.lower() in _PARQUET else _csv(path)
    if not rows:
        raise ValueError(f"{path} has no rows")
    return names, rows


def _csv(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    rows = []
    with _opened(path) as (reader, names):
        for row in _lines(reader, path):
            if len(row) != len(names):
                raise ValueError(
                    f"{path}, line {reader.line_num}: {len(row)} fields, expected {len(names)}"
                )
            rows.append(dict(zip(names, row, strict=True)))
    return names, rows


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, list[str]]]:
    """A CSV file's reader, behind the line of names, and the names."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            names = next(_lines(reader, path), [])
            if not names or len(set(names)) < len(names):
                raise ValueError(f"{path} must begin with a line of different column names")
            yield reader, names
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text") from None


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


def _mostly_numbers(rows: list[dict[str, Any]], name: str) -> bool:
    return 2 * sum(_is_number(row[name]) for row in rows) > len(rows)


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
