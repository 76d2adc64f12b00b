"""One row per experiment, in words: the page and the Markdown tables show the same ones."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gatewise.lab.experiment import Activity, Experiment
from gatewise.lab.parts import Part, part_of
from gatewise.lab.report.words import counted, plain, printed, share
from gatewise.lab.results import Results
from gatewise.lab.store import Unfinished
from gatewise.lab.table import EXPERIMENTS
from gatewise.lab.verdict import CONFIRMED, REFUTED, UNDECIDED, Summary, Verdict, verdicts

SIGNS = {CONFIRMED: "✓", REFUTED: "✗", UNDECIDED: "?"}


@dataclass(frozen=True)
class Row:
    """An experiment, its trials, and what follows from them."""

    key: str
    summary: Summary
    verdicts: tuple[Verdict, ...]
    unfinished: tuple[Unfinished, ...]

    @property
    def experiment(self) -> Experiment:
        return self.summary.experiment

    @property
    def name(self) -> str:
        return self.experiment.name

    @property
    def begun(self) -> bool:
        """Is there anything to show?"""
        return bool(self.summary.trials or self.unfinished)

    @property
    def complete(self) -> bool:
        """Have all trials ended?"""
        return self.summary.complete

    @property
    def other(self) -> bool:
        """Was it run with other settings than those that its name stands for today?"""
        return self.name in EXPERIMENTS and EXPERIMENTS[self.name].key != self.key

    @property
    def anchor(self) -> str:
        """Its place in the page: of two experiments of one name, each has its own."""
        return "".join(c if c.isalnum() else "-" for c in f"{self.name}-{self.key[:6]}")

    @property
    def part(self) -> Part:
        return part_of(self.experiment)

    @property
    def command(self) -> str:
        """How to repeat it."""
        e = self.experiment
        name, _, changed = e.name.partition("+")
        words = ["gatewise lab run", name]
        if changed:
            words.append(f"--cell {e.settings.cell}")
        if name in EXPERIMENTS and EXPERIMENTS[name].limit != e.limit:
            words.append(f"--limit {e.limit}")
        seeds = sorted({t.seed for t in self.summary.trials})
        if len(seeds) == 1 and seeds[0]:
            words.append(f"--seed {seeds[0]}")
        return " ".join(words)

    # -- figures ---------------------------------------------------------------------------

    def of(self, figure: str) -> list[Verdict]:
        """What was published of one kind of figure."""
        return [v for v in self.verdicts if v.published.figure == figure]

    @property
    def solved(self) -> str:
        s = self.summary
        return f"{s.successes} of {len(s.trials)}" if s.trials else "–"

    @property
    def rate(self) -> str:
        """The success rate with its interval."""
        return "" if self.summary.rate is None else share(self.summary.rate)

    @property
    def missing(self) -> str:
        """What has not ended yet, in words; empty where everything has."""
        s = self.summary
        if s.complete and not self.unfinished:
            return ""
        flying = [
            f"{len(u.missing)} at {u.done:.0%} of the most they may need" for u in self.unfinished
        ]
        left = s.wanted - len(s.trials) - sum(len(u.missing) for u in self.unfinished)
        return "; ".join([*flying, *([f"{left} not begun"] if left > 0 else [])])

    @property
    def mean(self) -> str:
        """Mean sequences to success."""
        found = self.summary.sequences
        return f"{sum(found) / len(found):,.0f}" if found else "–"

    @property
    def sequences(self) -> str:
        """Sequences to success: mean with interval, median, range."""
        found = self.summary.sequences
        if not found:
            return "–"
        mean = self.summary.mean
        middle = f"{found[0]:,}" if mean is None else f"{counted(mean)}"
        return f"{middle}; median {self.summary.median:,.0f}; {found[0]:,} … {found[-1]:,}"

    @property
    def wrong(self) -> str:
        """Mean number of wrong test sequences of the networks that succeeded."""
        wrong = self.summary.numbers("test_wrong", solved=True)
        count = self.summary.numbers("test_count")
        return f"{sum(wrong) / len(wrong):.3g} of {count[0]:,.0f}" if wrong and count else "–"

    @property
    def tested(self) -> str:
        """The same, and the worst."""
        wrong = self.summary.numbers("test_wrong", solved=True)
        return self.wrong if self.wrong == "–" else f"{self.wrong}, at most {max(wrong):.0f}"

    @property
    def weights(self) -> str:
        found = sorted(set(self.summary.numbers("weights")))
        return " … ".join(f"{n:,.0f}" for n in {found[0]: 0, found[-1]: 0}) if found else "–"

    @property
    def figures(self) -> Iterator[tuple[str, str]]:
        """Every further measurement: its name, and mean and range over the trials."""
        names = {n: 0 for t in self.summary.trials for n in t.outcome.numbers}
        for name in (n for n in names if n not in ("weights", "test_wrong", "test_count")):
            every = self.summary.numbers(name)
            values = [v for v in every if math.isfinite(v)]
            parts = [_mean_and_range(values)] if values else []
            if gone := len(every) - len(values):  # of networks that diverged
                parts.append(f"no number in {gone} of {len(every)}")
            yield name.replace("_", " "), "; ".join(parts)

    @property
    def activity(self) -> Activity | None:
        """Of the first solved network that has one."""
        shown = (t.outcome.activity for t in self.summary.trials if t.outcome.success)
        return next((a for a in shown if a is not None), None)


def _mean_and_range(values: list[float]) -> str:
    mean, low, high = sum(values) / len(values), min(values), max(values)
    return plain(mean) + ("" if low == high else f" ({plain(low)} … {plain(high)})")


def compared(v: Verdict) -> str:
    """Our figure beside a published one."""
    if v.ours is None:
        return "–"
    return (share if v.published.figure == "successes" else counted)(v.ours)


def brief(v: Verdict) -> str:
    """A published figure and the sign of its verdict."""
    return f"{printed(v.published)} {SIGNS[v.word]}"


def rows(results: Results, experiments: Iterable[Experiment], others: bool = True) -> list[Row]:
    """The given experiments, and with `others` all that the files of results know besides."""
    found = {e.key: (e, results.keys(e)) for e in experiments}
    if others:
        known = {key for _, keys in found.values() for key in keys}
        begun = results.experiments().items()
        found |= {key: (e, [key]) for key, e in begun if key not in known}
    return [_row(results, e, keys) for e, keys in found.values()]


def _row(results: Results, experiment: Experiment, keys: list[str]) -> Row:
    trials = tuple(results.trials(keys))
    summary = Summary(experiment, trials, experiment.trials)
    flying = tuple(results.unfinished(keys[0], experiment.limit, trials))
    return Row(keys[0], summary, tuple(verdicts(summary)), flying)
