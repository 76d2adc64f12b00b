"""A simple recurrent network trained by L-BFGS on a fixed set of sequences."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from gatewise.lab.baselines.models import MODELS, Candidate
from gatewise.lab.benchmarks import ALL
from gatewise.lab.experiment import Outcome, Progress, State, Work
from gatewise.lab.objective import Asked, draw, loss_and_errors, numbers

_SECONDS = 0.5


@dataclass(frozen=True)
class SecondOrder:
    """Full-batch L-BFGS with a strong Wolfe line search, restarted from new weights.

    Args:
        benchmark: a name in `benchmarks.ALL`.
        width: hidden units.
        sequences: of the training set.
        memory: updates that the approximate Hessian is made of.
        patience: iterations without a better loss after which new weights are drawn.
        test: fresh sequences, on which success is judged too: none of them may be wrong.
    """

    benchmark: str
    width: int = 32
    sequences: int = 1000
    memory: int = 20
    patience: int = 50
    test: int = 2560

    def budget(self, limit: int) -> str:
        """What a trial may spend, in words."""
        return (
            f"{self.width} units; evaluations on {self.sequences:,} sequences, {limit:,} in all, "
            "from new weights where it is stuck"
        )


def run(settings: SecondOrder, work: Work) -> Iterator[Progress | Outcome]:
    """One trial; every evaluation of the loss counts as so many training sequences."""
    [trial] = work.trials
    attempt = _Attempt(settings, work.seed_of(trial), work.state)
    spoken = time.perf_counter()
    while not attempt.solved and attempt.drawn < work.limit:
        attempt.step()
        if time.perf_counter() - spoken >= _SECONDS:
            spoken = time.perf_counter()
            done = min(1.0, attempt.drawn / work.limit)
            yield Progress(done, f"loss {attempt.best:.3g}", attempt.state_dict)
    found = {
        "weights": float(sum(p.numel() for p in attempt.model.parameters())),
        "test_wrong": float(attempt.wrong(attempt.fresh)),
        "test_count": float(settings.test),
        "restarts": float(attempt.restarts),
    }
    yield Outcome(trial, attempt.solved, attempt.drawn, found, tuple(attempt.curve))


class _Attempt:
    def __init__(self, settings: SecondOrder, seed: int, state: State | None) -> None:
        self.settings, self.seed = settings, seed
        benchmark = ALL[settings.benchmark]
        self.task = benchmark.task()
        self.tolerance = benchmark.criterion.tolerance
        data = seed % 2**31
        self.given = draw(self.task, settings.sequences, data)
        self.fresh = draw(self.task, settings.test, data, purpose=1)
        self.drawn = self.restarts = 0
        self.solved = False
        self.curve: list[tuple[int, float]] = []
        if state is not None:
            self.drawn, self.restarts = (int(n) for n in state["at"])
            self.curve = [(int(n), e) for n, e in state["curve"].tolist()]
        self._begin()

    def _begin(self) -> None:
        candidate = Candidate(self.settings.width, 0.0)
        self.model = MODELS["bptt"](self.task, candidate, [self.seed + self.restarts])
        self.optimiser = torch.optim.LBFGS(
            self.model.parameters(),
            max_iter=self.settings.patience,
            history_size=self.settings.memory,
            line_search_fn="strong_wolfe",
        )
        self.best, self.begun_at = float("inf"), self.drawn

    def _loss_and_errors(self, given: Asked) -> tuple[torch.Tensor, torch.Tensor]:
        x = numbers(self.task, given).unsqueeze(0)  # a model is several networks; this is one
        output = self.model(x, given.lengths.unsqueeze(0))[0]
        return loss_and_errors(self.task, output, given)

    def _loss(self) -> torch.Tensor:
        self.optimiser.zero_grad()
        loss, _ = self._loss_and_errors(self.given)
        loss.backward()
        self.drawn += self.settings.sequences
        return loss

    def step(self) -> None:
        """`patience` iterations; new weights where they have not helped."""
        self.optimiser.step(self._loss)
        with torch.no_grad():
            loss = float(self._loss_and_errors(self.given)[0])
        self.curve.append((self.drawn, loss))
        self.solved = self.wrong(self.given) == 0 and self.wrong(self.fresh) == 0
        if not self.solved and not loss < 0.999 * self.best:  # not a number is no better
            self.restarts += 1
            self._begin()
        else:
            self.best = loss

    @torch.no_grad()
    def wrong(self, given: Asked) -> int:
        """Sequences with an error above the tolerance."""
        errors = self._loss_and_errors(given)[1]
        return int((~(errors.amax(1) <= self.tolerance)).sum())

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Where the latest restart began: an interrupted one is run again from there."""
        kept = [(n, e) for n, e in self.curve if n <= self.begun_at]
        return {
            "at": torch.tensor([self.begun_at, self.restarts]),
            "curve": torch.tensor(kept, dtype=torch.float64).view(-1, 2),
        }
