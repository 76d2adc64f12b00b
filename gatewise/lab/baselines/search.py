"""Trials of a gradient-trained baseline: every configuration is tried, the best one goes on.

The search is part of the trial, on the trial's own seed: nothing was tuned behind the table. Each
candidate gets the same number of sequences; the one that has come farthest (the longest sequences,
then the smallest error) continues to the limit. The trials of a candidate learn side by side.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from gatewise.lab.baselines.budget import either
from gatewise.lab.baselines.models import EXTRAS, MODELS, Candidate
from gatewise.lab.baselines.stack import Stack
from gatewise.lab.benchmarks import ALL
from gatewise.lab.experiment import Outcome, Progress, State, Work
from gatewise.lab.kept import under

_SECONDS = 0.5  # between two signs of progress


@dataclass(frozen=True)
class Search:
    """A method on a benchmark, and what is tried.

    Args:
        benchmark: a name in `benchmarks.ALL`.
        method: a name in MODELS.
        widths, rates, extras: the candidates are their product; see `Candidate`.
        probe: training sequences that each candidate gets.
        batch: sequences per update.
        test: fresh sequences at the end, as many as in the paper.

    Raises:
        ValueError: no such benchmark or method.
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
        for name, table in (("benchmark", ALL), ("method", MODELS)):
            if getattr(self, name) not in table:
                raise ValueError(f"{name} must be one of {', '.join(table)}")

    def budget(self, limit: int) -> str:
        """What a trial may spend, in words."""
        tried = f"rate {either(self.rates)}"
        if self.method in EXTRAS:
            tried += f" with {EXTRAS[self.method]} {either(self.extras)}"
        return (
            f"{either(self.widths)} units; {tried}, each tried on {self.probe:,} sequences, the "
            f"best of them on up to {limit:,}"
        )

    @property
    def candidates(self) -> list[Candidate]:
        return [Candidate(*c) for c in itertools.product(self.widths, self.rates, self.extras)]


def run(settings: Search, work: Work) -> Iterator[Progress | Outcome]:
    """All trials of the work."""
    trials = _Trials(settings, work)
    if work.state is not None:
        trials.load_state_dict(work.state)
    spoken = time.perf_counter()
    for outcomes in trials:
        yield from outcomes
        if time.perf_counter() - spoken >= _SECONDS:
            spoken = time.perf_counter()
            yield Progress(trials.done, trials.note, trials.state_dict)


class _Trials:
    """Their search and what follows it; can be put aside between any two updates.

    With C candidates there are 2 C turns: in the first C each is tried, in the others each goes on
    with the trials whose best it is.
    """

    def __init__(self, settings: Search, work: Work) -> None:
        self.settings, self.work = settings, work
        self.candidates = settings.candidates
        self.probe = min(settings.probe, work.limit)
        self.turn = 0
        self.ended: set[int] = set()
        self.chosen: dict[int, int] = {}  # trial -> its best candidate, once all were tried
        self.stacks: list[Stack] = []

    def _stack(self, number: int, trials: list[int]) -> Stack:
        s, seeds = self.settings, {t: self.work.seed_of(t) for t in trials}
        candidate = self.candidates[number]
        return Stack(ALL[s.benchmark], s.method, candidate, seeds, s.batch, self.work.limit)

    @property
    def left(self) -> list[int]:
        """Trials that have not ended."""
        return [t for t in self.work.trials if t not in self.ended]

    def __iter__(self) -> Iterator[list[Outcome]]:
        """Update after update; the trials that end with it."""
        count = len(self.candidates)
        while self.turn < 2 * count and self.left:
            number, final = self.turn % count, self.turn >= count
            if number == len(self.stacks):
                self.stacks.append(self._stack(number, self.left))
            if final and not self.chosen:
                self.chosen = {t: self._best(t) for t in self.left}
            stack = self.stacks[number]
            mine = [t for t in self.left if not final or self.chosen[t] == number]
            if mine != stack.going:
                stack.keep(mine)
            while stack.going and stack.sequences < (self.work.limit if final else self.probe):
                yield self._step(stack)
            if final:
                yield [self._failed(stack, t) for t in stack.going]
                self.ended.update(stack.going)
            self.turn += 1

    def _best(self, trial: int) -> int:
        """The candidate that came farthest; of equal ones the first."""
        standings = [s.standing(trial) for s in self.stacks]
        return standings.index(max(standings))

    def _step(self, stack: Stack) -> list[Outcome]:
        solved = stack.step(self.settings.test)
        if solved:
            self.ended.update(solved)
            stack.keep([t for t in stack.going if t not in solved])
        return [self._outcome(stack, t, True, found) for t, found in solved.items()]

    def _failed(self, stack: Stack, trial: int) -> Outcome:
        return self._outcome(stack, trial, False, stack.tested(trial, self.settings.test))

    def _outcome(self, stack: Stack, trial: int, success: bool, found: dict[str, float]) -> Outcome:
        course, c = stack.courses[trial], stack.candidate
        found |= {
            "length": course.length,
            "width": c.width,
            "rate": c.rate,
            "drawn": self.drawn(trial),
        }
        if c.extra:
            found["extra"] = c.extra
        return Outcome(trial, success, course.sequences, found, course.curve.of(0))

    def drawn(self, trial: int) -> int:
        """Training sequences of a trial, of all its candidates."""
        return sum(s.courses[trial].sequences for s in self.stacks if trial in s.courses)

    @property
    def done(self) -> float:
        """Share of the sequences of all trials that is behind them, or will not be needed."""
        most = (len(self.candidates) - 1) * self.probe + self.work.limit
        each = [1.0 if t in self.ended else self.drawn(t) / most for t in self.work.trials]
        return min(1.0, sum(each) / len(each))

    @property
    def note(self) -> str:
        """The candidate in hand, and how far its trials have come."""
        number = self.turn % len(self.candidates)
        stack = self.stacks[number]
        if not stack.going:
            return f"{len(self.ended)} ended"
        lengths = [stack.courses[t].length for t in stack.going]
        error = min(stack.courses[t].judge.error for t in stack.going)
        which = "with" if self.turn >= len(self.candidates) else "trying"
        at = f"length {min(lengths)} to {max(lengths)}, error {error:.3g}"
        return f"{len(self.ended)} ended; {which} {stack.candidate}: {at}"

    # -- putting it aside ------------------------------------------------------------------

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Everything the trials go on from."""
        found = {
            "turn": torch.tensor(self.turn),
            "ended": torch.tensor(sorted(self.ended), dtype=torch.int64),
            "chosen": torch.tensor(list(self.chosen.items()), dtype=torch.int64).view(-1, 2),
        }
        for k, stack in enumerate(self.stacks):
            found |= {f"{k}.{n}": t for n, t in stack.state_dict().items()}
            found[f"{k}.trials"] = torch.tensor(list(stack.courses))
        return found

    def load_state_dict(self, state: State) -> None:
        """See `state_dict`."""
        self.turn, self.ended = int(state["turn"]), set(state["ended"].tolist())
        self.chosen = dict(state["chosen"].tolist())
        self.stacks = []
        while (k := len(self.stacks)) < len(self.candidates) and f"{k}.trials" in state:
            stack = self._stack(k, state[f"{k}.trials"].tolist())
            stack.load_state_dict(under(state, str(k)))
            self.stacks.append(stack)
