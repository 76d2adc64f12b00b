"""The rows of a part together: counts, time, a table of two axes, and what was found, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from gatewise.lab.experiment import Spent
from gatewise.lab.parts import PARTS, Part
from gatewise.lab.report.rows import Row
from gatewise.lab.report.words import duration, listed, printed, time
from gatewise.lab.store import Trial
from gatewise.lab.table import EXPERIMENTS
from gatewise.lab.verdict import CONFIRMED, REFUTED, Verdict

_FEW, _MANY = 8, 24  # names that a sentence can hold, with what is special of each and without

# What a refuted figure says, the plainest first.
_RARER, _OFTENER = "learnt less often than published", "learnt more often than published"
_SLOWER, _FASTER = "learnt from more sequences", "learnt from fewer sequences"
_WORSE = "learnt, with more test errors"
_HOLDS, _OPEN = "every published figure holds", "not decided"
_KINDS = (_HOLDS, _RARER, _OFTENER, _SLOWER, _FASTER, _WORSE, _OPEN)


@dataclass(frozen=True)
class Matrix:
    """Experiments whose names have two axes: title of a line -> its cells, by column."""

    columns: tuple[str, ...]
    lines: dict[str, tuple[Row | None, ...]]


@dataclass(frozen=True)
class Chapter:
    """A part, and its rows in the table's order."""

    part: Part
    rows: tuple[Row, ...]

    @property
    def begun(self) -> list[Row]:
        return [r for r in self.rows if r.begun]

    @property
    def complete(self) -> list[Row]:
        return [r for r in self.rows if r.complete]

    @property
    def state(self) -> str:
        """How many experiments are complete, unfinished, not run."""
        counts = {
            "complete": len(self.complete),
            "unfinished": len(self.begun) - len(self.complete),
            "not run": len(self.rows) - len(self.begun),
        }
        said = [f"{n} {what}" for what, n in counts.items() if n]
        return "all complete" if len(said) == 1 and self.complete else ", ".join(said)

    @property
    def words(self) -> Counter[str]:
        """Verdict -> how many published figures of complete experiments it was given to."""
        return Counter(v.word for r in self.complete for v in r.verdicts)

    @property
    def spent(self) -> Spent:
        """All trials together."""
        return sum((r.summary.spent for r in self.rows), Spent())

    @property
    def elapsed(self) -> float:
        """Seconds by the clock in which at least one of the trials was running."""
        elapsed = _elapsed(t for r in self.rows for t in r.summary.trials)
        return min(elapsed, self.spent.clock)  # work that was interrupted has no one beginning

    @property
    def took(self) -> str:
        """The time, by the clock and of the processor."""
        if not any(r.summary.trials for r in self.rows):
            return ""
        cores = {str(t.environment["cores"]) for r in self.rows for t in r.summary.trials}
        on = f" on {listed(sorted(cores))} cores"
        work = self.spent
        kind = "of work by the clock" if work.cpu is None else "of processor time"
        whole = work.clock if work.cpu is None else work.cpu
        return f"{duration(self.elapsed)} by the clock{on}; {duration(whole)} {kind}"

    @property
    def matrix(self) -> Matrix | None:
        """By the two axes of the names, where both take several values."""
        places = [_place(r.name) for r in self.rows]
        if any(len(p) < 2 for p in places) or len(set(places)) < len(places):
            return None
        axes = [list(dict.fromkeys(p[k] for p in places)) for k in (0, 1)]
        down = 0 if len(axes[0]) >= len(axes[1]) else 1
        if min(map(len, axes)) < 2:
            return None
        at = {(p[down], p[1 - down]): r for p, r in zip(places, self.rows, strict=True)}
        columns = tuple(axes[1 - down])
        return Matrix(columns, {a: tuple(at.get((a, b)) for b in columns) for a in axes[down]})

    # -- what was found ------------------------------------------------------------------

    def findings(self) -> Iterator[str]:
        """Sentences, by rule from the verdicts and successes."""
        published = [r for r in self.complete if r.verdicts]
        if published:
            ends = [(r.summary.successes, len(r.summary.trials)) for r in self.complete]
            yield (
                f"Of {len(ends)} complete experiments, every trial succeeds in "
                f"{sum(k == n for k, n in ends)}, none in {sum(not k for k, _ in ends)}."
            )
        for kind in _KINDS:
            found = [r for r in published if _kind(r) == kind]
            if found:
                yield f"{kind.capitalize()}: {self._named(found, kind)}."
        plain = [r for r in self.complete if not r.verdicts]
        yield from self._successes(plain)

    def _successes(self, rows: list[Row]) -> Iterator[str]:
        always = [r for r in rows if r.summary.successes == len(r.summary.trials)]
        never = [r for r in rows if not r.summary.successes]
        some = [r for r in rows if r not in always and r not in never]
        for what, found in (("every trial", always), ("some", some), ("no trial", never)):
            if found:
                yield f"Solved in {what}: {self._named(found, what)}."

    def _named(self, rows: list[Row], kind: str) -> str:
        """Names, each with what is special about it; where they are many, how many."""
        if len(rows) > _MANY:
            return f"{len(rows)} of {len(self.complete)}"
        heads = {r.name.split("/")[0] for r in self.rows}
        names = [r.name.partition("/")[2] if len(heads) == 1 else r.name for r in rows]
        details = [_detail(r, kind) if len(rows) <= _FEW else "" for r in rows]
        said = [f"{n} ({d})" if d else n for n, d in zip(names, details, strict=True)]
        return listed(said)


def chapters(found: Sequence[Row]) -> list[Chapter]:
    """The rows by part, in the order of `PARTS`, without those that have other settings."""
    grouped: dict[Part, list[Row]] = {p: [] for p in PARTS}
    for row in found:
        if not row.other:
            grouped.setdefault(row.part, []).append(row)
    return [Chapter(part, tuple(rows)) for part, rows in grouped.items() if rows]


def _place(name: str) -> tuple[str, ...]:
    """The last two words between slashes, or a row of the table and how it is read otherwise."""
    if "/" in name:
        return tuple(name.split("/")[-2:])
    base = min((b for b in EXPERIMENTS if name.startswith(f"{b}-")), key=len, default="")
    return (base, name[len(base) + 1 :]) if base else (name,)


def _kind(row: Row) -> str:
    """What a row's verdicts come to."""
    if all(v.word == CONFIRMED for v in row.verdicts):
        return _HOLDS
    kinds = {_refuted(row, v) for v in row.verdicts if v.word == REFUTED}
    return next((k for k in _KINDS if k in kinds), _OPEN)


def _refuted(row: Row, v: Verdict) -> str:
    p, s = v.published, row.summary
    if p.figure == "successes":
        rarer = p.trials and s.successes / len(s.trials) < p.value / p.trials
        return _RARER if rarer else _OFTENER
    if p.figure == "wrong":
        return _WORSE
    if v.ours is None or len(s.sequences) < len(s.trials) / 2:
        return _RARER  # a mean was published, and most trials do not end at all
    return _SLOWER if v.ours.value > p.value else _FASTER


def _detail(row: Row, kind: str) -> str:
    """The figure that puts the row where it is."""
    if kind in (_RARER, _OFTENER):
        stated = [printed(v.published) for v in row.of("successes")]
        return f"{row.solved}{f', published {stated[0]}' if stated else ''}"
    times = [v.ours.value / v.published.value for v in row.of("sequences") if v.ours]
    ratio = (
        [f"{times[0]:.2g} times" if times[0] < 100 else f"{times[0]:.0f} times"] if times else []
    )
    if kind in (_SLOWER, _FASTER):
        return ratio[0]
    if kind == _WORSE:
        return row.wrong
    return ", ".join([row.solved, *ratio]) if kind in (_OPEN, "some") else ""


def machines(found: Sequence[Row]) -> list[str]:
    """What it was run on: a line per machine and versions, with trials, time and commits."""
    lines: dict[str, dict[str, list[Trial]]] = {}
    for trial in (t for r in found for t in r.summary.trials):
        e = trial.environment
        names = ("gatewise", "torch", "python", "compiler")
        versions = ", ".join(f"{n} {e[n]}" for n in names if e.get(n))
        line = f"{e['processor']} ({e['vector']}), {e['cores']} cores; {versions}"
        lines.setdefault(line, {}).setdefault(e.get("commit") or "unknown", []).append(trial)
    return [
        f"{line}. Commits: {'; '.join(f'{c}: {_made(ts)}' for c, ts in commits.items())}"
        for line, commits in lines.items()
    ]


def _made(trials: Sequence[Trial]) -> str:
    return f"{_days(trials)}, {len(trials):,} trials in {duration(_elapsed(trials))} by the clock"


def _elapsed(trials: Iterable[Trial]) -> float:
    """Seconds by the clock in which at least one of them was running."""
    spans = sorted(
        (datetime.fromisoformat(t.ended).timestamp() - t.seconds, t.seconds) for t in trials
    )
    total, until = 0.0, float("-inf")
    for start, seconds in spans:
        total += max(0.0, start + seconds - max(start, until))
        until = max(until, start + seconds)
    return total


def _days(trials: Sequence[Trial]) -> str:
    days = [t.ended[:10] for t in trials]
    first, last = min(days), max(days)
    return first if first == last else f"{first} to {last}"


def whole(found: Sequence[Row]) -> str:
    """All trials there are, and their time."""
    trials = [t for r in found for t in r.summary.trials]
    spent = sum((r.summary.spent for r in found), Spent())
    return f"{len(trials):,} trials of {sum(r.begun for r in found)} experiments, {time(spent)}"
