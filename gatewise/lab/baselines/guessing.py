"""Random weight guessing: draw networks until one happens to solve the task.

What guessing solves shows nothing about learning (Hochreiter & Schmidhuber, Bridging long time
lags by weight guessing and "long short-term memory", 1996).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from gatewise import tasks
from gatewise.cells import RNN
from gatewise.equations.functions import sigmoid
from gatewise.executors.lanes import Lanes, Network
from gatewise.lab.experiment import Outcome, Progress, Work
from gatewise.lab.objective import Source

_TOGETHER = 256  # networks drawn at once
_FIRST = 16  # sequences that weed out nearly all of them
_SECONDS = 0.5


@dataclass(frozen=True)
class Guess:
    """A small logistic network whose weights are drawn uniformly in ± `bound`.

    Args:
        task: a function of `gatewise.tasks`, and its arguments.
        tolerance: largest |t - y| of a sequence that is right.
        units: hidden units.
        bound: of weights and biases; the 1996 paper's is 100.
        criterion: fresh sequences that a network must all get right.
        test: fresh sequences at the end.
    """

    task: str
    arguments: dict[str, float | int] = field(default_factory=dict)
    tolerance: float = 0.2
    units: int = 2
    bound: float = 100.0
    criterion: int = 256
    test: int = 2560

    def budget(self, limit: int) -> str:
        """What a trial may spend, in words."""
        return f"{self.units} units; up to {limit:,} networks drawn"

    def make(self) -> Source:
        return getattr(tasks, self.task)(**self.arguments)

    def network(self) -> Network:
        task = self.make()
        names = ("inputs", "outputs", "symbols", "target_symbols", "every_step")
        shape = {n: getattr(task, n) for n in names}
        return Network(RNN(sigmoid), units=self.units, head_bias=True, **shape)


def run(settings: Guess, work: Work) -> Iterator[Progress | Outcome]:
    """One trial; its limit is the number of networks drawn, each a "sequence" of the record."""
    [trial] = work.trials
    task, network = settings.make(), settings.network()
    seed = work.seed_of(trial) % 2**31
    lanes = Lanes(network, _TOGETHER, 0.0)
    drawn = 0 if work.state is None else int(work.state["drawn"])
    found: int | None = None
    spoken = time.perf_counter()
    while found is None and drawn < work.limit:
        lanes.load(_weights(settings, network, work.generator(trial, str(drawn))))
        found = _solver(settings, lanes, task, seed)
        drawn += _TOGETHER
        if time.perf_counter() - spoken >= _SECONDS:
            spoken = time.perf_counter()
            at = torch.tensor(drawn)
            yield Progress(drawn / work.limit, f"{drawn:,} drawn", lambda at=at: {"drawn": at})
    numbers = {"weights": float(network.weights)}
    if found is not None:
        one = {n: p[found] for n, p in lanes.parameters().items()}
        lanes.load(one)
        wrong = _wrong(lanes, task, settings, settings.test, 2, seed)
        numbers |= {"test_wrong": float(wrong[0]), "test_count": float(settings.test)}
        drawn += found + 1 - _TOGETHER
    yield Outcome(trial, found is not None, drawn, numbers)


def _weights(settings: Guess, network: Network, draw: torch.Generator) -> dict[str, torch.Tensor]:
    return {
        n: (2 * torch.rand(_TOGETHER, *shape, generator=draw) - 1) * settings.bound
        for n, shape in network.shapes().items()
    }


def _solver(settings: Guess, lanes: Lanes, task: Source, seed: int) -> int | None:
    """The first network that gets everything right."""
    if not (_wrong(lanes, task, settings, _FIRST, 1, seed) == 0).any():
        return None
    right = _wrong(lanes, task, settings, settings.criterion, 1, seed) == 0
    return int(right.nonzero()[0]) if right.any() else None


def _wrong(
    lanes: Lanes, task: Source, settings: Guess, count: int, purpose: int, seed: int
) -> torch.Tensor:
    """Of `count` sequences, how many each network gets wrong, [N]."""
    worst = lanes.run(task.sequences(count, seed, purpose=purpose)).worst
    return (~(worst <= settings.tolerance)).sum(1)  # NaN is wrong
