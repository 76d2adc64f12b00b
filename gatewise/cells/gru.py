"""Gated recurrent unit, both published forms."""

from __future__ import annotations

from typing import Any

from gatewise.equations.cell import Cell
from gatewise.equations.functions import Value, sigmoid, tanh


class GRU(Cell):
    """Gated recurrent unit, reset after the product (the form of torch and cuDNN).

    n = tanh(W_n x + b_in + r ∘ (U_n h_{t-1} + b_hn)),  h_t = (1 - z) ∘ n + z ∘ h_{t-1}.
    """

    source = "Cho et al., Learning phrase representations, 2014 (v1 of the preprint)"
    gates = ("reset", "update", "new")
    split = ("new",)
    biases = 2
    keeps = {"update": 1}

    def step(self, gate: Any, state: Any) -> dict[str, Value]:
        r, z = sigmoid(gate.reset), sigmoid(gate.update)
        n = tanh(gate.new.input + r * gate.new.recurrent)
        return {"h": (1 - z) * n + z * state.h}


class GRUReset(Cell):
    """Gated recurrent unit, reset before the product (the form of the paper).

    n = tanh(W_n x + U_n (r ∘ h_{t-1}) + b_n),  h_t = (1 - z) ∘ n + z ∘ h_{t-1}.
    """

    source = "Cho et al., Learning phrase representations, 2014"
    gates = ("reset", "update", "new")
    late = ("new",)
    biases = 2
    keeps = {"update": 1}

    def step(self, gate: Any, state: Any) -> dict[str, Value]:
        r, z = sigmoid(gate.reset), sigmoid(gate.update)
        n = tanh(gate.new(r * state.h))
        return {"h": (1 - z) * n + z * state.h}
