"""`gatewise train --seeds` and `--folds`: one training after the other, then their table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatewise.cli import console
from gatewise.cli.errors import checked

if TYPE_CHECKING:
    from gatewise.models.repeats import Repeats


def train_all(out: Path, repeats: Repeats, cell: Any, executor: str, as_json: bool) -> None:
    """Train every part that has no result yet, then print all results, their mean and spread."""
    from gatewise.cli.training import complete
    from gatewise.models.evaluation import read_figures
    from gatewise.models.repeats import spread

    figures: dict[str, dict[str, float]] = {}
    for number, part in enumerate(repeats.parts, 1):
        with checked():
            found = read_figures(out / part)
        if found is None:
            console.note(f"{part} ({number} of {len(repeats.parts)})")
            with checked():
                run = repeats.run(out, part, cell, executor)
                repeats.save(out)  # not before one could begin
            complete(run, out, cell, executor)
            found = read_figures(out / part) or {}
        figures[part] = found[part]
    summary = spread(figures)
    if as_json:
        told = {n: {"mean": m, "sd": s} for n, (m, s) in summary.items()}
        print(json.dumps({"out": str(out), "parts": figures, "summary": told}))
        return
    columns = {"mean": {n: m for n, (m, _) in summary.items()}}
    columns["± sd"] = {n: s for n, (_, s) in summary.items()}
    console.output.print(console.figures_table(figures | columns))
