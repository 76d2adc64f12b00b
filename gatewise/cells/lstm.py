"""Long short-term memory with a forget gate."""

from __future__ import annotations

from typing import Any

from gatewise.equations.cell import Cell
from gatewise.equations.functions import Value, sigmoid, tanh


class LSTM(Cell):
    """Long short-term memory with a forget gate (Gers, Schmidhuber & Cummins, 2000).

    c_t = f ∘ c_{t-1} + i ∘ tanh(candidate),  h_t = o ∘ tanh(c_t);
    i, f, o are logistic. Each nonlinearity is a field: an ablation replaces it
    (`input=constant(1.0)` removes the input gate and its weights).
    """

    source = "Gers, Schmidhuber & Cummins, Learning to forget, 2000"
    gates = ("input", "forget", "candidate", "output")
    states = ("h", "c")
    biases = 2
    keeps = {"forget": 1, "input": -1}

    def __init__(
        self,
        input: Any = sigmoid,
        forget: Any = sigmoid,
        candidate: Any = tanh,
        output: Any = sigmoid,
        squash: Any = tanh,
    ) -> None:
        self.input, self.forget, self.output = input, forget, output
        self.candidate, self.squash = candidate, squash

    def step(self, gate: Any, state: Any) -> dict[str, Value]:
        i, f, o = self.input(gate.input), self.forget(gate.forget), self.output(gate.output)
        g = self.candidate(gate.candidate)
        c = f * state.c + i * g
        return {"h": o * self.squash(c), "c": c, "candidate": g}
