"""What `gatewise bench` does: check every argument, measure, show, write."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from gatewise import benchmark
from gatewise.cli import console


def run(
    suite: str, quick: bool, json_file: Path | None, plot: Path | None, keep: Path | None
) -> benchmark.Report:
    """Measure the suites and hand the report to the screen and to files.

    Raises ValueError, before anything is measured, for what cannot be run or written.
    """
    cases = benchmark.select(suite, quick)
    for file in (json_file, plot):
        if file is not None and not file.absolute().parent.is_dir():
            raise ValueError(f"no folder {file.absolute().parent}")
    runner = benchmark.Runner(benchmark.QUICK if quick else benchmark.FULL)
    warning = runner.report([]).warning
    files: dict[str, Path] = {}
    if keep is not None:
        if quick or warning:
            raise ValueError(f"results are not kept: {'a quick run' if quick else warning}")
        if not keep.is_dir():
            raise ValueError(f"no folder {keep}")
        files = benchmark.kept_files(keep, runner.header, [c.suite for c in cases])
    if warning:
        console.note(f"warning: {warning}; these figures show little")
    rows = _kept_as_they_end(runner, cases, files)
    report = runner.report(console.measuring(rows, len(cases)))
    if json_file == Path("-"):
        print(json.dumps(report.to_json()))
    else:
        console.show_bench(report)
        if json_file is not None:
            report.write(json_file)
    if plot is not None:
        benchmark.plot(report, plot)
    return report


def _kept_as_they_end(
    runner: benchmark.Runner, cases: list[benchmark.Case], files: dict[str, Path]
) -> Iterator[benchmark.Row]:
    """Measure; a suite's file is written when its last row is there, whatever comes later."""
    for name, group in groupby(cases, key=lambda case: case.suite):
        rows = []
        for row in runner.run(list(group)):
            rows.append(row)
            yield row
        if name in files:
            part = runner.report(rows)
            part.write(files[name])
            benchmark.plot(part, files[name].with_suffix(".png"))
