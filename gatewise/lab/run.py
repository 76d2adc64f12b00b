"""Running experiments: what is missing is planned, run, and kept as it comes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from gatewise.executors.counter import checked_seed
from gatewise.executors.cpu.stepping import processors
from gatewise.lab import engines
from gatewise.lab.engines import Plan, stream
from gatewise.lab.experiment import Experiment, Work
from gatewise.lab.store import Store
from gatewise.lab.table import TRACKS
from gatewise.lab.work import Broken, Ended, Job, Update


@dataclass(frozen=True)
class Options:
    """How much to run, and where.

    Args:
        trials: of each experiment; None: as many as it has.
        seed: of all of them.
        jobs: processes; None: one per core.
        engine: "local" or "ray".
        budget: leave off after so many minutes; what is in flight can be continued.
        limit: most training sequences of a trial; None: each experiment's own. Another limit is
            another experiment.
        every: seconds between two kept states of work in flight.
    """

    trials: int | None = None
    seed: int = 0
    jobs: int | None = None
    engine: str = "local"
    budget: float | None = None
    limit: int | None = None
    every: float = 10.0

    def __post_init__(self) -> None:
        for name in ("trials", "jobs", "budget", "limit"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
        if not checked_seed(self.seed) < 2**31:
            raise ValueError(f"seed must be in 0…2^31 - 1, got {self.seed}")
        engines.check(self.engine)


@dataclass
class Standing:
    """What is known of an experiment while it runs."""

    experiment: Experiment
    wanted: int
    ended: dict[int, bool] = field(default_factory=dict)  # trial -> did it succeed?
    flying: dict[int, Update] = field(default_factory=dict)  # by number of the job
    waiting: int = 0  # jobs not begun
    finished: list[float] = field(default_factory=list)  # seconds of the jobs that ended
    error: str = ""

    @property
    def successes(self) -> int:
        return sum(self.ended.values())

    @property
    def note(self) -> str:
        """What the work in flight last said."""
        return "; ".join(u.note for u in self.flying.values() if u.note)

    @property
    def left(self) -> float | None:
        """Seconds of work left, at most, as far as it can be told: none may end early."""
        spent = {n: (u.spent.clock, u.done) for n, u in self.flying.items() if u.done > 0}
        whole = [*self.finished, *(s / d for s, d in spent.values())]
        if (self.waiting or len(spent) < len(self.flying)) and not whole:
            return None
        mean = sum(whole) / len(whole) if whole else 0.0
        unknown = self.waiting + len(self.flying) - len(spent)
        return sum(s / d - s for s, d in spent.values()) + unknown * mean


class Run:
    """One call of the runner. Iterate to run it; look at `standings` at every turn.

    Raises:
        ValueError: no experiments, or options out of range.
    """

    def __init__(
        self, experiments: Sequence[Experiment], store: Store, options: Options | None = None
    ) -> None:
        if not experiments:
            raise ValueError("experiments must be at least one, got none")
        self.options = options or Options()
        if self.options.limit is not None:
            experiments = [replace(e, limit=self.options.limit) for e in experiments]
        self.experiments, self.store = list(experiments), store
        self.jobs = [j for e in self.experiments for j in plan(e, store, self.options)]
        self.standings = {e.key: self._standing(e) for e in self.experiments}
        self.workers = self.options.jobs or processors()
        self._stopped = False

    def _standing(self, experiment: Experiment) -> Standing:
        keys = self.store.keys(experiment)
        ended = [t for k in keys for t in self.store.trials(k, self.options.seed)]
        wanted = self.options.trials or experiment.trials
        kept = {t.outcome.trial: t.outcome.success for t in ended if t.outcome.trial < wanted}
        waiting = sum(j.experiment.key == experiment.key for j in self.jobs)
        return Standing(experiment, wanted, kept, waiting=waiting)

    def stop(self) -> None:
        """Leave off soon, with the state of what is in flight kept."""
        self._stopped = True

    @property
    def left(self) -> float | None:
        """Seconds until the end, at most, on all workers; None while nobody can tell."""
        each = [s.left for s in self.standings.values() if s.waiting or s.flying]
        known = [s for s in each if s is not None]
        if len(known) < len(each):
            return None
        total = sum(known) / min(self.workers, max(1, len(self.jobs)))
        return total

    def __iter__(self) -> Iterator[Standing]:
        """Run everything that is missing; the standing that has changed, at each change."""
        if not self.jobs:
            return
        minutes = self.options.budget
        deadline = None if minutes is None else time.time() + 60 * minutes
        how = Plan(
            min(self.workers, len(self.jobs)), self.options.every, deadline, lambda: self._stopped
        )
        number = self.store.begin_run()
        begun: set[int] = set()
        for k, message in stream(self.options.engine, self.jobs, how):
            job = self.jobs[k]
            standing = self.standings[job.experiment.key]
            if k not in begun:
                begun.add(k)
                standing.waiting -= 1
                self.store.begin(number, job.experiment, job.work)
            self._take(number, k, job, standing, message)
            yield standing

    def _take(
        self, run: int, k: int, job: Job, standing: Standing, message: Update | Ended | Broken
    ) -> None:
        e, work = job.experiment, job.work
        if isinstance(message, Update):
            standing.flying[k] = message
            if message.tensors is not None:
                self.store.keep_state(
                    e, work, message.done, message.note, message.spent, message.tensors
                )
        elif isinstance(message, Broken):
            standing.error = message.error
            standing.flying.pop(k, None)
        else:
            o = message.outcome
            self.store.add(run, e, work, o, message.spent)
            if o.trial < standing.wanted:
                standing.ended[o.trial] = o.success
            if self.store.ended(e.key, work.seed).issuperset(work.trials):
                self.store.end(e, work)
                standing.flying.pop(k, None)
                standing.finished.append(message.spent.clock)


def plan(experiment: Experiment, store: Store, options: Options) -> list[Job]:
    """The jobs that are missing: work in flight as it was begun, then the rest in even parts."""
    trials = options.trials or experiment.trials
    ended = {t for k in store.keys(experiment) for t in store.ended(k, options.seed)}
    missing = [t for t in range(trials) if t not in ended]
    jobs: list[Job] = []
    for begun in store.unfinished(experiment.key, experiment.limit, options.seed):
        if set(begun.missing) & set(missing):
            jobs.append(Job(experiment, begun.work, begun.spent))
            missing = [t for t in missing if t not in begun.work.trials]
    most = TRACKS[experiment.track].batch(experiment.settings)
    for first, count in _parts(missing, most):
        jobs.append(Job(experiment, Work(options.seed, first, count, experiment.limit)))
    return jobs


def _parts(trials: list[int], most: int) -> Iterator[tuple[int, int]]:
    """Runs of consecutive trials, each cut into as few even parts as `most` allows.

    >>> list(_parts([0, 1, 2, 3, 4, 7, 8], most=4))
    [(0, 3), (3, 2), (7, 2)]
    """
    start = 0
    while start < len(trials):
        stop = start + 1
        while stop < len(trials) and trials[stop] == trials[stop - 1] + 1:
            stop += 1
        parts = -(-(stop - start) // most)
        cuts = [start + -(-(stop - start) * k // parts) for k in range(parts + 1)]
        for a, b in itertools.pairwise(cuts):
            yield trials[a], b - a
        start = stop


def run(
    experiments: Sequence[Experiment],
    store: Store,
    options: Options | None = None,
    progress: Callable[[Run, Standing], None] | None = None,
) -> Run:
    """Run everything that is missing, to the end; the `Run`, with what came of it.

    Raises:
        ValueError: see `Run`.
        RuntimeError: a track raised an error; everything else was run and kept.
    """
    done = Run(experiments, store, options)
    for standing in done:
        if progress is not None:
            progress(done, standing)
    broken = [s for s in done.standings.values() if s.error]
    if broken:
        raise RuntimeError(f"{broken[0].experiment.name}: {broken[0].error}")
    return done
