"""What is trained by gradients: recurrent layers or windows, and output layers.

Every model is N networks of one shape side by side, one for each trial, that differ in their seed
alone. Shapes: N = networks, T = time, B = batch, I = input size, H = hidden units, O = outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.functional import pad

from gatewise.cells import get_cell
from gatewise.lab.baselines.cells import DelayedRNN, LeakyContext
from gatewise.lab.objective import Source
from gatewise.layers import Recurrent, join
from gatewise.learning import BPTT, Rule1997

T = TypeVar("T")


@dataclass(frozen=True)
class Candidate:
    """One configuration of a search."""

    width: int  # hidden units
    rate: float  # Adam's step
    extra: float = 0.0  # window of a TDNN, delays of a NARX network, weight of the regulariser

    def __str__(self) -> str:
        return f"{self.width} units, rate {self.rate:g}" + f", {self.extra:g}" * bool(self.extra)


class Linears(nn.Module):
    """N linear layers, each for its own network."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.stack([m.weight.detach() for m in layers]))  # [N, O, I]
        self.bias = nn.Parameter(torch.stack([m.bias.detach() for m in layers]))  # [N, O]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [N, ..., I] -> [N, ..., O]."""
        rows = x.flatten(1, -2)
        y = torch.baddbmm(self.bias.unsqueeze(1), rows, self.weight.transpose(1, 2))
        return y.view(*x.shape[:-1], -1)


class RecurrentModel(nn.Module):
    """Layers of any cell and linear outputs, at every step or at each sequence's end."""

    def __init__(
        self,
        layers: Sequence[Recurrent],
        heads: Sequence[nn.Linear],
        every_step: bool = False,
        rule: BPTT | Rule1997 | None = None,
    ) -> None:
        super().__init__()
        self.layer, self.head = join(layers), Linears(heads)
        self.every_step, self.rule = every_step, rule or BPTT()
        self.seen: torch.Tensor | None = None  # [N, T, B, H] of the latest call

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """x [N, T, B, I], lengths [N, B] -> [N, T, B, O] or [N, B, O]."""
        self.seen = seen = self.rule.run(self.layer, x, lengths=lengths)[0]
        return self.head(seen if self.every_step else _at_ends(seen, lengths))


class WindowModel(nn.Module):
    """Time-delay networks: the last `window` inputs, one hidden layer (Waibel et al., 1989)."""

    def __init__(
        self,
        hidden: Sequence[nn.Linear],
        heads: Sequence[nn.Linear],
        window: int,
        every_step: bool = False,
    ) -> None:
        super().__init__()
        self.hidden, self.head = Linears(hidden), Linears(heads)
        self.window, self.every_step = window, every_step

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """As `RecurrentModel`; before a sequence's first step there are zeros."""
        seen = pad(x, (0, 0, 0, 0, self.window - 1, 0)).unfold(1, self.window, 1)  # [N, T, B, I, W]
        if not self.every_step:
            seen = _at_ends(seen, lengths)
        return self.head(self.hidden(seen.flatten(-2)).tanh())


def _at_ends(seen: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """[N, T, B, ...] -> [N, B, ...], each sequence's last step."""
    n, b = torch.arange(len(seen)).unsqueeze(1), torch.arange(seen.shape[2])
    return seen[n, lengths - 1, b]


# A model of as many networks as there are seeds.
Make = Callable[[Source, Candidate, Sequence[int]], nn.Module]


def _drawn(seeds: Sequence[int], make: Callable[[], T]) -> list[T]:
    """What `make` makes from each seed; torch's own generator is left as it was."""
    made: list[T] = []
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made.append(make())
    return made


def _recurrent(
    layer: Callable[[Source, Candidate], Recurrent], rule: BPTT | Rule1997 | None = None
) -> Make:
    def make(task: Source, c: Candidate, seeds: Sequence[int]) -> nn.Module:
        pairs = _drawn(seeds, lambda: (layer(task, c), nn.Linear(c.width, task.outputs)))
        layers, heads = zip(*pairs, strict=True)
        return RecurrentModel(layers, heads, task.every_step, rule)

    return make


def _tdnn(task: Source, c: Candidate, seeds: Sequence[int]) -> nn.Module:
    window = min(int(c.extra), longest(task))

    def one() -> tuple[nn.Linear, nn.Linear]:
        return nn.Linear(task.inputs * window, c.width), nn.Linear(c.width, task.outputs)

    hidden, heads = zip(*_drawn(seeds, one), strict=True)
    return WindowModel(hidden, heads, window, task.every_step)


def _layer(cell: Any, task: Source, c: Candidate) -> Recurrent:
    made = get_cell(cell)
    init = "torch" if isinstance(made, DelayedRNN) else ("torch", "orthogonal")
    return Recurrent(made, task.inputs, c.width, init=init)


def _rnn(task: Source, c: Candidate) -> Recurrent:
    return _layer("rnn", task, c)


def _irnn(task: Source, c: Candidate) -> Recurrent:
    """Rectified units that begin as the identity (Le, Jaitly & Hinton, 2015)."""
    layer = _layer("rnn-relu", task, c)
    with torch.no_grad():
        nn.init.eye_(layer.get_parameter("weight_hh_l0"))
        nn.init.normal_(layer.get_parameter("weight_ih_l0"), std=0.001)
        for name in ("bias_ih_l0", "bias_hh_l0"):
            nn.init.zeros_(layer.get_parameter(name))
    return layer


def _mozer(task: Source, c: Candidate) -> Recurrent:
    """Time constants spread from one step to about the whole sequence."""
    layer = _layer(LeakyContext(), task, c)
    constants = torch.logspace(0, math.log10(longest(task)), c.width).clamp(min=1.01)
    with torch.no_grad():
        layer.get_parameter("keep_l0").copy_((constants - 1).log())  # σ(keep) = 1 - 1/constant
    return layer


def _narx(task: Source, c: Candidate) -> Recurrent:
    return _layer(DelayedRNN(int(c.extra)), task, c)


MODELS: dict[str, Make] = {
    "bptt": _recurrent(_rnn),
    "pascanu": _recurrent(_rnn),
    # With every recurrent edge cut, the previous state is a constant input: Elman's own procedure.
    "elman": _recurrent(_rnn, Rule1997()),
    "irnn": _recurrent(_irnn),
    "mozer": _recurrent(_mozer),
    "narx": _recurrent(_narx),
    "tdnn": _tdnn,
}


# What a candidate's `extra` is, where a method has one.
EXTRAS = {"tdnn": "window", "narx": "delays", "pascanu": "regulariser's weight"}


def longest(task: Source) -> int:
    """Steps of the longest of a few hundred sequences."""
    return int(task.sequences(256, purpose=9).lengths.max())
