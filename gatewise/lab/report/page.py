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
from gatewise.lab.report.rows import Row, by_track, counted, printed, share
from gatewise.lab.report.text import environment_line
from gatewise.lab.verdict import RULES, Verdict


def html(
    found: Sequence[Row], environments: Sequence[dict[str, Any]], flows: Sequence[Flow] = ()
) -> str:
    """The whole page.

    Args:
        found: from `rows`.
        environments: what it was run on, from `Store.environments`.
        flows: gradient norms by lag, from `gatewise.diagnostics.study`.
    """
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"printed": printed, "ours": _ours}
    template = environment.from_string(
        (files("gatewise.lab.report") / "page.html").read_text("utf-8")
    )
    return template.render(
        tracks=by_track([r for r in found if r.begun]),
        waiting=[r for r in found if not r.begun],
        pictures={r.anchor: _pictures(r) for r in found if r.begun},
        settings={r.anchor: _settings(r) for r in found if r.begun},
        gradients=figures.gradients(flows) if flows else "",
        rules=RULES.replace("**", ""),
        environments=[environment_line(e) for e in environments],
    )


def _pictures(row: Row) -> dict[str, str]:
    name, shown = row.experiment.name, row.activity
    return {
        "curves": figures.curves(row.summary.trials, name),
        "activity": "" if shown is None else figures.activity(shown, name),
        "label": "" if shown is None else shown.label,
    }


def _settings(row: Row) -> str:
    return json.dumps(asdict(row.experiment.settings), indent=1, ensure_ascii=False)


def _ours(verdict: Verdict) -> str:
    """Our figure beside a published one."""
    if verdict.ours is None:
        return "–"
    return (share if verdict.published.figure == "successes" else counted)(verdict.ours)
