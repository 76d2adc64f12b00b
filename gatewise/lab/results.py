"""Several files of results, read as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from gatewise.lab.experiment import Experiment
from gatewise.lab.store import Store, Trial, Unfinished


class Results:
    """Files of results, only read.

    A trial that is in them several times counts once: as it was filed under today's settings, and
    in the first file. Where its ends are equal, the one that took the least time stands for them.

    Args:
        paths: one file or more.

    Raises:
        ValueError: no file, or one that is no store.
        FileNotFoundError: no such file.
    """

    def __init__(self, paths: Sequence[str | Path]) -> None:
        if not paths:
            raise ValueError("paths must be at least one file of results, got none")
        self.differing: Counter[tuple[str, str]] = Counter()  # its key, file -> other ends
        self.repeated = 0  # trials that were run again and ended alike
        with ExitStack() as opened:
            self._stores = [opened.enter_context(Store(p, create=False)) for p in paths]
            self._begun = {k: e for s in reversed(self._stores) for k, e in s.experiments().items()}
            self._close = opened.pop_all().close

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def experiments(self) -> dict[str, Experiment]:
        """Key -> every experiment that was begun, as it was then."""
        return self._begun

    def keys(self, experiment: Experiment) -> list[str]:
        """Its own, and those it was filed under before some of its settings existed."""
        return list(dict.fromkeys(k for s in self._stores for k in s.keys(experiment)))

    def trials(self, keys: Sequence[str]) -> list[Trial]:
        """Finished trials of the experiment with these keys, its own first; of all seeds."""
        found: dict[tuple[int, int], Trial] = {}
        for key in keys:
            for store in self._stores:
                for trial in store.trials(key):
                    place = (trial.seed, trial.outcome.trial)
                    first = found.setdefault(place, trial)
                    if first is trial:
                        continue
                    if repr(first.outcome) != repr(trial.outcome):  # NaN is itself there
                        self.differing[keys[0], store.path.name] += 1
                        continue
                    self.repeated += 1
                    if trial.seconds < first.seconds:
                        found[place] = trial
        return [found[place] for place in sorted(found)]

    def unfinished(self, key: str, limit: int, ended: Iterable[Trial]) -> list[Unfinished]:
        """Work in flight with trials of which no end is known."""
        known = {(t.seed, t.outcome.trial) for t in ended}
        found: list[Unfinished] = []
        for store in self._stores:
            for u in store.unfinished(key, limit):
                missing = tuple(t for t in u.missing if (u.work.seed, t) not in known)
                known |= {(u.work.seed, t) for t in missing}
                found += [replace(u, missing=missing)] if missing else []
        return found
