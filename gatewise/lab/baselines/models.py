"""What is trained by gradients: a recurrent layer or a window, and an output layer.

Shapes: T = time, B = batch, I = input size, H = hidden units, O = outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gatewise.cells import get_cell
from gatewise.lab.baselines.cells import DelayedRNN, LeakyContext
from gatewise.lab.objective import Source
from gatewise.layers import Recurrent
from gatewise.learning import BPTT, Rule1997


@dataclass(frozen=True)
class Candidate:
    """One configuration of a search."""

    width: int  # hidden units
    rate: float  # Adam's step
    extra: float = 0.0  # window of a TDNN, delays of a NARX network, weight of the regulariser

    def __str__(self) -> str:
        return f"{self.width} units, rate {self.rate:g}" + f", {self.extra:g}" * bool(self.extra)


class RecurrentModel(nn.Module):
    """A layer of any cell and a linear output at each sequence's end."""

    def __init__(self, layer: Recurrent, outputs: int, rule: BPTT | Rule1997) -> None:
        super().__init__()
        self.layer, self.rule = layer, rule
        self.head = nn.Linear(layer.output_size, outputs)
        self.seen: torch.Tensor | None = None  # [T, B, H] of the latest call

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """x [T, B, I] -> [B, O]."""
        seen, _ = self.rule.run(self.layer, x, lengths=lengths)
        self.seen = seen
        return self.head(seen[lengths - 1, torch.arange(len(lengths))])


class WindowModel(nn.Module):
    """Time-delay network: the last `window` inputs, one hidden layer (Waibel et al., 1989)."""

    def __init__(self, inputs: int, window: int, width: int, outputs: int) -> None:
        super().__init__()
        self.window = window
        self.net = nn.Sequential(
            nn.Linear(inputs * window, width), nn.Tanh(), nn.Linear(width, outputs)
        )

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """x [T, B, I] -> [B, O]; before a sequence's first step there are zeros."""
        at = lengths.unsqueeze(0) - torch.arange(self.window, 0, -1).unsqueeze(1)  # [W, B]
        taken = x[at.clamp(min=0), torch.arange(len(lengths))] * (at >= 0).unsqueeze(-1)
        return self.net(taken.transpose(0, 1).flatten(1))


def _elman(task: Source, c: Candidate) -> nn.Module:
    # With every recurrent edge cut, the previous state is a constant input: Elman's own procedure.
    return RecurrentModel(_layer("rnn", task, c), task.outputs, Rule1997())


def _rnn(cell: str) -> Callable[[Source, Candidate], nn.Module]:
    return lambda task, c: RecurrentModel(_layer(cell, task, c), task.outputs, BPTT())


def _irnn(task: Source, c: Candidate) -> nn.Module:
    """Rectified units that begin as the identity (Le, Jaitly & Hinton, 2015)."""
    layer = _layer("rnn-relu", task, c)
    with torch.no_grad():
        nn.init.eye_(layer.get_parameter("weight_hh_l0"))
        nn.init.normal_(layer.get_parameter("weight_ih_l0"), std=0.001)
        for name in ("bias_ih_l0", "bias_hh_l0"):
            nn.init.zeros_(layer.get_parameter(name))
    return RecurrentModel(layer, task.outputs, BPTT())


def _mozer(task: Source, c: Candidate) -> nn.Module:
    """Time constants spread from one step to about the whole sequence."""
    layer = _layer(LeakyContext(), task, c)
    constants = torch.logspace(0, math.log10(longest(task)), c.width).clamp(min=1.01)
    with torch.no_grad():
        layer.get_parameter("keep_l0").copy_((constants - 1).log())  # σ(keep) = 1 - 1/constant
    return RecurrentModel(layer, task.outputs, BPTT())


def _narx(task: Source, c: Candidate) -> nn.Module:
    return RecurrentModel(_layer(DelayedRNN(int(c.extra)), task, c), task.outputs, BPTT())


def _tdnn(task: Source, c: Candidate) -> nn.Module:
    window = min(int(c.extra), longest(task))
    return WindowModel(task.inputs, window, c.width, task.outputs)


MODELS: dict[str, Callable[[Source, Candidate], nn.Module]] = {
    "bptt": _rnn("rnn"),
    "pascanu": _rnn("rnn"),
    "elman": _elman,
    "irnn": _irnn,
    "mozer": _mozer,
    "narx": _narx,
    "tdnn": _tdnn,
}


def _layer(cell: Any, task: Source, c: Candidate) -> Recurrent:
    made = get_cell(cell)
    init = "torch" if isinstance(made, DelayedRNN) else ("torch", "orthogonal")
    return Recurrent(made, task.inputs, c.width, init=init)


def longest(task: Source) -> int:
    """Steps of the longest of a few hundred sequences."""
    return int(task.sequences(256, purpose=9).lengths.max())
