"""Who does what: how threads divide one call of a kernel, or equal calls that share an input.

Shapes: T = time, B = batch, I = input size, H = hidden units. Time first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from gatewise.executors.cpu.kernel import Kernel, Team
from gatewise.executors.request import Request

# Below this many multiplications a second thread costs more than it brings (some 40 µs).
_PARALLEL_FROM = 1_000_000
# Few rows: threads share the units instead, and meet once a step, which costs some 0.3 µs.
_SPLIT_FROM = 60_000  # multiplications a step
# So few rows a thread: calls go side by side, and threads need not meet at every step.
_SIDE_BELOW = 2


class Work(NamedTuple):
    """What is to be divided: some calls of one kernel, equal in shape."""

    calls: int
    networks: int  # of each call; 0: one, with no dimension for it
    steps: int
    batch: int
    vectors: int  # of hidden units
    products: int  # multiplications of one network's call
    phased: bool  # phases sum over all units of a row, which stay with one thread

    @classmethod
    def of(cls, requests: Sequence[Request], made: Kernel) -> Work:
        request = requests[0]
        steps, batch, inputs = request.x.shape[-3:]
        hidden = request.weights.weight_ih.shape[-2] // len(request.trace.gates)
        products = steps * batch * len(made.accumulators) * hidden * (inputs + hidden)
        vectors = -(-hidden // made.lanes)
        return cls(
            len(requests),
            request.replicas,
            steps,
            batch,
            vectors,
            products,
            phased=bool(made.collected),
        )


class Share(NamedTuple):
    """Who does what."""

    team: Team
    threads: int  # of each call
    split: bool  # they share the units, not the rows


def share(work: Work) -> Share:
    """Calls side by side where that is faster; networks over the threads, if there are enough."""
    threads = torch.get_num_threads()
    crews = 1 if in_turn(work) else work.calls
    own, split = _divide(work, threads // crews)
    units = work.calls * work.networks
    if units >= threads and units * work.products >= _PARALLEL_FROM:
        crews = threads
    return Share(Team(work.networks, crews, threads), own, split)


def in_turn(work: Work) -> str:
    """Why calls are made one after the other, each on all threads; empty: side by side.

    Side by side no thread waits for another at every step. On two threads that is the faster way
    where there are too few rows to go round: by 7 to 12 % for one row and 128 units, by a quarter
    for 32. With rows for every thread it was 0 to 8 % slower, from 32 units to 512.
    """
    threads = torch.get_num_threads()
    if work.calls == 1:
        return "there is one call"
    if threads < work.calls:
        return "there is one thread"
    if threads % work.calls:
        return f"{threads} threads are not shared evenly"
    if work.calls * work.products < _PARALLEL_FROM:
        return "there is too little work for a second thread"
    if work.batch >= _SIDE_BELOW * threads:
        return "there are rows enough for every thread"
    return ""


def in_words(work: Work) -> str:
    """How the call of one direction and that of the other are made."""
    why = in_turn(work)
    return f"in turn with the other direction: {why}" if why else "beside the other direction"


def _divide(work: Work, threads: int) -> tuple[int, bool]:
    """How many of `threads` work at a call, and whether they split the units (few rows)."""
    if threads == 1 or work.products < _PARALLEL_FROM:
        return 1, False
    few = work.batch < 2 * threads and work.products >= _SPLIT_FROM * work.steps
    if few and work.vectors >= threads and not work.phased:
        return threads, True
    return min(threads, work.batch), False
