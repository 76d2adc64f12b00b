"""`gatewise drift`: language models that read their own output."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from gatewise.cli import console
from gatewise.cli.common import JSON, check_outputs, print_json
from gatewise.cli.errors import checked

if TYPE_CHECKING:
    from gatewise.models.drift import Drift


def drift(
    directory: Annotated[Path, typer.Argument(help="Folder of `gatewise train --out`.")],
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A text it has not seen.")],
    judge: Annotated[Path, typer.Option(help="Folder of another model of the same tokens.")],
    beside: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of a further model to measure, trained in another way, say."),
    ] = None,
    length: Annotated[int, typer.Option(help="Tokens it continues each piece by.")] = 1000,
    rows: Annotated[int, typer.Option(help="Pieces of the text.")] = 16,
    temperature: Annotated[float, typer.Option(help="Below 1: more likely text.")] = 1.0,
    greedy: Annotated[bool, typer.Option("--greedy", help="Always the likeliest token.")] = False,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    plot: Annotated[Path | None, typer.Option(help="Write a picture (PNG) there.")] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Measure language models that read their own output, beside the same models on real text.

    Example: gatewise drift book another.txt --judge book2 --beside sampled --plot drift.png
    """
    from gatewise.models import Sampling, load_language_model
    from gatewise.models.drift import measure_drift
    from gatewise.models.formats import read_whole
    from gatewise.models.plots import plot_drift

    with checked():
        check_outputs(plot)
        how = Sampling(temperature, greedy=greedy)
        other, vocabulary, _ = load_language_model(judge)
        models = {}
        for folder in (directory, *(beside or [])):
            if folder.resolve().name in models:
                raise ValueError(f"beside {folder}: two folders are called {folder.resolve().name}")
            model, known, _ = load_language_model(folder)
            if known != vocabulary:
                raise ValueError(f"judge {judge} has another vocabulary than {folder}")
            models[folder.resolve().name] = model
        tokens = vocabulary.encode(read_whole(data))
        found = {
            name: measure_drift(model, other, tokens, length, rows, how, seed, forbidden=(0,))
            for name, model in models.items()
        }
        if plot is not None:
            plot_drift(found, plot, f"Continuing {data.name}, judged by {judge.resolve().name}")
    if as_json:
        print_json({name: drift.to_json() for name, drift in found.items()})
    else:
        console.output.print(_table(found))


def _table(drifts: dict[str, Drift]) -> Table:
    """Each window's figures on a model's own output, and on real text in brackets."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("model")
    table.add_column("tokens", justify="right")
    names = ("perplexity", "repetition", "state_norm")
    for name in names:
        for title in (name.replace("_", " "), "(text)"):
            table.add_column(title, justify="right", no_wrap=True)
    for model, drift in drifts.items():
        sides = (drift.own, drift.text)
        for k, step in enumerate(drift.steps):
            cells = [f"{getattr(c, name)[k]:.3g}" for name in names for c in sides]
            table.add_row("" if k else model, str(step), *cells)
    return table
