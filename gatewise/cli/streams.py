"""`gatewise detect` and `gatewise nab`: anomalies of a stream, and the benchmark for them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from gatewise.cli import console
from gatewise.cli.common import JSON, check_outputs, print_json
from gatewise.cli.errors import checked


def detect(
    path: Annotated[Path, typer.Argument(metavar="DATA", help="A CSV or Parquet file.")],
    column: Annotated[str, typer.Option(help="The column of the stream's values.")] = "value",
    time: Annotated[str, typer.Option(help="The column of times, as ISO 8601.")] = "timestamp",
    state: Annotated[
        Path | None,
        typer.Option(help="Go on with the stream kept in this file, if it exists; keep it there."),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a picture (PNG) there.")] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Report scores from here on (default 0.5).")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed (default 0).")] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Find anomalies in a stream by forecasting it, one value after the other, learning on the way.

    Nothing is trained before. A line for each anomaly; with --json an object for every row. With
    --state FILE the rows of the next file follow those of this one, as if both were one file.

    Example: gatewise detect taxi.csv --column value --time timestamp --plot taxi.png
    """
    from gatewise.models.anomaly import ALARM, AnomalyDetector, DetectorConfig
    from gatewise.models.anomaly_file import load_detector, save_detector
    from gatewise.models.anomaly_task import Columns
    from gatewise.models.series_plots import plot_anomalies

    with checked():
        threshold = ALARM if threshold is None else threshold
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold must be between 0 and 1, got {threshold}")
        check_outputs(state, plot)
        times, values = Columns(time, column).read(path)
        if state is not None and state.exists():
            if seed is not None:
                raise ValueError(f"--seed is for a new stream, {state} holds one that has begun")
            detector = load_detector(state)
            if not detector.precedes(times[0]):
                raise ValueError(
                    f"{path} begins at {times[0]}, {state} has seen the stream up to "
                    f"{detector.time}"
                )
        else:
            detector = AnomalyDetector(DetectorConfig(seed=0 if seed is None else seed))
    findings, gone = [], None
    for row, (when, value) in enumerate(zip(times, values, strict=True), 1):
        with checked():
            findings.append(found := detector.step(when, value))
        about = {"row": row, "time": when.isoformat(sep=" "), "value": value, **found._asdict()}
        line = None
        if as_json:
            line = json.dumps(about)
        elif found.score >= threshold:
            line = (
                f"{about['time']}  {value:g}, expected {found.expected:.4g} "
                f"± {found.spread:.2g}, score {found.score:.2f}"
            )
        if line is not None and gone is None:
            try:
                console.write(line + "\n")
            except console.ReaderGone as error:
                if state is None:
                    raise
                gone = error  # the stream goes on where nobody reads: its state is kept
    with checked():
        if plot is not None:
            scores, expected = [f.score for f in findings], [f.expected for f in findings]
            title = f"{path.name}: {column}"
            plot_anomalies(times, values, scores, plot, title, expected=expected)
            console.note(f"wrote {plot}")
        if state is not None:  # last: what failed before can be done again
            save_detector(detector, state)
    if gone is not None:
        raise gone


def nab(
    folder: Annotated[Path, typer.Argument(help="The benchmark's folder: data, labels.")],
    detector: Annotated[
        str, typer.Option(help="recurrent, windowed-gaussian, random or null")
    ] = "recurrent",
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    plot: Annotated[
        Path | None,
        typer.Option(help="Write a picture (PNG) of every series into this folder."),
    ] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Score a detector on the Numenta Anomaly Benchmark, as the benchmark does.

    Example: gatewise nab NAB --detector windowed-gaussian
    """
    import torch

    from gatewise.models import nab as benchmark

    with checked():
        if detector not in benchmark.DETECTORS:
            allowed = ", ".join(benchmark.DETECTORS)
            raise ValueError(f"detector must be one of {allowed}, got {detector!r}")
        if plot is not None and plot.exists() and not plot.is_dir():
            raise NotADirectoryError(f"{plot} is a file, name a folder")
        corpus = benchmark.read_nab(folder)
        torch.set_num_threads(1)  # a step of so small a network is slower with more
        scores = {}
        for series in console.tracked(corpus, "detecting"):
            scores[series.name] = benchmark.DETECTORS[detector](series, seed)
        results = {
            name: asdict(benchmark.score(corpus, scores, profile))
            for name, profile in benchmark.PROFILES.items()
        }
        if plot is not None:
            benchmark.draw(corpus, scores, plot, detector)
            console.note(f"wrote {len(corpus)} pictures into {plot}")
    if as_json:
        print_json({"detector": detector, "seed": seed, "profiles": results})
        return
    for name, r in results.items():
        print(
            f"{name}: {r['score']:.1f} ({r['detected']} of {r['windows']} windows, "
            f"{r['false_alarms']} false alarms, threshold {r['threshold']:.4g})"
        )
