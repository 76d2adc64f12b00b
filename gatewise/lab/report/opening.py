"""When a gate of a solved network opens: the one that tells marked steps from others best."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from gatewise.lab.experiment import Activity
from gatewise.lab.report.rows import Row
from gatewise.lab.report.words import rounded

_VISIBLE = 0.1  # a smaller difference is none that one sees


class Opening(NamedTuple):
    """A gate's mean activation at the marked steps and at all others."""

    gate: str
    marked: float
    elsewhere: float

    @property
    def contrast(self) -> float:
        return self.marked - self.elsewhere

    def __str__(self) -> str:
        gate = self.gate.capitalize()
        return (
            f"{gate} is open to {self.marked:.2f} at the marked steps and to {self.elsewhere:.2f} "
            "at the others, on average."
        )


def opening(shown: Activity) -> Opening | None:
    """The gate with the largest difference; None without gates or marks."""
    marks = set(shown.marks)
    found = []
    for name, values in shown.lines.items():
        at = [v for t, v in enumerate(values) if t in marks]
        rest = [v for t, v in enumerate(values) if t not in marks]
        if "gate" in name and at and rest:
            found.append(Opening(name, sum(at) / len(at), sum(rest) / len(rest)))
    return max(found, key=lambda o: o.contrast, default=None)


def caption(shown: Activity) -> str:
    """What to see in the picture of one sequence."""
    found = opening(shown)
    marked = "Orange: the steps that matter." if shown.marks else ""
    opens = str(found) if found and found.contrast > _VISIBLE else ""
    return rounded(" ".join(filter(None, [marked, shown.label, opens])))


def clearest(groups: Iterable[Iterable[Row]]) -> Row | None:
    """The row whose solved network shows it best, of the first group that has one."""
    for rows in groups:
        found = [(o.contrast, r) for r in rows if r.activity and (o := opening(r.activity))]
        contrast, best = max(found, key=lambda f: f[0], default=(0.0, None))
        if contrast > _VISIBLE:
            return best
    return None
