"""A run of cases: rows as they are measured, the whole as JSON, kept by date and suite."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gatewise.benchmark.case import Case, Contest, PeerMissingError
from gatewise.benchmark.growth import Growth, growth
from gatewise.benchmark.machine import busy, environment, load, sgemm_rate
from gatewise.benchmark.peers import prepare
from gatewise.benchmark.runner import Budget, DifferentResultsError, Measurement, measure, threads
from gatewise.models.checkpoint import write_atomically

# Figures of time are taken in seconds and shown in the unit of the contest.
_PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9, "MB": 1.0}


@dataclass(frozen=True)
class Row:
    """What came of one case: a measurement, or why there is none."""

    case: Case
    threads: int
    unit: str = ""
    executor: str = ""
    measured: Measurement | None = None
    sgemm_share: float | None = None  # of the rate measured in the same run
    gigabytes_per_second: float | None = None  # of weights read
    bytes: float | None = None  # of weights read per unit
    skipped: str = ""  # the peer is not installed
    error: str = ""  # the sides computed different things

    @property
    def ratio(self) -> float | None:
        """The median of peer / ours: above 1, ours is the better."""
        return None if self.measured is None else self.measured.ratio.median

    @property
    def reached(self) -> bool | None:
        """Did the ratio reach the target? None without a target or a measurement."""
        if self.ratio is None or self.case.target is None:
            return None
        return self.ratio >= self.case.target

    def shown(self, seconds: float) -> float:
        """A figure in the row's unit."""
        return seconds * _PER_SECOND[self.unit]

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "suite": self.case.suite,
            "cell": self.case.cell,
            "work": self.case.work,
            "against": self.case.peer,
            **self.case.shape._asdict(),
            "networks": self.case.networks,
            "weights": self.case.held,
            "threads": self.threads,
            "target": self.case.target,
            "reached": self.reached,
        }
        if self.measured is None:
            return found | {"skipped": self.skipped, "error": self.error}
        for side in ("ours", "peer"):
            spread = asdict(getattr(self.measured, side))
            found[side] = {n: self.shown(v) for n, v in spread.items()}
        return found | {
            "unit": self.unit,
            "ratio": asdict(self.measured.ratio),
            "pairs": self.measured.pairs,
            "deviation": self.measured.deviation and asdict(self.measured.deviation),
            "executor": self.executor,
            "sgemm_share": self.sgemm_share,
            "weight_bytes": self.bytes,
            "gigabytes_per_second": self.gigabytes_per_second,
        }


@dataclass
class Report:
    """A run: the header, then one row per case."""

    header: dict[str, Any]
    rows: list[Row]

    @property
    def warning(self) -> str | None:
        """A sentence where the machine was busy at the start."""
        return busy(self.header)

    @property
    def failed(self) -> list[Row]:
        """Rows whose two sides computed different things."""
        return [r for r in self.rows if r.error]

    def growth(self) -> list[Growth]:
        """How cost grows, where rows tell."""
        return growth(self.rows)

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {"header": self.header, "rows": [r.to_json() for r in self.rows]}
        fitted = [asdict(g) for g in self.growth()]
        return found | ({"growth": fitted} if fitted else {})

    def write(self, path: str | Path) -> None:
        """The whole as JSON, written at once."""
        write_atomically(Path(path), (json.dumps(self.to_json(), indent=1) + "\n").encode())


class Runner:
    """Runs cases one after another; the rates of the machine are measured on the way.

    Args:
        budget: how long a row may take.
        count: threads of every case that does not say otherwise; None: as torch is set.
    """

    def __init__(self, budget: Budget, count: int | None = None) -> None:
        self.budget, self.count = budget, count
        self._rates: dict[int, float] = {}
        with threads(count) as now:
            self.header = environment(now)
            self.header["sgemm_gflops"] = round(self._rate(now) / 1e9, 1)

    def _rate(self, count: int) -> float:
        if count not in self._rates:
            self._rates[count] = sgemm_rate()
        return self._rates[count]

    def run(self, cases: Sequence[Case]) -> Iterator[Row]:
        """A row per case, as soon as it is measured."""
        for case in cases:
            yield self._row(case)

    def report(self, rows: list[Row]) -> Report:
        """The rows under the header, and the load at the end."""
        return Report(self.header | {"load_at_end": load()}, rows)

    def _row(self, case: Case) -> Row:
        with threads(self.count if case.threads is None else case.threads) as now:
            rate = self._rate(now)
            try:
                contest = prepare(case)
                measured = measure(contest, self.budget, looseness=case.looseness)
            except PeerMissingError as error:
                return Row(case, now, skipped=str(error))
            except DifferentResultsError as error:
                return Row(case, now, error=str(error))
        return _row(case, now, contest, measured, rate)


def _row(case: Case, count: int, contest: Contest, measured: Measurement, rate: float) -> Row:
    seconds = measured.ours.median
    return Row(
        case,
        count,
        contest.unit,
        contest.executor,
        measured,
        contest.flops / seconds / rate if contest.flops else None,
        contest.bytes / seconds / 1e9 if contest.bytes else None,
        contest.bytes or None,
    )


def kept_files(folder: Path, header: dict[str, Any], suites: Sequence[str]) -> dict[str, Path]:
    """Where a suite's result of that day is kept: DATE-SUITE.json beside DATE-SUITE.png.

    Raises ValueError where a file is there already: results are not replaced.
    """
    found = {suite: folder / f"{header['date']}-{suite}.json" for suite in suites}
    for path in found.values():
        if path.exists():
            raise ValueError(f"{path} is there already; results are kept, not replaced")
    return found
