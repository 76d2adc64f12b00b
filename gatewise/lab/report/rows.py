"""One row per experiment, in words: the page and the Markdown table show the same ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gatewise.lab.experiment import Activity, Experiment, Published
from gatewise.lab.statistics import Interval
from gatewise.lab.store import Store, Unfinished
from gatewise.lab.table import EXPERIMENTS, TRACKS
from gatewise.lab.verdict import Summary, Verdict, verdicts


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
    def begun(self) -> bool:
        """Is there anything to show?"""
        return bool(self.summary.trials or self.unfinished)

    @property
    def anchor(self) -> str:
        """Its place in the page: of two experiments of one name, each has its own."""
        return "".join(c if c.isalnum() else "-" for c in f"{self.experiment.name}-{self.key[:6]}")

    @property
    def track(self) -> str:
        track = TRACKS.get(self.experiment.track)
        return track.title if track else self.experiment.track

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

    @property
    def solved(self) -> str:
        s = self.summary
        if s.rate is None:
            return "–"
        return f"{s.successes} of {len(s.trials)}"

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
    def sequences(self) -> str:
        """Sequences to success: median, mean with interval, range."""
        found = self.summary.sequences
        if not found:
            return "–"
        mean = self.summary.mean
        middle = f"{found[0]:,}" if mean is None else f"{counted(mean)}"
        return f"{middle}; median {self.summary.median:,.0f}; {found[0]:,} … {found[-1]:,}"

    @property
    def tested(self) -> str:
        """Wrong test sequences of the networks that succeeded: mean and worst."""
        wrong = self.summary.numbers("test_wrong", solved=True)
        count = self.summary.numbers("test_count")
        if not wrong or not count:
            return "–"
        return f"{sum(wrong) / len(wrong):.3g} of {count[0]:,.0f}, at most {max(wrong):.0f}"

    @property
    def weights(self) -> str:
        found = sorted(set(self.summary.numbers("weights")))
        return " … ".join(f"{n:,.0f}" for n in {found[0]: 0, found[-1]: 0}) if found else "–"

    @property
    def seconds(self) -> str:
        return f"{self.summary.seconds:,.3g}" if self.summary.trials else "–"

    @property
    def figures(self) -> list[tuple[str, str]]:
        """Every further measurement: its name, and mean and range over the trials."""
        names = {n: 0 for t in self.summary.trials for n in t.outcome.numbers}
        found = []
        for name in names:
            values = self.summary.numbers(name)
            mean, low, high = sum(values) / len(values), min(values), max(values)
            spread = "" if low == high else f" ({_plain(low)} … {_plain(high)})"
            found.append((name.replace("_", " "), f"{_plain(mean)}{spread}"))
        return found

    @property
    def activity(self) -> Activity | None:
        """Of the first solved network that has one."""
        shown = (t.outcome.activity for t in self.summary.trials if t.outcome.success)
        return next((a for a in shown if a is not None), None)


def rows(store: Store, experiments: Iterable[Experiment], others: bool = True) -> list[Row]:
    """The given experiments, and with `others` all that the file of results knows besides."""
    listed = {e.key: e for e in experiments}
    begun = store.experiments() if others else {}
    return [_row(store, key, e) for key, e in (listed | begun | listed).items()]


def _row(store: Store, key: str, experiment: Experiment) -> Row:
    trials = tuple(store.trials(key))
    summary = Summary(experiment, trials, experiment.trials)
    return Row(
        key, summary, tuple(verdicts(summary)), tuple(store.unfinished(key, experiment.limit))
    )


def by_track(found: Sequence[Row]) -> dict[str, list[Row]]:
    """Track -> its rows, in the order they have."""
    grouped: dict[str, list[Row]] = {}
    for row in found:
        grouped.setdefault(row.track, []).append(row)
    return grouped


def _plain(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 or value == round(value) else f"{value:.4g}"


def share(i: Interval) -> str:
    """A rate in per cent."""
    return f"{i.value:.0%} [{i.low:.0%}, {i.high:.0%}]"


def counted(i: Interval) -> str:
    """A mean number of sequences."""
    return f"{i.value:,.0f} [{max(0.0, i.low):,.0f}, {i.high:,.0f}]"


def printed(p: Published) -> str:
    """A published figure."""
    what = {
        "successes": f"{p.value:g} of {p.trials}" if p.trials else "none",
        "sequences": f"{p.value:,.0f} sequences",
        "wrong": f"{p.value:g} wrong",
    }[p.figure]
    return f"{what}{f' ({p.note})' if p.note else ''}"
