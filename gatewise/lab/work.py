"""One piece of work from beginning to end, as messages: the same on every engine."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from safetensors.torch import save

from gatewise.lab.experiment import Experiment, Outcome, Progress, Spent, Work
from gatewise.lab.table import TRACKS

_NOTHING = Spent()


@dataclass(frozen=True)
class Job:
    """Trials of one experiment that run together."""

    experiment: Experiment
    work: Work
    spent: Spent = _NOTHING  # what went into it before an interruption


@dataclass(frozen=True)
class Update:
    """Where work stands; with `tensors` it is worth keeping."""

    done: float
    note: str
    spent: Spent
    tensors: bytes | None


@dataclass(frozen=True)
class Ended:
    """A trial has ended."""

    outcome: Outcome
    spent: Spent


@dataclass(frozen=True)
class Broken:
    """The track raised an error, or gave other trials than it was asked for."""

    error: str


Message = Update | Ended | Broken


def perform(
    job: Job,
    every: float,
    deadline: float | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[Message]:
    """Run a job; its state comes every `every` seconds and when it is stopped or out of time.

    A trial runs on one thread: its numbers must not depend on what runs beside it.

    Args:
        job: what to run.
        every: seconds between two states.
        deadline: `time.time()` at which to leave off.
        stopped: asked at every sign of progress.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield from _perform(job, every, deadline, stopped)
    except Exception:  # whatever a track raises ends this job and no other
        yield Broken(traceback.format_exc())
    finally:
        torch.set_num_threads(threads)


def _perform(
    job: Job, every: float, deadline: float | None, stopped: Callable[[], bool]
) -> Iterator[Message]:
    begun, start = _cpu(), time.perf_counter()
    kept = start
    missing = set(job.work.trials)
    for event in _events(job):
        now = time.perf_counter()
        spent = job.spent + Spent(now - start, _cpu() - begun)
        if isinstance(event, Outcome):
            missing.discard(event.trial)
            yield Ended(event, spent)
            continue
        leave = stopped() or (deadline is not None and time.time() >= deadline)
        due = leave or now - kept >= every
        yield Update(event.done, event.note, spent, _tensors(event) if due else None)
        if due:
            kept = time.perf_counter()
        if leave:
            return
    if missing and job.work.state is None:  # one that goes on may have given some before
        raise RuntimeError(f"the track {job.experiment.track} gave no outcome for {missing}")


def _events(job: Job) -> Iterator[Progress | Outcome]:
    """What the track says; from the beginning where the kept state, of another version, fails."""
    run, settings = TRACKS[job.experiment.track].run, job.experiment.settings
    events = run(settings, job.work)
    try:
        first = next(events, None)
    except Exception:
        if job.work.state is None:
            raise
        yield Progress(0.0, "begun anew: what was kept is of another version")
        events, first = run(settings, replace(job.work, state=None)), None
    if first is not None:
        yield first
    yield from events


def _cpu() -> float:
    """Processor seconds of this process, with all its threads, and of its children."""
    return sum(os.times()[:4])


def _tensors(progress: Progress) -> bytes | None:
    if progress.state is None:
        return None
    return save({n: t.contiguous() for n, t in progress.state().items()})
