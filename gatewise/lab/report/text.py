"""The report as Markdown: a table per track."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from gatewise.lab.report.rows import Row, by_track, printed
from gatewise.lab.verdict import RULES

_COLUMNS = (
    "experiment",
    "what it asks",
    "solved",
    "rate [95 %]",
    "sequences to success: mean [95 %]; median; range",
    "wrong of test",
    "weights",
    "seconds",
    "published",
    "verdict",
)


def markdown(found: Sequence[Row], environments: Sequence[dict[str, Any]]) -> str:
    """A table per track, the experiments that were not run, the rules, what it was run on."""
    return "\n".join(_lines(found, environments)) + "\n"


def _lines(found: Sequence[Row], environments: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield "# Results of the lab\n"
    for track, rows in by_track(found).items():
        begun = [r for r in rows if r.begun]
        if begun:
            yield f"## {track}\n"
            yield _line(_COLUMNS)
            yield _line(["---"] * len(_COLUMNS))
            yield from (_line(_cells(r)) for r in begun)
            yield ""
    waiting = [r for r in found if not r.begun]
    if waiting:
        yield "## Not run\n"
        yield from (f"- {r.experiment.name}: {r.experiment.asks} `{r.command}`" for r in waiting)
        yield ""
    yield f"## How verdicts are made\n\n{RULES}\n"
    if environments:
        yield "## What it was run on\n"
        yield from (f"- {environment_line(e)}" for e in environments)


def environment_line(e: dict[str, Any]) -> str:
    """One run's machine and versions."""
    names = ("gatewise", "torch", "python", "compiler", "commit")
    versions = ", ".join(f"{n} {e[n]}" for n in names if e.get(n))
    return f"{e['started']}: {e['processor']} ({e['vector']}), {e['cores']} cores; {versions}"


def _cells(row: Row) -> list[str]:
    state = f" ({row.missing})" if row.missing else ""
    return [
        row.experiment.name,
        row.experiment.asks,
        row.solved + state,
        row.rate,
        row.sequences,
        row.tested,
        row.weights,
        row.seconds,
        "; ".join(f"{printed(v.published)} – {v.published.source}" for v in row.verdicts),
        "; ".join(f"{v.published.figure}: {v.word}" for v in row.verdicts),
    ]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(c.replace('|', '∣') for c in cells)} |"
