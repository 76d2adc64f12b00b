"""`gatewise neural-cache`: a trained model with a cache of what it has just read."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from gatewise.cli import console
from gatewise.cli.common import CELL_HELP, JSON, cell_named, print_json
from gatewise.cli.errors import checked


def neural_cache(
    directory: Annotated[Path, typer.Argument(help="Folder of `gatewise train --out`.")],
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A text it has not seen.")],
    tune: Annotated[Path, typer.Option(help="Another such text, to choose the cache on.")],
    window: Annotated[
        int | None, typer.Option(help="Tokens that the cache keeps (default 2,000).")
    ] = None,
    cell: Annotated[str | None, typer.Option("--cell", help=CELL_HELP)] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Predict a text with a model and a cache: words that stood there come again more likely.

    Nothing is trained. How much of the probability the cache gets, and how alike two states must
    be, are chosen on the text --tune.

    Example: gatewise neural-cache book another.txt --tune third.txt
    """
    from gatewise.models import load
    from gatewise.models import neural_cache as parts
    from gatewise.models.formats import read_whole
    from gatewise.models.text_task import TextPredictor

    with checked():
        if data.resolve() == tune.resolve():
            raise ValueError(f"tune {tune} must be another text than the one that is measured")
        saved = load(directory, "best", cell_named(cell))
        if not isinstance(saved.predictor, TextPredictor):
            raise ValueError(f"{directory} holds a model for {saved.kind}, which reads no text")
        model, vocabulary = saved.predictor.model, saved.predictor.vocabulary
        held, other = vocabulary.measure(read_whole(data)), vocabulary.encode(read_whole(tune))
        length = parts.WINDOW if window is None else window
        cache = parts.choose(model, other, length, console.tracked)
        found = parts.score(model, held, cache, console.tracked)
    if as_json:
        print_json(asdict(found))
        return
    print(f"without a cache: {found.without:.4g} perplexity")
    print(
        f"with a cache of {cache.window:,} tokens: {found.perplexity:.4g} perplexity, "
        f"{found.bits_per_character:.4f} bits per character "
        f"(share {cache.share:g}, sharpness {cache.sharpness:g}, chosen on {tune.name})"
    )
