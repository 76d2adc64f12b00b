"""The modern track: mini-batches, today's optimiser and initialisation, one recipe for every task.

A trial climbs through lengths: it begins with short sequences, and with those of twice the length
as soon as nearly all of the latest are right, until the length asked for. There the paper's
stopping rule decides.

Shapes: T = time, B = batch, H = hidden units, O = outputs.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from gatewise.executors.lanes import Criterion
from gatewise.lab.curve import Curves
from gatewise.lab.experiment import Outcome, Progress, State, Track, Work
from gatewise.lab.families import FAMILIES
from gatewise.lab.judge import Judge
from gatewise.lab.kept import under
from gatewise.lab.modern.fleet import Fleet
from gatewise.lab.modern.network import Network, make_network
from gatewise.lab.objective import Asked, Source, draw, loss_and_errors, numbers
from gatewise.layers import Recurrent
from gatewise.learning import BPTT, HDetach

_TEST_BATCH = 64
_RIGHT = 0.99  # of these, for success at another length
_SECONDS = 1.0  # between two signs of progress
_SIDE_BY_SIDE = 10  # trials
_AT_ONCE = 2**18  # T·B·H of one call of the kernel: what fits a core's cache
_POINT = 8  # updates between two points of a curve


@dataclass(frozen=True)
class Recipe:
    """How a network is trained, whatever the task.

    Args:
        batch: sequences of an update.
        rate: Adam's first step size.
        decay: updates after which it is half of that: rate / (1 + updates / decay).
        betas: Adam's.
        clip: largest norm of the gradient.
        init: initialisations of the layer, as `Recurrent` takes them; "chrono" stands for
            "chrono(longest sequence)". A cell that cannot have one goes without it.
        detach: h-detach's probability.
        climb: share of the latest `latest` sequences that must be right for the next length.
        latest: see `climb`; 0: no curriculum.
    """

    batch: int = 32
    rate: float = 4e-2
    decay: float = 500.0
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0
    init: tuple[str, ...] = ("orthogonal", "chrono")
    detach: float = 0.0
    climb: float = 0.96
    latest: int = 400


@dataclass(frozen=True)
class Settings:
    """A network, a task and a recipe.

    Args:
        task: a name in FAMILIES.
        length: of the sequences, at the end of the curriculum.
        cell: a cell, or "transformer".
        hidden: units of the LSTM layer whose number of weights the layer has, whatever the cell.
        layers: how many share these weights.
        further: lengths at which the trained network is tested too, without training.
        reach: one of these; there 99 % must be right for success. 0: not asked.
        recipe: how it is trained.
        series: which series of random numbers: a search has one of its own.
        test: fresh sequences at the end, as many as in the paper.

    Raises:
        ValueError: an unknown task, or a reach that is not tested.
    """

    task: str
    length: int
    cell: str = "lstm"
    hidden: int = 32
    layers: int = 1
    further: tuple[int, ...] = ()
    reach: int = 0
    recipe: Recipe = Recipe()
    series: str = "data"
    test: int = 2560

    def __post_init__(self) -> None:
        if self.task not in FAMILIES:
            raise ValueError(f"task must be one of {', '.join(FAMILIES)}, got {self.task!r}")
        if self.reach and self.reach not in self.further:
            raise ValueError(f"reach must be one of further = {self.further}, got {self.reach}")

    @property
    def lengths(self) -> list[int]:
        """The lengths of the curriculum: halves of the last, down to the family's first."""
        found, first = [self.length], FAMILIES[self.task].first
        while self.recipe.latest and found[0] > first:
            found.insert(0, max(first, found[0] // 2))
        return found


def run(settings: Settings, work: Work) -> Iterator[Progress | Outcome]:
    """Trials side by side; one that is solved drops out, and the others go on as before."""
    trials = [Trial(settings, work, n) for n in work.trials]
    if work.state is not None:
        for t in trials:
            t.load_state_dict(under(work.state, str(t.number)))
    spoken = time.perf_counter()
    for going in _until_over(settings.recipe, trials):
        if time.perf_counter() - spoken >= _SECONDS:
            done = sum(t.drawn for t in trials) / (work.limit * len(trials))
            notes = "; ".join(t.note for t in going)
            yield Progress(min(1.0, done), notes, lambda: _state(trials))
            spoken = time.perf_counter()
    for t in trials:
        yield t.outcome()


def _until_over(recipe: Recipe, trials: list[Trial]) -> Iterator[list[Trial]]:
    """Update all trials that are not over, and give them, until there are none."""
    if not (going := [t for t in trials if not t.over]):
        return
    fleet = _fleet(recipe, going)
    while going:
        _learn(fleet, going)
        left = [t for t in going if not t.solved]
        if not left:
            return
        if len(left) < len(going):
            fleet = _fleet(recipe, left)
        fleet.step(left[0].updates, left[0].rate, recipe.clip)
        for t in left:
            t.climb()
        going = [t for t in left if not t.over]  # at the limit none goes on: all began together
        yield going


def _fleet(recipe: Recipe, trials: list[Trial]) -> Fleet:
    return Fleet([t.net for t in trials], recipe.betas, trials[0].together)


def _learn(fleet: Fleet, trials: list[Trial]) -> None:
    """A batch for each trial: predicted, judged and, unless it solved the trial, differentiated."""
    rest = iter(trials)
    for part in fleet.parts:
        some = list(itertools.islice(rest, len(part.nets)))
        given = [t.draw() for t in some]
        xs = [numbers(t.task, g) for t, g in zip(some, given, strict=True)]
        outputs = part(xs, [g.lengths for g in given], [t.rule() for t in some])
        losses = [t.judged(g, y) for t, g, y in zip(some, given, outputs, strict=True)]
        learning = [loss for t, loss in zip(some, losses, strict=True) if not t.solved]
        if learning:
            torch.stack(learning).sum().backward()


def _state(trials: list[Trial]) -> dict[str, torch.Tensor]:
    return {f"{t.number}.{n}": v for t in trials for n, v in t.state_dict().items()}


TRACK = Track("modern", "Any cell, mini-batches, one recipe of today", run, lambda _: _SIDE_BY_SIDE)


class Trial:
    """One network on its way through the lengths; it can be put aside between any two updates."""

    def __init__(self, settings: Settings, work: Work, number: int) -> None:
        s, self.settings, self.number, self.limit = settings, settings, number, work.limit
        self.seed = work.seed_of(number, s.series)
        self.family = FAMILIES[s.task]
        self.stages: list[Source] = [self.family.make(n) for n in s.lengths]
        self.longest = int(self.stages[-1].sequences(64, purpose=2).lengths.max())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(work.seed_of(number, f"{s.series}/weights"))
            self.net: Network = make_network(
                self.stages[-1], s.cell, s.hidden, s.layers, self.longest, s.recipe.init
            )
        self.updates = self.stage = 0
        self.met = self.solved = False
        self.judge = self._judge()
        self.curve = Curves(1)

    def _judge(self) -> Judge:
        """The paper's rule at the last length, the recipe's before it."""
        rule, r = self.family.criterion, self.settings.recipe
        if not self.last:
            most = int((1 - r.climb) * r.latest)
            rule = Criterion(rule.tolerance, window=r.latest, most_wrong=most)
        return Judge(rule)

    @property
    def together(self) -> int:
        """Layers like this one that a call of the kernel should run."""
        layer, r = self.net.layer, self.settings.recipe
        if not isinstance(layer, Recurrent) or r.detach:
            return 1
        return max(1, _AT_ONCE // (self.longest * r.batch * layer.hidden_size))

    @property
    def task(self) -> Source:
        """What is trained on now."""
        return self.stages[self.stage]

    @property
    def last(self) -> bool:
        """Has it come to the length asked for?"""
        return self.stage == len(self.stages) - 1

    @property
    def drawn(self) -> int:
        """Training sequences so far."""
        return self.updates * self.settings.recipe.batch

    @property
    def rate(self) -> float:
        """Adam's step size for the latest batch."""
        r = self.settings.recipe
        return r.rate / (1 + (self.updates - 1) / r.decay)

    @property
    def over(self) -> bool:
        return self.solved or self.drawn >= self.limit

    @property
    def note(self) -> str:
        j = self.judge
        return f"{self.task.name}: {j.wrong} wrong, error {j.error:.3g}"

    # -- an update: draw, predict, judge, learn --------------------------------------------

    def draw(self) -> Asked:
        """The next batch."""
        return draw(self.task, self.settings.recipe.batch, self.seed, self.drawn)

    def rule(self) -> BPTT | HDetach:
        """How the next batch is differentiated."""
        p = self.settings.recipe.detach
        return HDetach(p, self.seed + self.updates) if p else BPTT()

    def judged(self, given: Asked, output: torch.Tensor) -> torch.Tensor:
        """The loss of a batch; after it the trial may be solved, and learns no more."""
        loss, errors = loss_and_errors(self.task, output, given)
        self.met = self.judge.see(errors)
        self.updates += 1
        self.solved = self.met and self.last and self._confirmed()
        if self.solved or self.updates % _POINT == 1:
            self.curve.add(0, self.drawn, self.judge.error)
        return loss

    def climb(self) -> None:
        """To the next length, where the latest were right."""
        if self.met:
            self.stage += not self.last
            self.judge = self._judge()

    def _confirmed(self) -> bool:
        """Are the fixed sets of the family, where it has any, right too?"""
        sets = self.family.sets
        return not sets or self.test(self.stages[-1], sets)[0] == 0

    # -- how it ended --------------------------------------------------------------------

    def outcome(self) -> Outcome:
        """Tested on fresh sequences, of other lengths too, if it came as far as the last length."""
        found: dict[str, float] = {
            "weights": sum(p.numel() for p in self.net.parameters()),
            "updates": self.updates,
            "length": self.settings.lengths[self.stage],
        }
        success = self.solved
        if self.last:
            count = self.settings.test
            wrong, error = self.test(self.stages[-1], count)
            found |= {"test_wrong": wrong, "test_count": count, "test_error": error}
            for n in self.settings.further:
                few = max(1, count // 5)
                wrong, _ = self.test(self.family.make(n), few)
                found[f"right_at_{n}"] = right = 1 - wrong / few
                success = success and (right >= _RIGHT or n != self.settings.reach)
        return Outcome(self.number, success, self.drawn, found, self.curve.of(0))

    def test(self, task: Source, count: int) -> tuple[int, float]:
        """Wrong ones of `count` fresh sequences, and their mean |error|."""
        judge = Judge(replace(self.family.criterion, window=count, measure="absolute"))
        with torch.no_grad():
            for first in range(0, count, _TEST_BATCH):
                given = draw(task, min(_TEST_BATCH, count - first), self.seed, first, purpose=1)
                output = self.net(numbers(task, given), given.lengths)
                judge.see(loss_and_errors(task, output, given)[1])
        return judge.wrong, judge.error

    # -- putting it aside ----------------------------------------------------------------

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Everything training goes on from."""
        parts = {"net": self.net.state_dict(), "judge": self.judge.state_dict()}
        found = {f"{part}.{n}": t.clone() for part, own in parts.items() for n, t in own.items()}
        found["curve"] = self.curve.points.clone()
        found["at"] = torch.tensor([self.updates, self.stage, self.solved])
        return found

    def load_state_dict(self, state: State) -> None:
        """See `state_dict`."""
        self.updates, self.stage, solved = state["at"].tolist()
        self.solved = bool(solved)
        self.judge = self._judge()  # of this stage
        self.judge.load_state_dict(under(state, "judge"))
        self.net.load_state_dict(under(state, "net"))
        self.curve.points = state["curve"].clone()
