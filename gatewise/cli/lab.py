"""`gatewise lab`: list, run and report experiments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.table import Table

from gatewise.cli import console, recall
from gatewise.cli.common import CELL_HELP, JSON, cell_named, check_outputs, print_json
from gatewise.cli.errors import checked

app = typer.Typer(
    help="Re-run the experiments of the 1997 paper and the claims about them.",
    no_args_is_help=True,
)

_OUT = typer.Option(help="The file of results (SQLite); it is added to, never replaced.")
_CELL = typer.Option(help=f"Another cell in place of the experiment's. {CELL_HELP}")

app.command()(recall.distances)


@app.command("list")
def listing(
    tag: Annotated[str | None, typer.Option(help="Only those with this tag or track.")] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """List the experiments.

    Example: gatewise lab list --tag claims
    """
    from gatewise import lab

    with checked():
        chosen = list(lab.EXPERIMENTS.values()) if tag is None else lab.select([tag])
    if as_json:
        print_json([_described(e) for e in chosen])
        return
    table = _table("name", "track", "trials", "what it asks")
    for e in chosen:
        table.add_row(e.name, e.track, str(e.trials), e.asks)
    console.output.print(table)


def _described(e: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        **json.loads(e.stamp),
        "asks": e.asks,
        "trials": e.trials,
        "criterion": e.criterion,
        "budget": e.budget,
        "published": [asdict(p) for p in e.published],
        "tags": list(e.tags),
        "key": e.key,
    }


@app.command("run")
def running(
    names: Annotated[
        list[str], typer.Argument(help="Names or tags of `gatewise lab list`, or FILE.py:NAME.")
    ],
    trials: Annotated[
        int | None, typer.Option(help="Trials of each (default: as many as it has).")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of all trials.")] = 0,
    jobs: Annotated[int | None, typer.Option(help="Processes (default: one per core).")] = None,
    engine: Annotated[str, typer.Option(help="local, or ray for a cluster.")] = "local",
    budget: Annotated[
        float | None, typer.Option(help="Minutes; what is unfinished then can be continued.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Most training sequences of a trial (default: its own).")
    ] = None,
    cell: Annotated[str | None, _CELL] = None,
    out: Annotated[Path, _OUT] = Path("lab.sqlite"),
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Run experiments; what is finished is not run again, what is unfinished continues.

    Example: gatewise lab run bptt/adding-100 --trials 2 --budget 5
    """
    from gatewise import lab

    with checked():
        chosen = lab.select(names)
        if cell is not None:
            cell_named(cell)
            chosen = [e.with_cell(cell) for e in chosen]
            for e in chosen:
                lab.check(e)
        options = lab.Options(trials, seed, jobs, engine, budget, limit)
        store = lab.Store(out)
    with store:
        started = lab.Run(chosen, store, options)
        stopped = _watch(started)
        standings = list(started.standings.values())
    if as_json:
        print_json([_standing(s) for s in standings])
    else:
        console.output.print(_progress(started))
    for s in standings:
        if s.error:
            console.note(f"{s.experiment.name}: {s.error}")
    if stopped:
        console.note("stopped; the same command goes on from here")
        raise typer.Exit(console.STOPPED)
    if any(s.error for s in standings):
        raise typer.Exit(1)


@app.command()
def report(
    results: Annotated[
        list[Path] | None, typer.Argument(help="Files of results, read as one (lab.sqlite).")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write one self-contained page there.")] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(help="Write the tables there, and pictures into a folder of that name."),
    ] = None,
    tag: Annotated[str | None, typer.Option(help="Only those with this tag or track.")] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Report what was run, beside what was published; without --html or --markdown, as a table.

    Example: gatewise lab report monday.sqlite tuesday.sqlite --html lab.html
    """
    from gatewise import lab
    from gatewise.lab import report as reports

    with checked():
        check_outputs(html, markdown)
        chosen = list(lab.EXPERIMENTS.values()) if tag is None else lab.select([tag])
        with lab.Results(results or [Path("lab.sqlite")]) as read:
            found = reports.rows(read, chosen, others=tag is None)
        notes = [
            f"{r.name}: {n} trials ended otherwise in {file}; shown are those of today's settings, "
            "else of the first file"
            for r in found
            for (key, file), n in read.differing.items()
            if key == r.key
        ]
        if read.repeated:
            notes.append(f"{read.repeated:,} trials were run more than once and ended alike.")
    for note in notes:
        console.note(note)
    flows = _flows() if html or markdown else []
    if markdown is not None:
        folder = markdown.with_suffix("")
        with console.errors.status("drawing"):
            pictures = reports.pictures(found, flows, folder.name)
        folder.mkdir(exist_ok=True)
        for address, (_, content) in pictures.items():
            _write(markdown.parent / address, content)
        _write(markdown, reports.markdown(found, pictures, notes).encode())
    if html is not None:
        with console.errors.status(f"drawing {sum(r.begun for r in found)} experiments"):
            page = reports.html(found, flows, notes)
        _write(html, page.encode())
    if as_json:
        print_json([_reported(r) for r in found if r.begun])
    elif html is None and markdown is None:
        console.output.print(_results(found))


def _write(path: Path, content: bytes) -> None:
    from gatewise.models.checkpoint import write_atomically

    write_atomically(path, content)
    console.note(f"wrote {path}")


def _flows() -> list[Any]:
    from gatewise.diagnostics import study

    with console.errors.status("measuring gradients"):
        return list(study(["rnn", "lstm-1997", "lstm"], 100, 32, 0, 0))


def _reported(row: Any) -> dict[str, Any]:
    from dataclasses import asdict

    s = row.summary
    return {
        "name": row.experiment.name,
        "trials": len(s.trials),
        "wanted": s.wanted,
        "successes": s.successes,
        "rate": None if s.rate is None else s.rate._asdict(),
        "sequences": s.sequences,
        **asdict(s.spent),
        "verdicts": [
            {
                "published": asdict(v.published),
                "ours": None if v.ours is None else v.ours._asdict(),
                "verdict": v.word,
            }
            for v in row.verdicts
        ],
        "outcomes": [{"seed": t.seed, **asdict(t.outcome)} for t in s.trials],
    }


def _results(found: list[Any]) -> Table:
    from gatewise.lab.report.rows import brief

    table = _table("experiment", "solved", "rate [95 %]", "sequences", "published")
    for r in (r for r in found if r.begun):
        table.add_row(
            r.experiment.name,
            r.solved + (f" ({r.missing})" if r.missing else ""),
            r.rate,
            r.sequences,
            "; ".join(map(brief, r.verdicts)),
        )
    waiting = sum(not r.begun for r in found)
    table.caption = f"{waiting} not run" if waiting else None
    return table


def _standing(s: Any) -> dict[str, Any]:
    return {
        "name": s.experiment.name,
        "key": s.experiment.key,
        "wanted": s.wanted,
        "ended": len(s.ended),
        "successes": s.successes,
        "error": s.error,
    }


def _watch(started: Any) -> bool:
    """Run to the end under a live table; True where a signal ended it."""
    with (
        console.signals(started.stop) as signalled,
        Live(console=console.errors, transient=True, refresh_per_second=2) as live,
    ):
        for _ in started:
            if console.errors.is_terminal:
                live.update(_progress(started))
    return bool(signalled)


def _progress(started: Any) -> Table:
    table = _table("experiment", "trials", "solved", "left at most", "now")
    for s in started.standings.values():
        left = "" if not (s.waiting or s.flying) else _duration(s.left)
        table.add_row(
            s.experiment.name,
            f"{len(s.ended)} of {s.wanted}",
            str(s.successes),
            left,
            "failed" if s.error else s.note,
        )
    if any(s.waiting or s.flying for s in started.standings.values()):
        table.caption = f"all: {_duration(started.left)} left at most, on {started.workers} cores"
    return table


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "…"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, caption_justify="left")
    for k, title in enumerate(columns):
        table.add_column(title, no_wrap=k == 0)
    return table
