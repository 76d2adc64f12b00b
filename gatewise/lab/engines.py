"""Where jobs run: in this process, in several, or on a cluster through Ray.

An engine takes jobs and gives (number of the job, message) pairs as they come.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from gatewise.lab.work import Broken, Job, Message, perform

ENGINES = ("local", "ray")
_NEXT = "next"  # a worker asks for its next job


@dataclass(frozen=True)
class Plan:
    """How to run jobs.

    Args:
        workers: how many at a time.
        every: seconds between two kept states.
        deadline: `time.time()` at which to leave off; None: run to the end.
        stopped: asked often; once true, work is left with its state kept.
    """

    workers: int = 1
    every: float = 10.0
    deadline: float | None = None
    stopped: Callable[[], bool] = lambda: False

    @property
    def over(self) -> bool:
        """Is no further job to be begun?"""
        return self.stopped() or (self.deadline is not None and time.time() >= self.deadline)


Stream = Iterator[tuple[int, Message]]


def stream(engine: str, jobs: Sequence[Job], plan: Plan) -> Stream:
    """Run the jobs on the engine of that name."""
    if engine == "ray":
        return _on_ray(jobs, plan)
    return _here(jobs, plan) if plan.workers == 1 else _in_processes(jobs, plan)


def _here(jobs: Sequence[Job], plan: Plan) -> Stream:
    for number, job in enumerate(jobs):
        if plan.over:
            return
        for message in perform(job, plan.every, plan.deadline, plan.stopped):
            yield number, message


def _in_processes(jobs: Sequence[Job], plan: Plan) -> Stream:
    """Workers that are started once and given one job after another.

    A worker whose pipe breaks ends, so none outlives a runner that was killed; a worker that dies
    breaks its job and nothing else.
    """
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    busy: dict[Connection, int | None] = {}
    processes: list[Any] = []
    for _ in range(min(plan.workers, len(jobs))):
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_worker, args=(theirs, plan.every, plan.deadline), daemon=True
        )
        process.start()
        theirs.close()
        processes.append(process)
        busy[ours] = None
    queue, told = iter(enumerate(jobs)), False
    try:
        while busy:
            ready = wait(list(busy), timeout=0.2)
            if plan.stopped() and not told:
                told = True
                for pipe in busy:
                    with contextlib.suppress(OSError):
                        pipe.send(None)
            for pipe in ready:
                assert isinstance(pipe, Connection)
                try:
                    message = pipe.recv()
                except (EOFError, OSError):
                    number = busy.pop(pipe)
                    if number is not None:
                        yield number, Broken("the process that ran it has died")
                    continue
                if message != _NEXT:
                    number = busy[pipe]
                    assert number is not None
                    yield number, message
                    continue
                busy[pipe], job = (None, None) if plan.over else next(queue, (None, None))
                pipe.send(job)
                if job is None:
                    del busy[pipe]
    finally:
        for pipe in busy:
            pipe.close()
        for process in processes:
            process.join(timeout=5)
            process.terminate()


def _worker(pipe: Connection, every: float, deadline: float | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the runner says when to stop
    with contextlib.suppress(EOFError, OSError):  # the runner is gone
        while True:
            pipe.send(_NEXT)
            job = pipe.recv()
            if job is None:
                return
            for message in perform(job, every, deadline, pipe.poll):
                pipe.send(message)


def check(engine: str) -> None:
    """Raise ValueError for an engine that is unknown or not installed."""
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    if engine == "ray":
        _ray()


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise ValueError("engine ray needs the package ray: pip install 'gatewise[ray]'") from None


def _on_ray(jobs: Sequence[Job], plan: Plan) -> Stream:
    """The same `perform`, as remote tasks that stream what they have to say.

    Uses the cluster that RAY_ADDRESS names, or starts one of `workers` processes on this machine.
    What a stopped task has done since its last kept state is lost.
    """
    ray = _ray()
    ours = not ray.is_initialized()
    if ours:
        _start(ray, plan.workers)
    remote = ray.remote(num_cpus=1, max_retries=0)(perform)
    queue, running = iter(enumerate(jobs)), {}
    try:
        while True:
            while len(running) < plan.workers and not plan.over:
                number, job = next(queue, (None, None))
                if job is None:
                    break
                running[remote.remote(job, plan.every, plan.deadline)] = number
            if not running or plan.stopped():
                return
            ready, _ = ray.wait(list(running), num_returns=1, timeout=0.2)
            for task in ready:
                try:
                    yield running[task], ray.get(next(task))
                except StopIteration:
                    del running[task]
                except ray.exceptions.RayError as error:
                    yield running.pop(task), Broken(str(error))
    finally:
        for task in running:
            ray.cancel(task, force=True)
        if ours:
            ray.shutdown()


def _start(ray: Any, workers: int) -> None:
    options = {"include_dashboard": False, "log_to_driver": False, "logging_level": "error"}
    if "RAY_ADDRESS" in os.environ:
        ray.init(log_to_driver=False, logging_level="error")
    else:
        ray.init(num_cpus=workers, **options)
