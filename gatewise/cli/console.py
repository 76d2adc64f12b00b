"""What people see: progress bars, tables, streamed text. Rich on stderr, results on stdout."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from gatewise.benchmark import Report, Row
    from gatewise.diagnostics import Flow
    from gatewise.models.runs import Run

errors = Console(stderr=True, highlight=False)
output = Console(highlight=False)

STOPPED = 130  # exit code after Ctrl-C, as shells have it


def note(text: str) -> None:
    """One line for people, on stderr."""
    errors.print(text, style="dim", markup=False, soft_wrap=True)


def quiet(wanted: bool) -> None:
    """Say nothing, where another process speaks for this one."""
    errors.quiet = output.quiet = wanted


def train(run: Run) -> bool:
    """Train to the end with a progress bar; False where a signal ended it (all is saved)."""
    trainer = run.trainer
    p = trainer.progress
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[loss]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with (
        signals(trainer.stop),
        Progress(*columns, console=errors, disable=not errors.is_terminal) as bar,
    ):
        task = bar.add_task("training", total=p.total, completed=p.step, rate="", loss="")
        told, before = len(trainer.history), (p.items, p.seconds)
        for p in trainer.run():
            if len(trainer.history) > told:
                told = len(trainer.history)
                errors.print(_evaluation_line(run), soft_wrap=True)
            rate = (p.items - before[0]) / max(1e-9, p.seconds - before[1])
            bar.update(
                task,
                completed=p.step,
                total=p.total,
                rate=f"{rate:,.0f} {run.task.items}/s",
                loss=figures({run.task.loss_name: trainer.train_loss}) if p.loss_count else "",
            )
        return p.finished


def _evaluation_line(run: Run) -> str:
    p, last = run.trainer.progress, run.trainer.history[-1]
    mark = "" if p.stale else " (best)"
    loss = run.task.loss_name
    return (
        f"step {p.step:>6} of {p.total}  held-out {figures(held_out(last))}{mark}, "
        f"training {figures({loss: last[f'train_{loss}']})}"
    )


def tracked(items: Sequence[Any], what: str) -> Iterator[Any]:
    """The items one by one, with a progress bar."""
    with Progress(
        TextColumn(what),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=errors,
        disable=not errors.is_terminal,
    ) as bar:
        yield from bar.track(items)


def held_out(entry: dict[str, Any]) -> dict[str, float]:
    """The held-out figures among others."""
    prefix = "held_out_"
    return {n[len(prefix) :]: v for n, v in entry.items() if n.startswith(prefix)}


def figures(scores: dict[str, float]) -> str:
    """Named figures in one line: `0.953 accuracy, 1.234 loss`."""
    return ", ".join(f"{_short(v)} {n.replace('_', ' ')}" for n, v in scores.items())


def _short(value: float) -> str:
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.4f}"


def figures_table(found: Mapping[str, Mapping[str, float]]) -> Table:
    """Named figures of several models: a row for each figure, a column for each model."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("")
    for model in found:
        table.add_column(model, justify="right", no_wrap=True)
    names = dict.fromkeys(name for scores in found.values() for name in scores)
    for name in names:
        cells = [_short(s[name]) if name in s else "" for s in found.values()]
        table.add_row(name.replace("_", " "), *cells)
    return table


def tasks_table(kinds: list[dict[str, Any]]) -> Table:
    """The kinds of models, their options and how they are trained, with the defaults."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("task", no_wrap=True)
    table.add_column("what it is; its options, and those of training (--set NAME=VALUE)")
    for k in kinds:
        options, training = (
            "\n" + ", ".join(f"{n}={v}" for n, v in k[part].items())
            for part in ("options", "training")
        )
        recipes = "".join(f"\n--recipe {n}: {r['source']}" for n, r in k["recipes"].items())
        what = (k["summary"], (options, "cyan"), (training, "dim"), recipes)
        table.add_row(k["name"], Text.assemble(*what))
    return table


@contextmanager
def signals(stop: Any) -> Iterator[list[int]]:
    """While inside, the first SIGINT or SIGTERM calls `stop`; a second SIGINT interrupts."""
    received: list[int] = []

    def handler(number: int, frame: Any) -> None:
        received.append(number)
        stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {s: signal.signal(s, handler) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, old in before.items():
            signal.signal(number, old)


class ReaderGone(Exception):
    """Whoever read our stdout has closed it."""


def write(text: str) -> None:
    """Text to stdout at once, as it is; raises ReaderGone where nobody reads any more."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise ReaderGone from None


def cells_table(cells: list[dict[str, Any]]) -> Table:
    """The registry as a table, the source of a cell under what it is."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("cell", no_wrap=True)
    table.add_column("what it is, its gates and states, its source")
    table.add_column("passes", justify="right")
    for c in cells:
        parts = f"\n{', '.join(c['gates'])} → {', '.join(c['states'])}"
        what = Text.assemble(c["summary"], (parts, "cyan"), ("\n" + c["source"], "dim"))
        table.add_row(c["name"], what, str(c["passes"]))
    return table


def gradients_table(flows: list[Flow], lags: tuple[int, ...]) -> Table:
    """Gradient norms by lag, a row per network and state; the weights' norm, cut by clipping."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("network")
    for title in ("by", *(f"lag {k}" for k in lags), "weights", "wrong"):
        table.add_column(title, justify="right", no_wrap=True)
    for f in flows:
        clipped = f" → {f.clipped_norm:g}" if f.clipped_norm < f.weight_norm else ""
        last = [f"{f.weight_norm:.0e}{clipped}", "" if f.wrong is None else f"{f.wrong:.0%}"]
        curves = dict(f.states)
        if f.stage == "edges cut" and f.forgotten:
            curves["∏ f"] = f.forgotten
        for k, (state, norms) in enumerate(curves.items()):
            row = [f"{norms[lag - 1]:.0e}" for lag in lags]
            table.add_row("" if k else f.label, state, *row, *([] if k else last))
    return table


def measuring(rows: Iterator[Row], total: int) -> list[Row]:
    """All rows, with a progress bar that names what was measured last."""
    columns = (TextColumn("measuring"), BarColumn(bar_width=24), TaskProgressColumn())
    found: list[Row] = []
    with Progress(
        *columns, TextColumn("{task.description}"), console=errors, disable=not errors.is_terminal
    ) as bar:
        task = bar.add_task("", total=total)
        for row in rows:
            found.append(row)
            case = row.case
            bar.update(task, advance=1, description=f"{case.suite} {case.cell} {case.shape}")
    for reason in dict.fromkeys(r.skipped for r in found if r.skipped):
        note(f"skipped: {reason}")
    return found


def _bench_tables(report: Report) -> Iterator[Table]:
    """A table per suite: both sides, ratio with quartiles, target, and whether it was reached."""
    suites = dict.fromkeys(r.case.suite for r in report.rows)
    for suite in suites:
        rows = [r for r in report.rows if r.case.suite == suite]
        streamed, rounded = any(r.bytes for r in rows), any(r.case.held != "full" for r in rows)
        table = Table(box=None, header_style="bold", pad_edge=False, title_justify="left")
        table.title = suite
        for title in ("cell", "work", "T, B, I, H", "peer"):
            table.add_column(title, no_wrap=True)
        extra = ["KB/step", "GB/s"] * streamed + ["RMS", "largest"] * rounded
        for title in ("ours", "peer", "ratio [quartiles]", "target", "", "sgemm", *extra):
            table.add_column(title, justify="right", no_wrap=True)
        for row in rows:
            table.add_row(*_bench_cells(row, streamed, rounded))
        yield table


def _bench_cells(row: Row, streamed: bool, rounded: bool) -> list[str | Text]:
    case = row.case
    cells: list[str | Text] = [case.cell, case.title, str(case.shape), case.peer]
    if row.measured is None:
        return [*cells, "", "", row.error or row.skipped]
    ratio, share = row.measured.ratio, row.sgemm_share
    unit = "µs" if row.unit == "us" else row.unit
    cells += [
        f"{row.shown(row.measured.ours.median):.3g} {unit}",
        f"{row.shown(row.measured.peer.median):.3g} {unit}",
        f"{ratio.median:.2f} [{ratio.q1:.2f}, {ratio.q3:.2f}]",
        "" if case.target is None else f"{case.target:g}",
        {None: "", True: Text("✓", "green"), False: Text("✗", "red")}[row.reached],
        "" if share is None else f"{share:.0%}",
    ]
    if streamed:
        cells += [f"{(row.bytes or 0) / 1e3:.0f}", f"{row.gigabytes_per_second or 0:.1f}"]
    if rounded and (apart := row.measured.deviation):
        cells += [f"{apart.rms:.2%}", f"{apart.largest:.1%}"]
    return cells


def _bench_header(report: Report) -> Iterator[str]:
    """What the figures depend on."""
    h = report.header
    yield (
        f"{h['processor']} ({h['vector']}), {h['threads']} of {h['cores']} cores, "
        f"sgemm {h['sgemm_gflops']:.0f} GFLOP/s, load {h['load']}"
    )
    names = ("gatewise", "torch", "python", "onnxruntime", "jax", "torchrecurrent")
    versions = ", ".join(f"{n} {h[n]}" for n in names if n in h)
    yield f"{h['date']}, {h['dtype']}; {versions}; {h['compiler']}"


def show_bench(report: Report) -> None:
    """The header and a table per suite, on stdout."""
    for line in _bench_header(report):
        output.print(line, soft_wrap=True)
    # Cut to a narrow screen, a table's ratios could not be read: it is as wide as it must be.
    wide = Console(highlight=False, width=max(output.width, 150))
    for table in _bench_tables(report):
        wide.print()
        wide.print(table)
    for fitted in report.growth():
        wide.print(f"{fitted}")
