"""The faithful track: the 1997 paper's networks in lanes, many trials side by side.

More trials than one vector has lanes are so many jobs, which other cores can take.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import groupby

import torch

from gatewise import tasks
from gatewise.cells import LSTM1997, get_cell
from gatewise.equations import Cell
from gatewise.equations.functions import constant, identity, sigmoid
from gatewise.executors.lanes import Criterion, Lanes, Network, Task
from gatewise.lab.ablations import Ablated
from gatewise.lab.activity import activity
from gatewise.lab.curve import Curves
from gatewise.lab.experiment import Activity, Outcome, Progress, State, Track, Work
from gatewise.lab.paper1997 import NAME, CellsFedBack, Settings, Whole

Parameters = dict[str, torch.Tensor]
_ABSENT = -1e4  # pre-activations so low that the product of two logistic units is exactly 0
_TEST, _FRESH = 1, 2  # purposes of random numbers; training has 0
_EVERY = 0.5  # seconds between two signs of progress
_LANES = 16  # trials of a job; on a narrower machine several groups of lanes take turns


def cell_of(settings: Settings) -> Cell:
    """The cell of an experiment."""
    s = settings
    if s.cell != "lstm-1997":
        return get_cell(s.cell)
    if isinstance(s, Ablated):
        return s.make()
    if s.grows:
        return LSTM1997(
            output=constant(1.0),
            squash=identity,
            candidate=sigmoid,
            recurrent=False,
            biased=s.biased,
        )
    gates = not isinstance(s, CellsFedBack)
    return LSTM1997(block_size=s.size, gate_feedback=gates, recurrent=s.feedback, biased=s.biased)


def network_of(settings: Settings, task: Task) -> Network:
    """The network of an experiment."""
    s = settings
    shape = {n: getattr(task, n) for n in ("inputs", "outputs", "symbols", "every_step")}
    shape |= {n: getattr(task, n) for n in ("target_symbols", "judge_end", "ranked")}
    return Network(
        cell_of(s),
        units=s.blocks * s.size,
        head_bias=s.output_bias_too,
        head_inputs=s.grows,
        slope=s.slope,
        stepwise=s.stepwise,
        gate_start=s.gate_start,
        whole=isinstance(s, Whole),
        **shape,
    )


def task_of(settings: Settings, trial: int = 0, seed: int = 0) -> Task:
    """The task of an experiment; with the training set of that trial, where there are sets."""
    if settings.task not in tasks.__all__:
        raise ValueError(f"task must be a function of gatewise.tasks, got {settings.task!r}")
    arguments = dict(settings.arguments)
    if settings.trials_per_set:
        arguments |= {"pair": trial // settings.trials_per_set, "seed": seed}
    return getattr(tasks, settings.task)(**arguments)


def initial(settings: Settings, network: Network, work: Work, trial: int) -> Parameters:
    """A trial's parameters before training: uniform in ± `weights`, then the listed biases."""
    found = network.uniform(settings.weights, work.generator(trial, "weights"))
    row = 0
    for gate in (g for g in network.trace.gates if g in settings.biased):
        rows = slice(row, row + network.rows(gate))
        row = rows.stop
        listed = settings.listed.get(gate)
        if settings.cell == "lstm-1997" and listed:
            random = found["bias"][rows] if settings.bias_added else 0.0
            found["bias"][rows] = torch.tensor(listed) + random
    return found


def without_cell(parameters: Parameters) -> Parameters:
    """The same network before its cell is added: the cell stays 0 and nothing of it learns."""
    held = {"weight_ih": torch.full_like(parameters["weight_ih"], _ABSENT)}
    return parameters | held | {"head_weight": torch.zeros_like(parameters["head_weight"])}


class Bench:
    """Trials of one training set, each in a lane."""

    def __init__(self, settings: Settings, work: Work, trials: range) -> None:
        self.settings, self.work, self.trials = settings, work, trials
        s, seed = settings, work.seed_of(0, settings.task)
        self.task = task = task_of(s, trials[0], work.seed)
        self.network = network_of(s, task)
        self.criterion = Criterion(s.tolerance, s.window, s.most_wrong, s.error, s.measure)
        # judged on a test set: what is seen in training can never end a trial
        never = Criterion(-1.0, s.look, 0, 0.0, s.measure)
        width = len(trials)
        on = never if s.judged_on else self.criterion
        self.lanes = Lanes(self.network, width, s.rate, task, on, seed)
        self.trial = torch.tensor(trials)  # of each lane; -1: it has ended
        grows = s.grows and s.cell == "lstm-1997"
        self.absent = torch.full((width,), grows)  # its cell is not there yet
        self.before = torch.full((width,), float("inf"), dtype=torch.float64)  # error, last look
        self.grown = torch.zeros(width, dtype=torch.int64)  # sequences when the cell was added
        self.first = torch.zeros(width, dtype=torch.int64)  # … when the weaker criterion was met
        self.curves = Curves(width)
        for k, trial in enumerate(trials):
            weights = initial(s, self.network, work, trial)
            self.lanes.restart(k, trial, without_cell(weights) if grows else weights)

    @property
    def busy(self) -> list[int]:
        return [k for k, trial in enumerate(self.trial.tolist()) if trial >= 0]

    @property
    def spent(self) -> float:
        """Share of all trials' sequences that is behind us, or will not be needed."""
        running = sum(float(self.lanes.number[k]) for k in self.busy) / self.work.limit
        return (len(self.trials) - len(self.busy) + running) / len(self.trials)

    def step(self) -> Iterator[Outcome]:
        """Train until the next look, then look: grow, judge, and let ended trials go."""
        s = self.settings
        left = self.work.limit - max(int(self.lanes.number[k]) for k in self.busy)
        self.lanes.train(min(self.settings.look, left))
        error = self.lanes.error_of_last(self.settings.look)
        for k in self.busy:
            self.curves.add(k, int(self.lanes.number[k]), float(error[k]))
            if self.absent[k]:
                self._grow(k, float(error[k]))
        succeeded = self._succeeded()
        ended = [k for k in self.busy if k in succeeded or self.lanes.number[k] >= self.work.limit]
        if not ended:
            return
        wrong, error = self.lanes.test(s.test, self.criterion, _FRESH, ended)
        for k in ended:
            numbers = {"test_wrong": float(wrong[k]), "test_error": float(error[k])}
            yield self._outcome(k, k in succeeded, numbers)
            self.trial[k] = -1
            self.lanes.retire(k)

    def _grow(self, k: int, error: float) -> None:
        """Add the cell once the error has stopped decreasing."""
        if error < 0.99 * float(self.before[k]):
            self.before[k] = error
            return
        trial, number = int(self.trial[k]), int(self.lanes.number[k])
        now = {n: v[k] for n, v in self.lanes.parameters().items()}
        fresh = initial(self.settings, self.network, self.work, trial)
        self.lanes.replace(k, now | {n: fresh[n] for n in ("weight_ih", "head_weight")})
        self.absent[k], self.grown[k] = False, number

    def _succeeded(self) -> list[int]:
        s = self.settings
        if not s.judged_on:
            return [k for k in self.busy if self.lanes.met[k] > 0]
        wrong, error = self.lanes.test(s.judged_on, self.criterion, _TEST, self.busy, enough=True)
        right = [k for k in self.busy if wrong[k] <= s.most_wrong]
        for k in right:
            if not self.first[k]:
                self.first[k] = self.lanes.number[k]
        return [k for k in right if error[k] < s.error]

    def _outcome(self, k: int, success: bool, numbers: dict[str, float]) -> Outcome:
        s, sequences = self.settings, int(self.lanes.number[k])
        numbers |= {"test_count": float(s.test), "weights": float(self.network.weights)}
        if success and not s.judged_on:
            sequences = int(self.lanes.met[k]) - (0 if s.window_counts else s.window)
        if not s.judged_on:
            numbers["recent_wrong"] = float(self.lanes.recent_wrong[k])
        elif s.error < float("inf"):
            numbers["first_criterion_at"] = float(self.first[k])
        if s.grows:
            numbers["grown_at"] = float(self.grown[k])
        shown = self._activity(k) if success else None
        return Outcome(int(self.trial[k]), success, sequences, numbers, self.curves.of(k), shown)

    def _activity(self, k: int) -> Activity:
        """What lane k's network does over one test sequence."""
        own = {n: v[k] for n, v in self.lanes.parameters().items()}
        given = self.task.sequences(1, self.lanes.seed, int(self.trial[k]), purpose=_FRESH)
        return activity(self.network, own, given, self.settings.task)

    # -- what is kept ----------------------------------------------------------------------

    _KEPT = ("trial", "absent", "before", "grown", "first")

    def state(self) -> dict[str, torch.Tensor]:
        """Everything that `load` needs to go on to the same numbers."""
        own = {n: getattr(self, n).clone() for n in self._KEPT}
        return {
            **{f"lanes.{n}": v for n, v in self.lanes.state_dict().items()},
            **own,
            "curves": self.curves.points.clone(),
        }

    def load(self, state: State) -> None:
        """Go on from a `state`."""
        kept = {n: v for n, v in state.items() if n.startswith("lanes.")}
        self.lanes.load_state_dict({n.removeprefix("lanes."): v for n, v in kept.items()})
        for n in self._KEPT:
            getattr(self, n).copy_(state[n])
        self.curves.points.copy_(state["curves"])


def run(settings: Settings, work: Work) -> Iterator[Progress | Outcome]:
    """Trials of one experiment, those of one training set after those of another."""
    size = settings.trials_per_set or work.first + work.count
    sets = [list(g) for _, g in groupby(work.trials, key=lambda trial: trial // size)]
    begun = 0 if work.state is None else int(work.state["set"])
    for number in range(begun, len(sets)):
        trials = range(sets[number][0], sets[number][-1] + 1)
        bench = Bench(settings, work, trials)
        if work.state is not None and number == begun:
            bench.load(work.state)
        said = time.perf_counter()
        while bench.busy:
            yield from bench.step()
            if bench.busy and time.perf_counter() - said >= _EVERY:
                said = time.perf_counter()
                yield _progress(bench, number, len(sets))


def _progress(bench: Bench, number: int, sets: int) -> Progress:
    def state() -> State:
        return {"set": torch.tensor(number), **bench.state()}

    ended = len(bench.trials) - len(bench.busy)
    seen = max(int(bench.lanes.number[k]) for k in bench.busy)
    note = f"{ended} of {len(bench.trials)} ended, the others at {seen:,} at most"
    return Progress((number + bench.spent) / sets, note, state)


TRACK = Track(
    NAME,
    "The 1997 paper: its networks, its learning rule, its stopping rules",
    run,
    lambda settings: settings.trials_per_set or _LANES,
    lambda settings: network_of(settings, task_of(settings)),
)
