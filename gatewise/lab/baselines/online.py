"""Recurrent networks as they were trained before the LSTM: in lanes, one sequence at a time.

Plain gradient descent, by real-time recurrent learning (RTRL) at every step, by Elman's one-step
gradient at every step, or by the whole gradient after each sequence. A trial runs once with every
step size of its settings, from the same weights on the same sequences; whichever succeeds first is
its result.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gatewise.cells import get_cell
from gatewise.executors.lanes import Criterion, Lanes, Network, Task
from gatewise.lab.baselines.budget import either
from gatewise.lab.benchmarks import ALL
from gatewise.lab.curve import Curves
from gatewise.lab.experiment import Outcome, Progress, State, Work
from gatewise.layers import Recurrent

Parameters = dict[str, torch.Tensor]
_SECONDS = 0.5  # between two signs of progress
_TEST, _FRESH = 1, 2  # purposes of random numbers; training has 0
RULES: dict[str, dict[str, bool]] = {
    "rtrl": {"exact": True, "stepwise": True},
    "bptt": {"exact": True, "stepwise": False},
    # With every recurrent edge cut, the previous state is a constant input: Elman's own procedure.
    "elman": {"exact": False, "stepwise": True},
}


@dataclass(frozen=True)
class Online:
    """A simple recurrent network on a benchmark, and the step sizes that are tried.

    Args:
        benchmark: a name in `benchmarks.ALL`, of a task drawn in C.
        rule: a name in RULES.
        units: hidden units; with head "none" the output units are among them.
        rates: step sizes.
        cell: "rnn" or "rnn-logistic".
        head: as `Network` has it.
        head_inputs: output units see the inputs too.
        bias: units have biases.
        weights: initial ones are uniform in ± this; 0: the recurrent ones are orthogonal, the
            others as torch draws them.
        slope: the output units' error contains the slope of their squashing function.
        look: sequences between two looks.
        test: fresh sequences at the end.

    Raises:
        ValueError: no such benchmark or rule.
    """

    benchmark: str
    rule: str = "rtrl"
    units: int = 8
    rates: tuple[float, ...] = (0.1, 0.03, 0.01)
    cell: str = "rnn"
    head: str = "linear"
    head_inputs: bool = False
    bias: bool = True
    weights: float = 0.0
    slope: bool = True
    look: int = 500
    test: int = 2560

    def __post_init__(self) -> None:
        for name, table in (("benchmark", ALL), ("rule", RULES)):
            if getattr(self, name) not in table:
                raise ValueError(f"{name} must be one of {', '.join(table)}")

    def budget(self, limit: int) -> str:
        """What a trial may spend, in words."""
        each = "" if len(self.rates) == 1 else ", each"
        rates = f"rate {either(self.rates)}{each} on up to {limit:,} sequences"
        return f"{self.units} unit{'s' * (self.units > 1)}; {rates}"

    @property
    def task(self) -> Task:
        task = ALL[self.benchmark].task()
        if not isinstance(task, Task):
            raise ValueError(f"benchmark must be drawn in C, {self.benchmark} is not")
        return task

    @property
    def network(self) -> Network:
        shape = ("inputs", "outputs", "symbols", "every_step", "target_symbols", "judge_end")
        options: dict[str, Any] = {n: getattr(self.task, n) for n in (*shape, "ranked")}
        return Network(
            get_cell(self.cell),
            units=self.units,
            head=self.head,
            head_bias=self.bias and self.head != "none",
            head_inputs=self.head_inputs,
            bias=self.bias,
            slope=self.slope,
            **options,
            **RULES[self.rule],
        )

    def initial(self, network: Network, draw: torch.Generator) -> Parameters:
        """A trial's parameters before training."""
        if self.weights:
            return network.uniform(self.weights, draw)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw.initial_seed())
            layer = Recurrent(self.cell, network.inputs, self.units, init=("torch", "orthogonal"))
            head = nn.Linear(self.units, network.outputs)
        own = {n.removesuffix("_l0"): p.detach() for n, p in layer.named_parameters()}
        found = {"weight_ih": own["weight_ih"], "weight_hh": own["weight_hh"]}
        found["bias"] = own["bias_ih"] + own["bias_hh"]
        found |= {"head_weight": head.weight.detach(), "head_bias": head.bias.detach()}
        return {n: found[n] for n in network.shapes()}


def run(settings: Online, work: Work) -> Iterator[Progress | Outcome]:
    """All trials of the work, a lane for every trial and step size."""
    bench = _Bench(settings, work)
    if work.state is not None:
        bench.load_state_dict(work.state)
    spoken = time.perf_counter()
    while bench.left:
        yield from bench.step()
        if bench.left and time.perf_counter() - spoken >= _SECONDS:
            spoken = time.perf_counter()
            yield Progress(bench.done, bench.note, bench.state_dict)


class _Bench:
    """Lanes; can be put aside between any two looks."""

    def __init__(self, settings: Online, work: Work) -> None:
        self.settings, self.work = settings, work
        self.benchmark, self.network = ALL[settings.benchmark], settings.network
        s, trials = settings, list(work.trials)
        self.criterion = self.benchmark.criterion
        # judged on fixed sets: what is seen in training can never end a trial
        never = Criterion(-1.0, s.look)
        on = never if self.sets else self.criterion
        rates, seed = list(s.rates) * len(trials), work.seed_of(0, "online")
        self.lanes = Lanes(self.network, len(rates), rates, s.task, on, seed)
        self.ended = torch.zeros(len(trials), dtype=torch.bool)
        self.curves = Curves(len(trials))
        for t, trial in enumerate(trials):
            start = s.initial(self.network, work.generator(trial, "weights"))
            for k in self._of(t):
                self.lanes.restart(k, trial, start)

    @property
    def sets(self) -> int:
        """Sequences of the fixed sets that decide; 0: the latest training sequences do."""
        return self.benchmark.of.sets

    def _of(self, t: int) -> range:
        """The lanes of trial number t."""
        count = len(self.settings.rates)
        return range(t * count, (t + 1) * count)

    @property
    def left(self) -> list[int]:
        """Trials that have not ended."""
        return (~self.ended).nonzero().flatten().tolist()

    @property
    def number(self) -> int:
        """Sequences that every network which still learns has seen."""
        return max(int(self.lanes.number[k]) for t in self.left for k in self._of(t))

    @property
    def done(self) -> float:
        return min(1.0, self.number / self.work.limit)

    @property
    def note(self) -> str:
        return f"{int(self.ended.sum())} of {len(self.ended)} ended, the others at {self.number:,}"

    def step(self) -> Iterator[Outcome]:
        """Train until the next look; the trials that end with it."""
        s = self.settings
        self.lanes.train(min(s.look, self.work.limit - self.number))
        error = self.lanes.error_of_last(s.look).nan_to_num(nan=float("inf"))
        over = self.number >= self.work.limit
        met = self._met()
        best: dict[int, int] = {}  # trial that ends -> its lane
        for t in self.left:
            lanes = self._of(t)
            self.curves.add(t, self.number, min(float(error[k]) for k in lanes))
            solved = [k for k in lanes if met[k]]
            if solved:
                best[t] = min(solved, key=lambda k: met[k])
            elif over:
                best[t] = min(lanes, key=lambda k: float(error[k]))
        if best:
            count = self.sets or s.test
            tested = self.lanes.test(count, self.criterion, _FRESH, list(best.values()))
            for t, k in best.items():
                yield self._outcome(t, k, met[k], count, *(float(v[k]) for v in tested))
                self.ended[t] = True
                for lane in self._of(t):
                    self.lanes.retire(lane)

    def _met(self) -> list[int]:
        """Of every lane, after how many sequences it succeeded; 0: it has not."""
        if not self.sets:
            return self.lanes.met[: self.lanes.count].tolist()
        going = [k for t in self.left for k in self._of(t)]
        wrong, _ = self.lanes.test(self.sets, self.criterion, _TEST, going, enough=True)
        return [int(self.lanes.number[k]) * (int(w) == 0) for k, w in enumerate(wrong)]

    def _outcome(
        self, t: int, lane: int, met: int, count: int, wrong: float, error: float
    ) -> Outcome:
        numbers = {
            "weights": float(self.network.weights),
            "test_wrong": wrong,
            "test_count": float(count),
            "test_error": error,
            "rate": float(self.lanes.rates[lane]),
        }
        sequences = met or int(self.lanes.number[lane])
        trial = self.work.trials[t]
        return Outcome(trial, met > 0, sequences, numbers, self.curves.of(t))

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Everything the trials go on from."""
        own = {f"lanes.{n}": v for n, v in self.lanes.state_dict().items()}
        return own | {"ended": self.ended.clone(), "curves": self.curves.points.clone()}

    def load_state_dict(self, state: State) -> None:
        """See `state_dict`."""
        kept = {n[6:]: v for n, v in state.items() if n.startswith("lanes.")}
        self.lanes.load_state_dict(kept)
        self.ended.copy_(state["ended"])
        self.curves.points.copy_(state["curves"])
