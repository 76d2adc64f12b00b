"""What `gatewise bench` does: check every argument, measure, show, write."""

from __future__ import annotations

import json
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
    report = runner.report(console.measuring(runner.run(cases), len(cases)))
    if json_file == Path("-"):
        print(json.dumps(report.to_json()))
    else:
        console.show_bench(report)
        if json_file is not None:
            report.write(json_file)
    if plot is not None:
        benchmark.plot(report, plot)
    for name, file in files.items():
        part = benchmark.Report(report.header, [r for r in report.rows if r.case.suite == name])
        part.write(file)
        benchmark.plot(part, file.with_suffix(".png"))
    return report
