"""LSTM whose gates see the cell state."""

from __future__ import annotations

from typing import Any

from gatewise.equations.cell import Cell
from gatewise.equations.functions import Value, sigmoid, tanh


class PeepholeLSTM(Cell):
    """LSTM with peephole connections (Gers & Schmidhuber, 2000).

    i = σ(a_i + p_i ∘ c_{t-1}),  f = σ(a_f + p_f ∘ c_{t-1}),
    c_t = f ∘ c_{t-1} + i ∘ tanh(candidate),
    o = σ(a_o + p_o ∘ c_t),  h_t = o ∘ tanh(c_t).

    This is the "vanilla LSTM" of Greff et al. (2015), whose ablations replace its fields.
    With `gate_feedback` the gates' activations are fed back too (their FGR).
    """

    source = "Gers & Schmidhuber, Recurrent nets that time and count, 2000"
    gates = ("input", "forget", "candidate", "output")
    parameters = {"peephole_input": 0.0, "peephole_forget": 0.0, "peephole_output": 0.0}
    biases = 2
    keeps = {"forget": 1, "input": -1}

    def __init__(
        self,
        input: Any = sigmoid,
        forget: Any = sigmoid,
        candidate: Any = tanh,
        output: Any = sigmoid,
        squash: Any = tanh,
        gate_feedback: bool = False,
    ) -> None:
        self.input, self.forget, self.output = input, forget, output
        self.candidate, self.squash = candidate, squash
        self.gate_feedback = gate_feedback
        extra = ("input", "forget", "output") if gate_feedback else ()
        self.states = ("h", "c", *extra)
        self.feedback = ("h", *extra)

    def step(self, gate: Any, state: Any, param: Any) -> dict[str, Value]:
        i = self.input(gate.input + param.peephole_input * state.c)
        f = self.forget(gate.forget + param.peephole_forget * state.c)
        g = self.candidate(gate.candidate)
        c = f * state.c + i * g
        o = self.output(gate.output + param.peephole_output * c)
        return {
            "h": o * self.squash(c),
            "c": c,
            "input": i,
            "forget": f,
            "output": o,
            "candidate": g,
        }
