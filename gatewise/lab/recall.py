"""Recall by distance: how long ago may a value have stood to be found again?

A recurrent layer carries what it may be asked for in its state; a Transformer with a window looks
it up, but only inside the window, or as far as its layers hand it on. Both have equally many
weights, and learn from equally many sequences.

Shapes: T = time, B = batch, D = distances.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from gatewise.cells import get_cell
from gatewise.equations.trace import trace
from gatewise.lab.curve import Curves
from gatewise.lab.experiment import Experiment, Outcome, Progress, State, Track, Work
from gatewise.lab.families import FAMILIES
from gatewise.lab.judge import Judge
from gatewise.lab.kept import load_network_state, network_state, under
from gatewise.lab.objective import draw, loss_and_errors, numbers
from gatewise.layers import Recurrent
from gatewise.models.plots import new_figure, write_figure
from gatewise.models.transformer import Transformer
from gatewise.tasks import associative_recall
from gatewise.tasks.recall import VALUES

NUMBER = "right_at_distance_"  # and the steps from a value to its query: the name of an outcome
_RIGHT = 0.99
_SECONDS = 1.0  # between two signs of progress
_TEST_BATCH = 256
_HEADS = 2  # of a Transformer
_COLOURS = ("#1f5fa8", "#2a7f62", "#c0392b", "#8e44ad", "#7a8896")


@dataclass(frozen=True)
class Settings:
    """A network, and how it learns to recall.

    Args:
        pairs: of a key and a value, 1 … `pairs` in training, `pairs` in the test.
        gap: most blanks between the pairs and the queries.
        cell: a cell, or "transformer".
        hidden: units of a layer.
        layers: how many.
        window: steps a Transformer sees; 0: all.
        batch: sequences of an update.
        rate: Adam's step size, which falls to nothing along a line.
        test: sequences tested at the end.
    """

    pairs: int = 2
    gap: int = 24
    cell: str = "lstm"
    hidden: int = 64
    layers: int = 1
    window: int = 0
    batch: int = 64
    rate: float = 1e-2
    test: int = 5120

    @property
    def name(self) -> str:
        """For a table: the cell, and how far it sees."""
        return f"{self.cell}, window {self.window}" if self.window else self.cell

    @property
    def reach(self) -> dict[int, str]:
        """The longest distance inside a window, and that over which its layers may hand on."""
        seen = self.window - 1
        return {seen: "window", self.layers * seen: "reach of its layers"} if self.window else {}

    @property
    def distances(self) -> range:
        """From the last value to the first query, up to from the first value to the last query."""
        return range(1, 3 * self.pairs + self.gap - 1)


class Network(nn.Module):
    """A layer that sees no future, and a linear output at every step."""

    def __init__(self, layer: Recurrent | Transformer, outputs: int) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(layer.output_size, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [T, B, I] -> [T, B, O]; steps past a sequence's end come after all that is asked."""
        return self.head(self.layer(x)[0])


class Trial:
    """One network on its way; it can be put aside between any two updates."""

    def __init__(self, settings: Settings, work: Work, number: int) -> None:
        s, self.settings, self.work, self.number = settings, settings, work, number
        self.seed = work.seed_of(number)
        self.task = associative_recall(s.pairs, gap=s.gap)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(work.seed_of(number, "weights"))
            self.net = Network(_layer(s, self.task.inputs), self.task.outputs)
        self.adam = torch.optim.Adam(self.net.parameters(), s.rate, betas=(0.9, 0.99), fused=True)
        self.judge = Judge(FAMILIES["recall"].criterion)
        self.curve = Curves(1)

    @property
    def drawn(self) -> int:
        """Training sequences so far."""
        return self.judge.sequences

    def update(self) -> None:
        """Learn from the next batch."""
        s = self.settings
        count = min(s.batch, self.work.limit - self.drawn)
        given = draw(self.task, count, self.seed, self.drawn)
        output = self.net(numbers(self.task, given))
        loss, errors = loss_and_errors(self.task, output, given)
        for group in self.adam.param_groups:
            group["lr"] = s.rate * (1 - self.drawn / self.work.limit)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.adam.step()
        self.adam.zero_grad()
        self.judge.see(errors)
        self.curve.add(0, self.drawn, self.judge.error)

    def outcome(self) -> Outcome:
        """Tested on fresh sequences of the longest kind, each value by its distance."""
        right = self.right_by_distance()
        found: dict[str, float] = {"weights": sum(p.numel() for p in self.net.parameters())}
        found |= {f"{NUMBER}{d}": share for d, share in right.items()}
        success = min(right.values()) >= _RIGHT
        return Outcome(self.number, success, self.drawn, found, self.curve.of(0))

    def right_by_distance(self) -> dict[int, float]:
        """Distance -> share of the values named right, over the test."""
        s = self.settings
        task = associative_recall(s.pairs, shortest=s.pairs, gap=s.gap)
        asked, right = (torch.zeros(len(s.distances) + 1) for _ in range(2))
        for first in range(0, s.test, _TEST_BATCH):
            given = draw(task, min(_TEST_BATCH, s.test - first), self.seed, first, purpose=1)
            with torch.no_grad():
                said = self.net(numbers(task, given)).argmax(-1)  # [T, B]
            queries = given.target >= 0
            where = distances(given.x, s.pairs)[queries]
            hit = (said == given.target)[queries].float()
            asked.index_add_(0, where, torch.ones_like(hit))
            right.index_add_(0, where, hit)
        return {d: float(right[d] / asked[d]) for d in s.distances if asked[d]}

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Everything training goes on from."""
        found = network_state(self.net, self.adam) | {"curve": self.curve.points.clone()}
        return found | {f"judge.{n}": t.clone() for n, t in self.judge.state_dict().items()}

    def load_state_dict(self, state: State) -> None:
        """See `state_dict`."""
        load_network_state(state, self.net, self.adam)
        self.judge.load_state_dict(under(state, "judge"))
        self.curve.points = state["curve"].clone()


def distances(x: torch.Tensor, pairs: int) -> torch.Tensor:
    """Steps from each step to the value of the key that it shows, [T, B], of `pairs` pairs.

    >>> distances(torch.tensor([[7], [40], [3], [50], [3], [7]]), 2)[4:].T.tolist()
    [[1, 4]]
    """
    place = (x.unsqueeze(1) == x[0 : 2 * pairs : 2]).int().argmax(1)  # of the key, [T, B]
    return torch.arange(len(x)).unsqueeze(1) - (2 * place + 1)


def _layer(s: Settings, inputs: int) -> Recurrent | Transformer:
    if s.cell == "transformer":
        return Transformer(inputs, s.hidden, s.layers, _HEADS, window=s.window or None)
    keeps = bool(trace(get_cell(s.cell)).cell.keeps)  # a gate that chrono can open
    init = ("torch", f"chrono({s.gap + 3 * s.pairs})") if keeps else "torch"
    return Recurrent(s.cell, inputs, s.hidden, s.layers, init=init)


def run(settings: Settings, work: Work) -> Iterator[Progress | Outcome]:
    """One trial: as many sequences as the limit says, then the test."""
    trial = Trial(settings, work, work.first)
    if work.state is not None:
        trial.load_state_dict(work.state)
    spoken = time.perf_counter()
    while trial.drawn < work.limit:
        trial.update()
        if time.perf_counter() - spoken >= _SECONDS:
            note = f"{trial.judge.wrong} wrong, error {trial.judge.error:.3g}"
            yield Progress(trial.drawn / work.limit, note, trial.state_dict)
            spoken = time.perf_counter()
    yield trial.outcome()


TRACK = Track("recall", "Recall by distance, at equal numbers of weights", run)

_ATTENTION = Settings(cell="transformer", hidden=36, layers=2, rate=3e-3)
_NETWORKS = {
    "lstm": Settings(),
    "transformer": _ATTENTION,
    "transformer-window-8": replace(_ATTENTION, window=8),
}

EXPERIMENTS: tuple[Experiment, ...] = tuple(
    Experiment(
        name=f"recall-distance/{name}",
        track=TRACK.name,
        asks="From how far back are values recalled?",
        settings=settings,
        trials=3,
        limit=1_500_000,
        criterion=f"{_RIGHT:.0%} of the values right at every distance",
        tags=("recall-distance", name),
    )
    for name, settings in _NETWORKS.items()
)


def by_distance(outcomes: Sequence[Outcome]) -> dict[int, float]:
    """Distance -> mean share of right values over the trials of an experiment."""
    found: dict[int, list[float]] = {}
    for outcome in outcomes:
        for name, share in outcome.numbers.items():
            if name.startswith(NUMBER):
                found.setdefault(int(name.removeprefix(NUMBER)), []).append(share)
    return {d: sum(shares) / len(shares) for d, shares in sorted(found.items())}


def plot(results: Mapping[Settings, Sequence[Outcome]], path: str | Path) -> None:
    """Share of right values by distance: a line per trial, bold their mean; dashed a window's ends.

    Raises ValueError where there is no result.
    """
    if not any(results.values()):
        raise ValueError("there is nothing to plot: no trial of these experiments has ended")
    figure = new_figure(7.5, 4.2)
    axes = figure.subplots()
    for k, (settings, outcomes) in enumerate(results.items()):
        colour = _COLOURS[k % len(_COLOURS)]
        for outcome in outcomes:
            axes.plot(*_points([outcome]), color=colour, lw=0.7, alpha=0.5)
        wide = len(results) - k  # what lies under another line shows on both sides of it
        points = _points(outcomes)
        axes.plot(*points, "o-", color=colour, ms=2 + 2 * wide, lw=2 * wide, label=settings.name)
        for at, text in settings.reach.items():
            axes.axvline(at + 0.5, color=colour, lw=1.0, ls="--")
            axes.text(at + 0.4, 0.05, text, rotation=90, fontsize=8, ha="right", color=colour)
    axes.set(xlabel="steps from a value to its query", ylabel="share of right values")
    axes.set_ylim(-0.03, 1.03)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.axhline(1 / VALUES, color="#7a8896", lw=1.0, ls=":", label="guessing")
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    write_figure(figure, path)


def _points(outcomes: Sequence[Outcome]) -> tuple[list[int], list[float]]:
    found = by_distance(outcomes)
    return list(found), list(found.values())
