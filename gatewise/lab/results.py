"""Several files of results, read as one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from gatewise.lab.experiment import Experiment
from gatewise.lab.store import Store, Trial, Unfinished


class Results:
    """Files of results, only read. A trial that two of them have counts once, as the first has it.

    Args:
        paths: one file or more.

    Raises:
        ValueError: no file, or one that is no store.
        FileNotFoundError: no such file.
    """

    def __init__(self, paths: Sequence[str | Path]) -> None:
        if not paths:
            raise ValueError("paths must be at least one file of results, got none")
        self.differing: dict[tuple[str, int, int], str] = {}  # trials with two ends
        with ExitStack() as opened:
            self._stores = [opened.enter_context(Store(p, create=False)) for p in paths]
            self._close = opened.pop_all().close

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def experiments(self) -> dict[str, Experiment]:
        """Key -> every experiment that was begun, as it was then."""
        found: dict[str, Experiment] = {}
        for store in self._stores:
            found |= {k: e for k, e in store.experiments().items() if k not in found}
        return found

    def trials(self, key: str) -> list[Trial]:
        """Finished trials of the settings with this key, of all seeds."""
        found: dict[tuple[int, int], Trial] = {}
        for store in self._stores:
            for trial in store.trials(key):
                place = (trial.seed, trial.outcome.trial)
                first = found.setdefault(place, trial)
                if repr(first.outcome) != repr(trial.outcome):  # NaN is itself there
                    self.differing[(key, *place)] = (
                        f"trial {place[1]} of seed {place[0]} ended otherwise in {store.path.name}"
                    )
        return [found[place] for place in sorted(found)]

    def unfinished(self, key: str, limit: int) -> list[Unfinished]:
        """Work in flight that has trials which no file has the end of."""
        known = {(t.seed, t.outcome.trial) for t in self.trials(key)}
        found: list[Unfinished] = []
        for store in self._stores:
            for u in store.unfinished(key, limit):
                missing = tuple(t for t in u.missing if (u.work.seed, t) not in known)
                known |= {(u.work.seed, t) for t in missing}
                found += [replace(u, missing=missing)] if missing else []
        return found
