"""The report as Markdown: what was found, then a table per part; pictures are files beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from gatewise.diagnostics import Flow
from gatewise.lab.report import figures
from gatewise.lab.report.chapters import Chapter, Matrix, chapters, machines, whole
from gatewise.lab.report.opening import caption, clearest
from gatewise.lab.report.pictures import png
from gatewise.lab.report.rows import SIGNS, Row, brief
from gatewise.lab.report.words import time
from gatewise.lab.verdict import RULES

_COLUMNS = (
    "experiment",
    "what it asks",
    "solved",
    "rate [95 %]",
    "sequences to success: mean [95 %]; median; range",
    "wrong of test",
    "weights",
    "time",
    "published",
)
_COUNTS = ("part", "experiments", "complete", *SIGNS, "time")

_REPEAT = """
A part is repeated by the command in its head, an experiment by `gatewise lab run NAME`; results are
added to `lab.sqlite`, or to the file that `--out` names. The same seeds give the same numbers. This
text and the page beside it are made from one or several such files:

    gatewise lab report lab.sqlite --html lab.html --markdown lab.md"""


def markdown(
    found: Sequence[Row], pictures: Mapping[str, tuple[str, bytes]], notes: Sequence[str] = ()
) -> str:
    """The text.

    Args:
        found: from `rows`.
        pictures: address -> caption and content, from `pictures`.
        notes: what a reader must know of the results besides.
    """
    return "\n".join(_lines(found, pictures, notes)) + "\n"


def pictures(
    found: Sequence[Row], flows: Sequence[Flow], folder: str
) -> dict[str, tuple[str, bytes]]:
    """Address in `folder` -> caption and PNG, of those that the text shows."""
    shown = chapters(found)
    drawn = {}
    if rows := [r for c in shown[:1] for r in c.begun]:
        seen = f"{shown[0].part.title}: sequences to success, all trials"
        drawn["overview"] = seen, figures.overview(rows)
    if flows:
        seen = "How far an error reaches back: norm of the gradient by earlier states"
        drawn["gradients"] = seen, figures.gradients(flows)
    row = clearest(c.begun for c in shown)
    if row and row.activity:
        seen = f"A network that solved {row.name}, over one fresh sequence. "
        drawn["gates"] = seen + caption(row.activity), figures.activity(row.activity)
        learnt = figures.curves(row.summary.trials)
        if learnt:
            drawn["curves"] = f"Learning curves of all trials of {row.name}", learnt
    return {f"{folder}/{n}.png": (seen, png(f)) for n, (seen, f) in drawn.items()}


def _lines(
    found: Sequence[Row], pictures: Mapping[str, tuple[str, bytes]], notes: Sequence[str]
) -> Iterator[str]:
    shown = chapters(found)
    yield "# Results of the lab\n"
    signs = ", ".join(f"{sign} {word}" for word, sign in SIGNS.items())
    yield f"{whole(found)}. Verdicts, by the rules below: {signs}.\n"
    yield from (f"> {note}\n" for note in notes)
    yield "## What was found\n"
    for c in (c for c in shown if c.begun):
        yield f"**{c.part.title}** ({c.state})\n"
        yield from (f"- {sentence}" for sentence in c.findings())
        yield ""
    if waiting := [c.part.title for c in shown if not c.begun]:
        yield f"Not run yet: {'; '.join(waiting)}.\n"
    yield from _table(_COUNTS, (_counts(c) for c in shown))
    for address, (seen, _) in pictures.items():
        yield f"![{seen}]({address})\n\n*{seen}*\n"
    for c in shown:
        yield from _chapter(c)
    if others := [r for r in found if r.other and r.begun]:
        yield "## Run with other settings\n"
        yield from _table(_COLUMNS, map(_cells, others))
    yield "## How verdicts are made\n"
    yield from (f"- {rule}" for rule in RULES)
    yield "\n## What it was run on, and how to repeat it\n"
    yield from (f"- {machine}" for machine in machines(found))
    yield _REPEAT


def _chapter(c: Chapter) -> Iterator[str]:
    yield f"## {c.part.title}\n"
    took = f" ({c.took})" if c.took else ""
    yield f"{c.part.says} Repeat with `gatewise lab run {c.part.tag}`{took}.\n".lstrip()
    if c.begun:
        if c.matrix:
            yield from _matrix(c.matrix)
        yield from _table(_COLUMNS, map(_cells, c.begun))
    if waiting := [r for r in c.rows if not r.begun]:
        yield "Not run:\n"
        yield from (f"- {r.name}: {r.experiment.asks} `{r.command}`" for r in waiting)
        yield ""


def _counts(c: Chapter) -> list[str]:
    words = [str(c.words[word] or "") for word in SIGNS]
    return [c.part.title, str(len(c.rows)), str(len(c.complete)), *words, c.took]


def _matrix(m: Matrix) -> Iterator[str]:
    cells = ([name, *map(_crossing, line)] for name, line in m.lines.items())
    yield from _table(("solved", *m.columns), cells)


def _crossing(row: Row | None) -> str:
    if row is None or not row.begun:
        return "" if row is None else "not run"
    told = "".join(f" ({brief(v)})" for v in row.of("successes"))
    told += "".join(f"; {row.mean} ({brief(v)})" for v in row.of("sequences"))
    return row.solved + ("" if row.complete else " …") + told


def _cells(row: Row) -> list[str]:
    state = f" ({row.missing})" if row.missing else ""
    return [
        row.name,
        row.experiment.details,
        row.solved + state,
        row.rate,
        row.sequences,
        row.tested,
        row.weights,
        time(row.summary.spent) if row.summary.trials else "–",
        _published(row),
    ]


def _published(row: Row) -> str:
    """All figures, by who printed them."""
    sources = dict.fromkeys(v.published.source for v in row.verdicts)
    by = {s: [brief(v) for v in row.verdicts if v.published.source == s] for s in sources}
    return "; ".join(f"{source}: {', '.join(figures)}" for source, figures in by.items())


def _table(columns: Sequence[str], lines: Iterator[list[str]] | map[list[str]]) -> Iterator[str]:
    yield _line(columns)
    yield _line(["---"] * len(columns))
    yield from map(_line, lines)
    yield ""


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(c.replace('|', '∣') for c in cells)} |"
