"""The vanilla recurrent network."""

from __future__ import annotations

from typing import Any

from gatewise.equations.cell import Cell
from gatewise.equations.functions import Value, tanh


class RNN(Cell):
    """Simple recurrent network (Elman, 1990).

    h_t = f(W x_t + U h_{t-1} + b), f = tanh, relu or the logistic function.
    """

    source = "Elman, Finding structure in time, 1990"
    gates = ("hidden",)
    states = ("h",)
    biases = 2

    def __init__(self, nonlinearity: Any = tanh) -> None:
        self.nonlinearity = nonlinearity

    def step(self, gate: Any, state: Any) -> dict[str, Value]:
        return {"h": self.nonlinearity(gate.hidden)}
