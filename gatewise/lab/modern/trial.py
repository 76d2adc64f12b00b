"""The modern track: mini-batches, today's optimiser and initialisation, one recipe for every task.

A trial climbs through lengths: it begins with short sequences, and with those of twice the length
as soon as nearly all of the latest are right, until the length asked for. There the paper's
stopping rule decides.

Shapes: T = time, B = batch, I = input size, O = outputs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch

from gatewise.executors.lanes import Criterion
from gatewise.lab.experiment import Outcome, Progress, State, Track, Work
from gatewise.lab.families import FAMILIES
from gatewise.lab.judge import Judge
from gatewise.lab.modern.network import Network, make_network
from gatewise.lab.objective import Source, loss_and_errors, numbers
from gatewise.learning import BPTT, HDetach

_TEST_BATCH = 64
_RIGHT = 0.99  # of these, for success at another length
_SECONDS = 1.0  # between two signs of progress
_POINTS = 256  # of a curve, at most


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
    """One trial."""
    [number] = work.trials
    seeds = [work.seed_of(number, f"{settings.series}{of}") for of in ("", "/weights")]
    trial = Trial(settings, *seeds)
    if work.state is not None:
        trial.load_state_dict(work.state)
    spoken = time.perf_counter()
    while not trial.solved and trial.drawn < work.limit:
        trial.update()
        if time.perf_counter() - spoken >= _SECONDS:
            yield Progress(min(1.0, trial.drawn / work.limit), trial.note, trial.state_dict)
            spoken = time.perf_counter()
    yield trial.outcome(number)


TRACK = Track("modern", "Any cell, mini-batches, one recipe of today", run)


class Trial:
    """One network on its way through the lengths; it can be put aside between any two updates."""

    def __init__(self, settings: Settings, seed: int, weights: int) -> None:
        s, self.settings, self.seed = settings, settings, seed
        self.family = FAMILIES[s.task]
        self.stages: list[Source] = [self.family.make(n) for n in s.lengths]
        self.longest = int(self.stages[-1].sequences(64, seed, purpose=2).lengths.max())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(weights)
            self.net: Network = make_network(
                self.stages[-1], s.cell, s.hidden, s.layers, self.longest, s.recipe.init
            )
        self.adam = torch.optim.Adam(
            self.net.parameters(), s.recipe.rate, betas=s.recipe.betas, fused=True
        )
        self.updates = self.stage = 0
        self.solved = False
        self.judge = self._judge()
        self.curve = Curve()

    def _judge(self) -> Judge:
        """The paper's rule at the last length, the recipe's before it."""
        rule, r = self.family.criterion, self.settings.recipe
        if self.stage < len(self.stages) - 1:
            most = int((1 - r.climb) * r.latest)
            rule = Criterion(rule.tolerance, window=r.latest, most_wrong=most)
        return Judge(rule)

    @property
    def drawn(self) -> int:
        """Training sequences so far."""
        return self.updates * self.settings.recipe.batch

    @property
    def note(self) -> str:
        j = self.judge
        return f"{self.stages[self.stage].name}: {j.wrong} wrong, error {j.error:.3g}"

    def update(self) -> None:
        """Draw a batch, predict, judge, learn."""
        r, task = self.settings.recipe, self.stages[self.stage]
        given = task.sequences(r.batch, self.seed, first=self.drawn)
        output = self.net(numbers(task, given), given.lengths, self._rule())
        loss, errors = loss_and_errors(task, output, given)
        met = self.judge.see(errors)
        self.updates += 1
        self.curve.add(self.drawn, float(errors.mean()))
        if met and self.stage == len(self.stages) - 1:
            self.solved = True
            return
        for group in self.adam.param_groups:
            group["lr"] = r.rate / (1 + (self.updates - 1) / r.decay)
        self.adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), r.clip)
        self.adam.step()
        if met:
            self.stage += 1
            self.judge = self._judge()

    def _rule(self) -> BPTT | HDetach:
        p = self.settings.recipe.detach
        return HDetach(p, self.seed + self.updates) if p else BPTT()

    # -- how it ended --------------------------------------------------------------------

    def outcome(self, number: int) -> Outcome:
        """Tested on fresh sequences, of other lengths too, if it came as far as the last length."""
        found: dict[str, float] = {
            "weights": sum(p.numel() for p in self.net.parameters()),
            "updates": self.updates,
            "length": self.settings.lengths[self.stage],
        }
        success = self.solved
        if self.stage == len(self.stages) - 1:
            count = self.settings.test
            wrong, error = self.test(self.stages[-1], count)
            found |= {"test_wrong": wrong, "test_count": count, "test_error": error}
            for n in self.settings.further:
                few = max(1, count // 5)
                wrong, _ = self.test(self.family.make(n), few)
                found[f"right_at_{n}"] = right = 1 - wrong / few
                success = success and (right >= _RIGHT or n != self.settings.reach)
        return Outcome(number, success, self.drawn, found, self.curve.points)

    def test(self, task: Source, count: int) -> tuple[int, float]:
        """Wrong ones of `count` fresh sequences, and their mean |error|."""
        judge = Judge(replace(self.family.criterion, window=count, measure="absolute"))
        with torch.no_grad():
            for first in range(0, count, _TEST_BATCH):
                given = task.sequences(
                    min(_TEST_BATCH, count - first), self.seed, first=first, purpose=1
                )
                output = self.net(numbers(task, given), given.lengths)
                judge.see(loss_and_errors(task, output, given)[1])
        return judge.wrong, judge.error

    # -- putting it aside ----------------------------------------------------------------

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Everything training goes on from."""
        found = {f"net.{n}": t.detach().clone() for n, t in self.net.state_dict().items()}
        for n, p in self.net.named_parameters():
            found |= {f"adam.{n}.{k}": v.clone() for k, v in self.adam.state.get(p, {}).items()}
        found |= {f"judge.{n}": t.clone() for n, t in self.judge.state_dict().items()}
        found |= {f"curve.{n}": t for n, t in self.curve.state_dict().items()}
        found["at"] = torch.tensor([self.updates, self.stage, self.solved])
        return found

    def load_state_dict(self, state: State) -> None:
        """See `state_dict`."""
        self.net.load_state_dict(_under(state, "net"))
        for n, p in self.net.named_parameters():
            if own := _under(state, f"adam.{n}"):
                self.adam.state[p] = {k: v.clone() for k, v in own.items()}
        self.updates, self.stage, solved = state["at"].tolist()
        self.solved = bool(solved)
        self.judge = self._judge()
        self.judge.load_state_dict(_under(state, "judge"))
        self.curve.load_state_dict(_under(state, "curve"))


class Curve:
    """A mean error over ever longer stretches: some hundred points of a run of any length."""

    def __init__(self) -> None:
        self._points: list[tuple[float, float]] = []  # (sequences, mean error of the stretch)
        self._stretch, self._sum, self._count = 1, 0.0, 0

    def add(self, sequences: int, error: float) -> None:
        """The mean error of the update that ended with sequence number `sequences`."""
        self._sum, self._count = self._sum + error, self._count + 1
        if self._count < self._stretch:
            return
        self._points.append((sequences, self._sum / self._count))
        self._sum, self._count = 0.0, 0
        if len(self._points) == _POINTS:
            pairs = zip(self._points[::2], self._points[1::2], strict=True)
            self._points = [(n, (a + b) / 2) for (_, a), (n, b) in pairs]
            self._stretch *= 2

    @property
    def points(self) -> tuple[tuple[int, float], ...]:
        return tuple((int(n), e) for n, e in self._points)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """To continue from."""
        return {
            "points": torch.tensor(self._points, dtype=torch.float64).view(-1, 2),
            "open": torch.tensor([self._stretch, self._count, self._sum], dtype=torch.float64),
        }

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """See `state_dict`."""
        self._points = [(n, e) for n, e in state["points"].tolist()]
        stretch, count, self._sum = state["open"].tolist()
        self._stretch, self._count = int(stretch), int(count)


def _under(state: State, prefix: str) -> dict[str, torch.Tensor]:
    """The entries below `prefix`, without it."""
    return {n[len(prefix) + 1 :]: t for n, t in state.items() if n.startswith(prefix + ".")}
