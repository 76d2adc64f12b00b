"""Cells without a recurrent matrix: a unit's past reaches it through its own weights only."""

from __future__ import annotations

from typing import Any

from gatewise.equations.cell import Cell
from gatewise.equations.functions import Value, sigmoid, tanh


class MinGRU(Cell):
    """GRU whose gate and candidate do not see the state (Feng et al., 2024).

    z = σ(a_z),  h_t = (1 - z) ∘ h_{t-1} + z ∘ candidate, the candidate linear.
    The recurrence is linear in h, so time can be scanned in parallel.
    """

    source = "Feng et al., Were RNNs all we needed?, 2024"
    gates = ("update", "candidate")
    feedback = ()
    keeps = {"update": -1}

    def step(self, gate: Any, state: Any) -> dict[str, Value]:
        z = sigmoid(gate.update)
        return {"h": (1 - z) * state.h + z * gate.candidate}


class MinLSTM(Cell):
    """LSTM whose gates do not see the state and sum to 1 (Feng et al., 2024).

    f' = f / (f + i),  i' = i / (f + i),  h_t = f' ∘ h_{t-1} + i' ∘ candidate.
    The recurrence is linear in h, so time can be scanned in parallel.
    """

    source = "Feng et al., Were RNNs all we needed?, 2024"
    gates = ("forget", "input", "candidate")
    feedback = ()
    keeps = {"forget": 1, "input": -1}

    def step(self, gate: Any, state: Any) -> dict[str, Value]:
        f, i = sigmoid(gate.forget), sigmoid(gate.input)
        return {"h": (f * state.h + i * gate.candidate) / (f + i)}


class ELSTM(Cell):
    """Element-wise LSTM (after Irie, Gopalakrishnan & Schmidhuber, 2023).

    f = σ(a_f + w_f ∘ c_{t-1}),  c_t = f ∘ c_{t-1} + (1 - f) ∘ tanh(a_z + w_z ∘ c_{t-1}),
    o = σ(a_o + w_o ∘ c_t),  h_t = o ∘ c_t.

    Real-time recurrent learning is exact here at the cost of the forward pass. (The paper's
    output gate sees c_t through a full matrix, outside the recurrence; here per unit.)
    """

    source = "Irie, Gopalakrishnan & Schmidhuber, Exploring the promise and limits of RTRL, 2023"
    gates = ("forget", "candidate", "output")
    states = ("h", "c")
    feedback = ()
    parameters = {"recurrent_forget": 0.0, "recurrent_candidate": 0.0, "recurrent_output": 0.0}
    keeps = {"forget": 1}

    def step(self, gate: Any, state: Any, param: Any) -> dict[str, Value]:
        f = sigmoid(gate.forget + param.recurrent_forget * state.c)
        z = tanh(gate.candidate + param.recurrent_candidate * state.c)
        c = f * state.c + (1 - f) * z
        o = sigmoid(gate.output + param.recurrent_output * c)
        return {"h": o * c, "c": c, "forget": f, "candidate": z, "output": o}
