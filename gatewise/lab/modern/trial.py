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

from gatewise.lab.course import Course
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
_TEST, _CHECK = 1, 3  # purposes of random numbers; training has 0
_RIGHT = 0.99  # for success at another length
_CHECKED = 200  # sequences of that length, whenever the rule is met
_SECONDS = 1.0  # between two signs of progress
_SIDE_BY_SIDE = 10  # trials
_AT_ONCE = 2**18  # T·B·H of one call of the kernel: what fits a core's cache


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
        reach: one of these; a network learns on until 99 % are right there too, and only then has
            succeeded. 0: not asked.
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
        family = FAMILIES[self.task]
        return family.lengths(self.length, family.first) if self.recipe.latest else [self.length]


def run(settings: Settings, work: Work) -> Iterator[Progress | Outcome]:
    """Trials side by side; one that is solved drops out, and the others go on as before."""
    trials = [Trial(settings, work, n) for n in work.trials]
    if work.state is not None:
        for t in trials:
            t.load_state_dict(under(work.state, str(t.number)))
    told: set[int] = set()
    spoken = time.perf_counter()
    for going in _until_over(settings.recipe, trials):
        for t in (t for t in trials if t.over and t.number not in told):
            told.add(t.number)
            yield t.outcome()
        if time.perf_counter() - spoken >= _SECONDS:
            done = sum(t.drawn for t in trials) / (work.limit * len(trials))
            notes = "; ".join(t.note for t in going)
            yield Progress(min(1.0, done), notes, lambda: _state(trials))
            spoken = time.perf_counter()
    for t in (t for t in trials if t.number not in told):
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
        going = [t for t in left if not t.over]  # at the limit none goes on: all began together
        yield going


def _fleet(recipe: Recipe, trials: list[Trial]) -> Fleet:
    return Fleet([t.net for t in trials], recipe.betas, trials[0].together)


def _learn(fleet: Fleet, trials: list[Trial]) -> None:
    """A batch for each trial: predicted, judged and, unless it solved the trial, differentiated."""
    rest = iter(trials)
    for part in fleet.parts:
        some = list(itertools.islice(rest, len(part.nets)))
        tasks = [t.course.task for t in some]  # another when they have climbed
        given = [t.course.draw() for t in some]
        xs = [numbers(*pair) for pair in zip(tasks, given, strict=True)]
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
        s, r = settings, settings.recipe
        self.settings, self.number, self.limit = settings, number, work.limit
        self.seed = work.seed_of(number, s.series)
        self.family = FAMILIES[s.task]
        self.course = Course(self.family, s.lengths, self.seed, r.batch, r.climb, r.latest)
        self.asked: Source = self.course.stages[-1]
        self.longest = int(self.asked.sequences(64, purpose=2).lengths.max())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(work.seed_of(number, f"{s.series}/weights"))
            self.net: Network = make_network(
                self.asked, s.cell, s.hidden, s.layers, self.longest, r.init
            )
        self.solved = False

    @property
    def together(self) -> int:
        """Layers like this one that a call of the kernel should run."""
        layer, r = self.net.layer, self.settings.recipe
        if not isinstance(layer, Recurrent) or r.detach:
            return 1
        return max(1, _AT_ONCE // (self.longest * r.batch * layer.hidden_size))

    @property
    def drawn(self) -> int:
        """Training sequences so far."""
        return self.course.sequences

    @property
    def updates(self) -> int:
        return self.drawn // self.settings.recipe.batch

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
        j = self.course.judge
        return f"{self.course.task.name}: {j.wrong} wrong, error {j.error:.3g}"

    # -- an update: draw, predict, judge, learn --------------------------------------------

    def rule(self) -> BPTT | HDetach:
        """How the next batch is differentiated."""
        p = self.settings.recipe.detach
        return HDetach(p, self.seed + self.updates) if p else BPTT()

    def judged(self, given: Asked, output: torch.Tensor) -> torch.Tensor:
        """The loss of a batch; after it the trial may be solved, and learns no more."""
        loss, errors = loss_and_errors(self.course.task, output, given)
        if self.course.see(errors):
            self.solved = self._confirmed()
            if not self.solved:
                self.course.insist()
        return loss

    def _confirmed(self) -> bool:
        """Are the fixed sets of the family right too, and sequences of the length to be reached?"""
        if (sets := self.family.sets) and self.test(self.asked, sets)[0]:
            return False
        if not (reach := self.settings.reach):
            return True
        return self.test(self.family.make(reach), _CHECKED, _CHECK)[0] <= (1 - _RIGHT) * _CHECKED

    # -- how it ended --------------------------------------------------------------------

    def outcome(self) -> Outcome:
        """Tested on fresh sequences, of other lengths too, if it came as far as the last length."""
        found: dict[str, float] = {
            "weights": sum(p.numel() for p in self.net.parameters()),
            "updates": self.updates,
            "length": self.course.length,
        }
        success = self.solved
        if self.course.last:
            count = self.settings.test
            wrong, error = self.test(self.asked, count)
            found |= {"test_wrong": wrong, "test_count": count, "test_error": error}
            for n in self.settings.further:
                few = max(1, count // 5)
                wrong, _ = self.test(self.family.make(n), few)
                found[f"right_at_{n}"] = right = 1 - wrong / few
                success = success and (right >= _RIGHT or n != self.settings.reach)
        return Outcome(self.number, success, self.drawn, found, self.course.curve.of(0))

    def test(self, task: Source, count: int, purpose: int = _TEST) -> tuple[int, float]:
        """Wrong ones of `count` fresh sequences, and their mean |error|."""
        judge = Judge(replace(self.family.criterion, window=count, measure="absolute"))
        with torch.no_grad():
            for first in range(0, count, _TEST_BATCH):
                given = draw(task, min(_TEST_BATCH, count - first), self.seed, first, purpose)
                output = self.net(numbers(task, given), given.lengths)
                judge.see(loss_and_errors(task, output, given)[1])
        return judge.wrong, judge.error

    # -- putting it aside ----------------------------------------------------------------

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Everything training goes on from."""
        parts = {"net": self.net.state_dict(), "course": self.course.state_dict()}
        found = {f"{part}.{n}": t.clone() for part, own in parts.items() for n, t in own.items()}
        found["solved"] = torch.tensor(self.solved)
        return found

    def load_state_dict(self, state: State) -> None:
        """See `state_dict`."""
        self.solved = bool(state["solved"])
        self.course.load_state_dict(under(state, "course"))
        self.net.load_state_dict(under(state, "net"))
