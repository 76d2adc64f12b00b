"""The report as one HTML page that needs nothing else: no network, no script."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.resources import files
from typing import Any

import jinja2

from gatewise.diagnostics import Flow
from gatewise.lab.report import figures
from gatewise.lab.report.chapters import chapters, machines, whole
from gatewise.lab.report.opening import caption, clearest
from gatewise.lab.report.pictures import svg
from gatewise.lab.report.rows import SIGNS, Row, compared
from gatewise.lab.report.words import duration, printed, stated, time
from gatewise.lab.verdict import RULES


def html(found: Sequence[Row], flows: Sequence[Flow] = (), notes: Sequence[str] = ()) -> str:
    """The whole page.

    Args:
        found: from `rows`.
        flows: gradient norms by lag, from `gatewise.diagnostics.study`.
        notes: what a reader must know of the results besides.
    """
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FunctionLoader(_template),
    )
    environment.filters |= {
        "printed": printed,
        "stated": stated,
        "duration": duration,
        "compared": compared,
        "time": time,
    }
    environment.globals["signs"] = SIGNS
    shown = chapters(found)
    best = clearest(c.begun for c in shown)
    return environment.get_template("page.html").render(
        chapters=shown,
        others=[r for r in found if r.other and r.begun],
        shown={r.anchor: _shown(r) for r in found if r.begun},
        overview=_overview([r for c in shown[:1] for r in c.begun]),
        clearest=best,
        gate=svg(figures.activity(best.activity), "a gate") if best and best.activity else "",
        gradients=svg(figures.gradients(flows), "gradient norms") if flows else "",
        rules=RULES,
        machines=machines(found),
        whole=whole(found),
        notes=notes,
    )


def _template(name: str) -> str:
    return (files("gatewise.lab.report") / name).read_text("utf-8")


def _overview(rows: Sequence[Row]) -> str:
    return svg(figures.overview(rows), "sequences to success") if rows else ""


def _shown(row: Row) -> dict[str, Any]:
    """A row's pictures and settings."""
    curves, activity = figures.curves(row.summary.trials), row.activity
    return {
        "curves": svg(curves, f"curves {row.anchor}") if curves else "",
        "activity": svg(figures.activity(activity), f"activity {row.anchor}") if activity else "",
        "caption": caption(activity) if activity else "",
        "settings": json.dumps(asdict(row.experiment.settings), indent=1, ensure_ascii=False),
    }
