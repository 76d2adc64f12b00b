"""Networks of one configuration, one for each of several trials, that learn side by side.

A step of all of them is one call of the kernel and one step of one optimiser; each learns what it
would learn alone. Shapes: N = networks, T = time, B = batch, I = input size, O = outputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn.functional import pad

from gatewise.lab.baselines.models import MODELS, Candidate, RecurrentModel
from gatewise.lab.baselines.vanishing import vanishing
from gatewise.lab.benchmarks import Benchmark
from gatewise.lab.course import Course
from gatewise.lab.experiment import State
from gatewise.lab.kept import load_network_state, network_state, under
from gatewise.lab.objective import Asked, draw, loss_and_errors, numbers, tested

CLIP = 1.0  # largest norm of a network's gradient
_LOOK = 32  # updates between two looks at fixed sets


class Stack:
    """Adam with clipped gradients; every trial on its own stream, at its own length.

    Args:
        benchmark: what to learn.
        method: a name in MODELS.
        candidate: the configuration.
        seeds: trial -> seed of its weights and data.
        batch: sequences of an update.
        limit: most sequences: the step falls to zero towards it, along a cosine.
    """

    def __init__(
        self,
        benchmark: Benchmark,
        method: str,
        candidate: Candidate,
        seeds: Mapping[int, int],
        batch: int,
        limit: int,
    ) -> None:
        self.benchmark, self.method, self.candidate = benchmark, method, candidate
        self.seeds, self.limit, self.batch = dict(seeds), limit, batch
        self.task, self.family = benchmark.task(), benchmark.of
        self.courses = {
            trial: Course(self.family, benchmark.lengths, seed % 2**31, batch)
            for trial, seed in seeds.items()
        }
        self.sets = draw(self.task, self.family.sets, 0, purpose=1) if self.family.sets else None
        self.sequences = 0  # that each network has learnt from
        self._build(list(seeds))

    def _build(self, trials: list[int]) -> None:
        """New networks for these trials, those that go on; with none left, nothing learns."""
        self.going = trials
        if not trials:
            return
        self.model = self._model(trials)
        self.adam = torch.optim.Adam(self.model.parameters(), self.candidate.rate, fused=True)

    def _model(self, trials: list[int]) -> nn.Module:
        return MODELS[self.method](self.task, self.candidate, [self.seeds[t] for t in trials])

    # -- learning --------------------------------------------------------------------------

    def step(self, test: int) -> dict[int, dict[str, float]]:
        """One update of every network; the trials that had succeeded before it, tested."""
        courses = [self.courses[trial] for trial in self.going]
        given = [c.draw() for c in courses]
        xs = [numbers(c.task, g) for c, g in zip(courses, given, strict=True)]
        steps = max(map(len, xs))
        x = torch.stack([pad(x, (0, 0, 0, 0, 0, steps - len(x))) for x in xs])
        lengths = torch.stack([g.lengths for g in given])
        outputs = self.model(x, lengths)
        losses, solved = [], []
        for trial, course, g, y in zip(self.going, courses, given, outputs, strict=True):
            asked = y[: len(g.x)] if self.task.every_step else y
            loss, errors = loss_and_errors(course.task, asked, g)
            losses.append(loss)
            if course.see(errors):
                solved.append(trial)
        self.sequences += self.batch
        if self.sets is not None:
            solved = self._right_on(self.sets)
        self._differentiate(torch.stack(losses), lengths)
        found = {trial: self.tested(trial, test) for trial in solved}
        self.adam.step()
        return found

    def _differentiate(self, loss: torch.Tensor, lengths: torch.Tensor) -> None:
        """Clipped gradients, and the step size for them."""
        if self.method == "pascanu":
            assert isinstance(self.model, RecurrentModel)
            loss = loss + self.candidate.extra * vanishing(self.model, loss, lengths)
        self.adam.zero_grad()
        loss.sum().backward()
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0).sqrt()  # [N]
        share = (CLIP / (norm + 1e-6)).clamp(max=1.0)
        for g in gradients:
            g *= share.view(-1, *[1] * (g.dim() - 1))
        done = min(1.0, (self.sequences - self.batch) / self.limit)
        for group in self.adam.param_groups:
            group["lr"] = self.candidate.rate * 0.5 * (1 + math.cos(math.pi * done))

    def _right_on(self, given: Asked) -> list[int]:
        """Now and then: the trials that are right on all of these sequences."""
        if self.sequences // self.batch % _LOOK:
            return []
        x, n = numbers(self.task, given), len(self.going)
        with torch.no_grad():
            outputs = self.model(x.expand(n, *x.shape), given.lengths.expand(n, -1))
        tolerance = self.family.criterion.tolerance
        errors = [loss_and_errors(self.task, y, given)[1] for y in outputs]
        return [t for t, e in zip(self.going, errors, strict=True) if bool((e <= tolerance).all())]

    # -- what came of it -------------------------------------------------------------------

    def standing(self, trial: int) -> tuple[int, float]:
        """The length a trial has come to, and minus its error there: the larger the better."""
        course = self.courses[trial]
        error = course.judge.error
        return course.stage, -error if math.isfinite(error) else -math.inf

    def tested(self, trial: int, count: int) -> dict[str, float]:
        """A trial's network on fresh sequences of the length asked for."""
        alone = self._model([trial])
        alone.load_state_dict(under(self._state_of([trial]), "model"))
        wrong, error = tested(
            self.task,
            lambda x, lengths: alone(x.unsqueeze(0), lengths.unsqueeze(0))[0],
            self.family.criterion.tolerance,
            count,
            self.courses[trial].seed,
        )
        weights = sum(p.numel() for p in alone.parameters())
        return {
            "weights": weights,
            "test_wrong": wrong,
            "test_count": count,
            "test_error": error,
        }

    # -- putting it aside ------------------------------------------------------------------

    def keep(self, trials: Sequence[int]) -> None:
        """Go on with these trials alone."""
        state = self._state_of(list(trials))
        self._build(list(trials))
        self._load(state)

    def _state_of(self, trials: list[int]) -> dict[str, torch.Tensor]:
        """Of the networks of these trials, weights and Adam's numbers."""
        at = [self.going.index(t) for t in trials]
        found = network_state(self.model, self.adam) if at else {}
        return {n: v[at] if v.dim() else v for n, v in found.items()}

    def _load(self, state: State) -> None:
        if self.going:
            load_network_state(state, self.model, self.adam)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Everything that training goes on from."""
        found = self._state_of(self.going)
        found["going"] = torch.tensor(self.going, dtype=torch.int64)
        found["sequences"] = torch.tensor(self.sequences)
        for trial, course in self.courses.items():
            found |= {f"course.{trial}.{n}": t for n, t in course.state_dict().items()}
        return found

    def load_state_dict(self, state: State) -> None:
        """See `state_dict`."""
        self.sequences = int(state["sequences"])
        self._build(state["going"].tolist())
        self._load(state)
        for trial, course in self.courses.items():
            course.load_state_dict(under(state, f"course.{trial}"))
