"""A trial of a gradient-trained baseline: every configuration is tried, the best one goes on.

The search is part of the trial, on the trial's own seed: nothing was tuned behind the table. Each
candidate gets the same number of sequences; the one with the smallest error continues to the limit.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from gatewise.lab.baselines.learner import Learner
from gatewise.lab.baselines.models import MODELS, Candidate
from gatewise.lab.benchmarks import BENCHMARKS
from gatewise.lab.experiment import Outcome, Progress, State, Work
from gatewise.lab.objective import draw, loss_and_errors, numbers

_SECONDS = 0.5  # between two signs of progress


@dataclass(frozen=True)
class Search:
    """A method on a benchmark, and what is tried.

    Args:
        benchmark: a name in BENCHMARKS.
        method: a name in MODELS.
        widths, rates, extras: the candidates are their product; see `Candidate`.
        probe: training sequences that each candidate gets.
        batch: sequences per update.
        test: fresh sequences at the end, as many as in the paper.
    """

    benchmark: str
    method: str
    widths: tuple[int, ...] = (64,)
    rates: tuple[float, ...] = (3e-3, 1e-3)
    extras: tuple[float, ...] = (0.0,)
    probe: int = 20_000
    batch: int = 32
    test: int = 2560

    def __post_init__(self) -> None:
        for name, table in (("benchmark", BENCHMARKS), ("method", MODELS)):
            if getattr(self, name) not in table:
                raise ValueError(f"{name} must be one of {', '.join(table)}")

    @property
    def candidates(self) -> list[Candidate]:
        return [Candidate(*c) for c in itertools.product(self.widths, self.rates, self.extras)]


def run(settings: Search, work: Work) -> Iterator[Progress | Outcome]:
    """One trial."""
    [trial] = work.trials
    tried = Trial(settings, work.seed_of(trial), work.limit)
    if work.state is not None:
        tried.load_state_dict(work.state)
    spoken = time.perf_counter()
    while not tried.over:
        tried.step()
        if time.perf_counter() - spoken >= _SECONDS:
            spoken = time.perf_counter()
            yield Progress(tried.done, tried.note, tried.state_dict)
    yield tried.outcome(trial)


class Trial:
    """The search and what follows it, as one process that can be put aside at any step."""

    def __init__(self, settings: Search, seed: int, limit: int) -> None:
        self.settings, self.seed, self.limit = settings, seed, limit
        self.benchmark = BENCHMARKS[settings.benchmark]
        self.task = self.benchmark.task()
        self.candidates = settings.candidates
        self.errors: list[float] = []  # of the candidates that were tried
        self.best: dict[str, torch.Tensor] = {}
        self.final = False
        self.learner = self._make(0)

    def _make(self, number: int) -> Learner:
        s = self.settings
        return Learner(
            self.task,
            self.benchmark.criterion,
            s.method,
            self.candidates[number],
            self.seed,
            s.batch,
            self.limit,
        )

    @property
    def probe(self) -> int:
        return min(self.settings.probe, self.limit)

    @property
    def over(self) -> bool:
        return self.learner.solved or (self.final and self.learner.judge.sequences >= self.limit)

    def step(self) -> None:
        """One update of the candidate in hand; the next candidate where its share is used up."""
        self.learner.step()
        if self.final or self.learner.solved or self.learner.judge.sequences < self.probe:
            return
        error = self.learner.judge.error
        error = error if math.isfinite(error) else math.inf
        if not self.errors or error < min(self.errors):
            self.best = self.learner.state_dict()
        self.errors.append(error)
        if len(self.errors) < len(self.candidates):
            self.learner = self._make(len(self.errors))
        else:
            self._choose()

    def _choose(self) -> None:
        self.final = True
        self.learner = self._make(self.errors.index(min(self.errors)))
        self.learner.load_state_dict(self.best)

    @property
    def drawn(self) -> int:
        """Training sequences in all."""
        n = self.learner.judge.sequences
        tried = len(self.errors) - self.final
        return tried * self.probe + n

    @property
    def done(self) -> float:
        whole = (len(self.candidates) - 1) * self.probe + self.limit
        return min(1.0, self.drawn / whole)

    @property
    def note(self) -> str:
        n = self.learner.judge
        which = "best of" if self.final else f"{len(self.errors) + 1} of"
        return f"{which} {len(self.candidates)}: {n.wrong} wrong, error {n.error:.3g}"

    def outcome(self, trial: int) -> Outcome:
        """Tested on fresh sequences."""
        learner = self.learner
        tested = draw(self.task, self.settings.test, self.seed % 2**31, purpose=1)
        with torch.no_grad():
            output = learner.model(numbers(self.task, tested), tested.lengths)
        _, errors = loss_and_errors(self.task, output, tested)
        wrong = ~(errors.amax(1) <= self.benchmark.criterion.tolerance)
        found = {
            "weights": sum(p.numel() for p in learner.model.parameters()),
            "test_wrong": int(wrong.sum()),
            "test_count": self.settings.test,
            "width": learner.candidate.width,
            "rate": learner.candidate.rate,
            "drawn": self.drawn,
        }
        if learner.candidate.extra:
            found["extra"] = learner.candidate.extra
        return Outcome(trial, learner.solved, learner.judge.sequences, found, tuple(learner.curve))

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Everything the trial goes on from."""
        found = {f"now.{n}": t for n, t in self.learner.state_dict().items()}
        found |= {f"best.{n}": t for n, t in self.best.items()}
        found["errors"] = torch.tensor(self.errors, dtype=torch.float64)
        found["final"] = torch.tensor(self.final)
        return found

    def load_state_dict(self, state: State) -> None:
        """See `state_dict`."""
        self.errors, self.final = state["errors"].tolist(), bool(state["final"])
        self.best = {n[5:]: t for n, t in state.items() if n.startswith("best.")}
        number = self.errors.index(min(self.errors)) if self.final else len(self.errors)
        self.learner = self._make(number)
        now = {n[4:]: t for n, t in state.items() if n.startswith("now.")}
        self.learner.load_state_dict(now)
