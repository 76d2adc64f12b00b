"""LSTM whose input and forget gates are one."""

from __future__ import annotations

from typing import Any

from gatewise.equations.cell import Cell
from gatewise.equations.functions import Value, sigmoid, tanh


class CoupledLSTM(Cell):
    """LSTM with coupled input and forget gate, CIFG (Greff et al., 2015).

    f = 1 - i:  c_t = (1 - i) ∘ c_{t-1} + i ∘ tanh(candidate),  h_t = o ∘ tanh(c_t).
    """

    source = "Greff et al., LSTM: a search space odyssey, 2015"
    gates = ("input", "candidate", "output")
    states = ("h", "c")
    biases = 2
    keeps = {"input": -1}

    def step(self, gate: Any, state: Any) -> dict[str, Value]:
        i, o = sigmoid(gate.input), sigmoid(gate.output)
        c = (1 - i) * state.c + i * tanh(gate.candidate)
        return {"h": o * tanh(c), "c": c}
