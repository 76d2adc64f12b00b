"""The modern track: mini-batches, today's optimiser and initialisation, one recipe for every task.

A trial climbs through lengths: it begins with short sequences, and with those of twice the length
as soon as nearly all of the latest are right, until the length asked for. There the paper's
stopping rule decides.

Shapes: T = time, B = batch, I = input size, O = outputs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from gatewise.executors.lanes import Criterion
from gatewise.lab.curve import Curves
from gatewise.lab.experiment import Outcome, Progress, State, Track, Work
from gatewise.lab.families import FAMILIES
from gatewise.lab.judge import Judge
from gatewise.lab.kept import load_training_state, training_state, under
from gatewise.lab.modern.network import Network, Together, make_network
from gatewise.lab.objective import Asked, Source, draw, loss_and_errors, numbers
from gatewise.layers import Recurrent
from gatewise.learning import BPTT, HDetach

_TEST_BATCH = 64
_RIGHT = 0.99  # of these, for success at another length
_SECONDS = 1.0  # between two signs of progress
_SIDE_BY_SIDE = 5  # trials in one call of the kernel: with ten trials, two cores are busy
_SHORT = 1000  # steps; of longer sequences one trial alone fills the memory of a small machine


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
    rate: float = 2e-2
    decay: float = 500.0
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0
    init: tuple[str, ...] = ("orthogonal", "chrono")
    detach: float = 0.0
    climb: float = 0.9
    latest: int = 200


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
    """Trials side by side, their layers in one call of the kernel where the cell has one."""
    trials = [Trial(settings, work, n) for n in work.trials]
    if work.state is not None:
        for t in trials:
            t.load_state_dict(under(work.state, str(t.number)))
    spoken = time.perf_counter()
    for going in _until_over(trials):
        if time.perf_counter() - spoken >= _SECONDS:
            done = sum(t.drawn for t in trials) / (work.limit * len(trials))
            notes = "; ".join(t.note for t in going)
            yield Progress(min(1.0, done), notes, lambda: _state(trials))
            spoken = time.perf_counter()
    for t in trials:
        yield t.outcome()


def _until_over(trials: list[Trial]) -> Iterator[list[Trial]]:
    """Update all trials that are not over, and give them, until there are none."""
    going: list[Trial] = []
    networks: Together | None = None
    while True:
        left = [t for t in trials if not t.over]
        if not left:
            return
        if left != going:
            going = left
            networks = Together([t.net for t in going]) if _can_go_together(going) else None
        given = [t.draw() for t in going]
        xs = [numbers(t.task, g) for t, g in zip(going, given, strict=True)]
        lengths = [g.lengths for g in given]
        if networks is None:
            each = zip(going, xs, lengths, strict=True)
            outputs = [t.net(x, n, t.rule()) for t, x, n in each]
        else:
            outputs = networks(xs, lengths)
        losses = [t.judged(g, y) for t, g, y in zip(going, given, outputs, strict=True)]
        learning = [(t, loss) for t, loss in zip(going, losses, strict=True) if not t.solved]
        if learning:
            torch.stack([loss for _, loss in learning]).sum().backward()
        for t, _ in learning:
            t.step()
        yield going


def _can_go_together(trials: list[Trial]) -> bool:
    """Is there more than one recurrent layer, and nothing that differs in how they learn?"""
    t = trials[0]
    return len(trials) > 1 and isinstance(t.net.layer, Recurrent) and not t.settings.recipe.detach


def _state(trials: list[Trial]) -> dict[str, torch.Tensor]:
    return {f"{t.number}.{n}": v for t in trials for n, v in t.state_dict().items()}


TRACK = Track(
    "modern",
    "Any cell, mini-batches, one recipe of today",
    run,
    lambda settings: _SIDE_BY_SIDE if settings.length <= _SHORT else 1,
)


class Trial:
    """One network on its way through the lengths; it can be put aside between any two updates."""

    def __init__(self, settings: Settings, work: Work, number: int) -> None:
        s, self.settings, self.number, self.limit = settings, settings, number, work.limit
        self.seed = work.seed_of(number, s.series)
        self.family = FAMILIES[s.task]
        self.stages: list[Source] = [self.family.make(n) for n in s.lengths]
        longest = int(self.stages[-1].sequences(64, purpose=2).lengths.max())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(work.seed_of(number, f"{s.series}/weights"))
            self.net: Network = make_network(
                self.stages[-1], s.cell, s.hidden, s.layers, longest, s.recipe.init
            )
        self.adam = torch.optim.Adam(
            self.net.parameters(), s.recipe.rate, betas=s.recipe.betas, fused=True
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
        self.curve.add(0, self.drawn, self.judge.error)
        self.solved = self.met and self.last and self._confirmed()
        return loss

    def step(self) -> None:
        """Learn from the gradients; climb to the next length where the latest were right."""
        r = self.settings.recipe
        for group in self.adam.param_groups:
            group["lr"] = r.rate / (1 + (self.updates - 1) / r.decay)
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), r.clip)
        self.adam.step()
        self.adam.zero_grad()
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
        found = training_state("net", self.net, self.adam, self.judge)
        found["curve"] = self.curve.points.clone()
        found["at"] = torch.tensor([self.updates, self.stage, self.solved])
        return found

    def load_state_dict(self, state: State) -> None:
        """See `state_dict`."""
        self.updates, self.stage, solved = state["at"].tolist()
        self.solved = bool(solved)
        self.judge = self._judge()  # of this stage
        load_training_state(state, "net", self.net, self.adam, self.judge)
        self.curve.points = state["curve"].clone()
