"""Networks of equal size: a layer of any cell, or the Transformer, and a linear output.

Shapes: T = time, B = batch, I = input size, H = hidden units, O = outputs.
"""

from __future__ import annotations

import re
from bisect import bisect_right

import torch
from torch import nn

from gatewise.cells import get_cell
from gatewise.equations.trace import trace
from gatewise.lab.objective import Source
from gatewise.layers import Recurrent
from gatewise.learning import BPTT, HDetach
from gatewise.models.transformer import Transformer

TRANSFORMER = "transformer"
_HEADS = 2
# Numbers a network takes up: a row of them ends where a vector of the processor does, so how many
# rows lie before it makes no difference to any number's rounding.
_WHOLE = 64


class Network(nn.Module):
    """A layer and a linear output at every step, or at each sequence's end.

    Args:
        task: what it is to learn.
        layer: a recurrent layer or a Transformer.
    """

    moments: torch.Tensor  # [2, P]: Adam's, of all parameters one after the other

    def __init__(self, task: Source, layer: Recurrent | Transformer) -> None:
        super().__init__()
        self.layer, self.every_step = layer, task.every_step
        self.head = nn.Linear(layer.output_size, task.outputs)
        self.register_buffer("moments", torch.zeros(2, whole(_count(self))))

    def forward(
        self, x: torch.Tensor, lengths: torch.Tensor, rule: BPTT | HDetach | None = None
    ) -> torch.Tensor:
        """x [T, B, I] -> [T, B, O], or [B, O] at the ends; `rule` is for recurrent layers."""
        if isinstance(self.layer, Transformer):
            seen = self.layer(x)[0]  # steps past a sequence's end come after all that is asked
            return self.answer(seen, seen[lengths - 1, torch.arange(len(lengths))])
        seen, state = (rule or BPTT()).run(self.layer, x, lengths=lengths)
        return self.answer(seen, (state if isinstance(state, torch.Tensor) else state[0])[-1])

    def answer(self, seen: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        """The layer's outputs [T, B, H], and [B, H] at the ends -> [T, B, O], or [B, O]."""
        return self.head(seen if self.every_step else last)


def whole(count: int) -> int:
    """`count` numbers rounded up to whole vectors.

    >>> whole(93)
    128
    """
    return -(-count // _WHOLE) * _WHOLE


def make_network(
    task: Source, cell: str, hidden: int, layers: int, longest: int, init: tuple[str, ...]
) -> Network:
    """A network of `layers` layers with as many weights as one LSTM layer of `hidden` units.

    The width is the largest one with no more weights than that. Initial weights are drawn from
    torch's generator.

    Args:
        cell: a cell, or "transformer".
        longest: steps of the longest sequence, for "chrono".
        init: what `Recurrent` takes, without what the cell cannot have: "orthogonal" where nothing
            is fed back, "chrono" or a forget bias where no gate keeps memory.

    Raises:
        ValueError: not even the narrowest network is small enough.
    """
    width = _width(task.inputs, cell, layers, _count(Recurrent("lstm", task.inputs, hidden)))
    if cell == TRANSFORMER:
        return Network(task, Transformer(task.inputs, width, layers, _HEADS))
    possible = _possible(cell, init, longest)
    return Network(task, Recurrent(cell, task.inputs, width, layers, init=possible))


def _width(inputs: int, cell: str, layers: int, most: int) -> int:
    """Of the largest layer with at most `most` weights; draws from no generator."""

    def count(width: int) -> int:
        if cell == TRANSFORMER:
            return _count(Transformer(inputs, width, layers, _HEADS))
        return _count(Recurrent(cell, inputs, width, layers))

    step = 2 * _HEADS if cell == TRANSFORMER else 1
    with torch.random.fork_rng(devices=[]):
        if count(step) > most:
            raise ValueError(f"hidden must be larger for {cell}: {most} weights are too few")
        high = 2 * step
        while count(high) <= most:
            high *= 2
        sizes = range(high // 2, high, step)
        return sizes[bisect_right(sizes, most, key=count) - 1]


def _possible(cell: str, init: tuple[str, ...], longest: int) -> tuple[str, ...]:
    found = trace(get_cell(cell))
    can = {"orthogonal": bool(found.feedback), "chrono": bool(found.cell.keeps)}
    can["forget_bias"] = can["chrono"]
    chosen = [i for i in init if can.get(re.split(r"\W", i)[0], True)]
    return ("torch", *(f"chrono({longest})" if i == "chrono" else i for i in chosen))


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
