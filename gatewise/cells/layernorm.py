"""LSTM with layer normalisation inside the recurrence."""

from __future__ import annotations

from typing import Any

from gatewise.equations.cell import Cell
from gatewise.equations.functions import Value, normalise, sigmoid, tanh

GATES = ("input", "forget", "candidate", "output")


class LayerNormLSTM(Cell):
    """Layer-normalised LSTM, also on the cell state (Ba, Kiros & Hinton, 2016, eq. 20–22).

    (a_i, a_f, a_g, a_o) = LN(U h_{t-1}) ∘ α_h + LN(W x_t) ∘ α_x + b,
    c_t = σ(a_f) ∘ c_{t-1} + σ(a_i) ∘ tanh(a_g),
    h_t = σ(a_o) ∘ tanh(LN(c_t) ∘ α_c + β_c).

    Each LN runs over all four gates' units together, as in the paper.
    """

    source = "Ba, Kiros & Hinton, Layer normalization, 2016"
    gates = GATES
    states = ("h", "c")
    split = GATES
    biased = ()  # a bias before the normalisation would be half cancelled by it
    parameters = (
        {f"gain_x_{g}": 1.0 for g in GATES}
        | {f"gain_h_{g}": 1.0 for g in GATES}
        | {f"bias_{g}": 0.0 for g in GATES}
        | {"gain_c": 1.0, "bias_c": 0.0}
    )
    keeps = {"forget": 1, "input": -1}

    def step(self, gate: Any, state: Any, param: Any) -> dict[str, Value]:
        x = normalise([getattr(gate, g).input for g in GATES])
        h = normalise([getattr(gate, g).recurrent for g in GATES])
        p = vars(param)
        i, f, g, o = (
            p[f"gain_x_{name}"] * x[k] + p[f"gain_h_{name}"] * h[k] + p[f"bias_{name}"]
            for k, name in enumerate(GATES)
        )
        i, f, g, o = sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)
        c = f * state.c + i * g
        [normal] = normalise([c])
        return {
            "h": o * tanh(param.gain_c * normal + param.bias_c),
            "c": c,
            "input": i,
            "forget": f,
            "candidate": g,
            "output": o,
        }
