"""`gatewise lab distances`: how far back values are recalled, of the trials that were run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from gatewise.cli import console
from gatewise.cli.common import JSON, check_outputs, print_json
from gatewise.cli.errors import checked


def distances(
    plot: Annotated[Path | None, typer.Option(help="Write a picture (PNG) there.")] = None,
    limit: Annotated[
        int | None,
        typer.Option(help="Where `lab run` was given another than the experiments' own."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The file of results (SQLite).")] = Path("lab.sqlite"),
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Show how often a value is recalled, by the steps since it stood: run `recall-distance` first.

    Example: gatewise lab run recall-distance && gatewise lab distances --plot recall.png
    """
    from gatewise import lab
    from gatewise.lab import recall

    with checked():
        check_outputs(plot)
        with lab.Store(out, create=False) as store:
            wanted = [e if limit is None else replace(e, limit=limit) for e in recall.EXPERIMENTS]
            found = {
                e.settings: [t.outcome for k in store.keys(e) for t in store.trials(k)]
                for e in wanted
            }
        found = {settings: outcomes for settings, outcomes in found.items() if outcomes}
        if plot is not None:
            recall.plot(found, plot)
    shares = {s.name: recall.by_distance(outcomes) for s, outcomes in found.items()}
    if as_json:
        print_json(shares)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("steps", *shares):
        table.add_column(title, justify="right")
    weights = [f"{outcomes[0].numbers['weights']:,.0f}" for outcomes in found.values()]
    table.add_row("weights", *weights)
    for d in sorted({d for by in shares.values() for d in by}):
        table.add_row(str(d), *(f"{by[d]:.1%}" if d in by else "" for by in shares.values()))
    console.output.print(table)
