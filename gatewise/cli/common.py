"""What several commands share: options, the cell of a name, the number of threads."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import typer

from gatewise.cli.errors import BadInput

JSON = typer.Option("--json", help="Print the result as JSON on stdout.")
CELL_HELP = "A name of `gatewise cells`, or FILE.py:CLASS."


def print_json(found: Any) -> None:
    """JSON as every reader takes it: numbers that are none become null."""
    print(json.dumps(_finite(found), allow_nan=False))


def _finite(found: Any) -> Any:
    if isinstance(found, dict):
        return {k: _finite(v) for k, v in found.items()}
    if isinstance(found, list | tuple):
        return [_finite(v) for v in found]
    return None if isinstance(found, float) and not math.isfinite(found) else found


def check_outputs(*paths: Path | None) -> None:
    """Before long work: files can be written there, where any are named. Raises OSError."""
    for path in paths:
        if path is None:
            continue
        if not path.absolute().parent.is_dir():
            raise FileNotFoundError(f"no folder {path.absolute().parent}")
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder, name a file")


def set_threads(threads: int | None, out: Path | None = None) -> None:
    """As many as asked for; a resumed run takes as many as it had, so its numbers repeat."""
    import torch

    if threads is None and out is not None:
        from gatewise.models import load_checkpoint

        threads = load_checkpoint(out).record.get("threads")
    if threads is None:
        return
    if not isinstance(threads, int) or not 1 <= threads <= 1024:
        raise ValueError(f"threads must be between 1 and 1024, got {threads!r}")
    torch.set_num_threads(threads)


def cell_named(name: str | None) -> Any:
    """The cell of that name; whatever goes wrong in a user's file is one line."""
    if name is None:
        return None
    from gatewise.cells import get_cell
    from gatewise.equations import trace

    try:
        cell = get_cell(name)
        trace(cell)
        return cell
    except (ValueError, OSError) as error:
        raise BadInput(str(error)) from error
    except Exception as error:
        raise BadInput(f"{name} cannot be loaded: {type(error).__name__}: {error}") from error
