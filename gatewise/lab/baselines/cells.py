"""Recurrent networks from before the LSTM, as cells: they run on every executor like the others."""

from __future__ import annotations

from typing import Any

from gatewise.equations import Cell
from gatewise.equations.functions import Value, sigmoid, tanh


class LeakyContext(Cell):
    """Context units with a time constant each (Mozer, 1992).

    h_t = k ∘ h_{t-1} + (1 - k) ∘ tanh(W x_t + U h_{t-1} + b), k = σ(keep), one per unit and learnt.
    """

    source = "Mozer, Induction of multiscale temporal structure, 1992"
    gates = ("hidden",)
    states = ("h",)
    biases = 1
    parameters = {"keep": 0.0}

    def step(self, gate: Any, state: Any, param: Any) -> dict[str, Value]:
        k = sigmoid(param.keep)
        return {"h": k * state.h + (1 - k) * tanh(gate.hidden)}


class DelayedRNN(Cell):
    """Simple recurrent network that sees its last `delays` states: NARX (Lin et al., 1996).

    h_t = tanh(W x_t + Σ_k U_k h_{t-k} + b), k = 1 … delays: each delay is a short cut by which
    errors pass over that many steps at once.
    """

    source = "Lin, Horne, Tiňo & Giles, Learning long-term dependencies in NARX networks, 1996"
    gates = ("hidden",)
    biases = 1

    def __init__(self, delays: int = 4) -> None:
        if delays < 1:
            raise ValueError(f"delays must be positive, got {delays}")
        self.delays = delays
        self.states = ("h", *(f"h{k}" for k in range(2, delays + 1)))
        self.feedback = self.states

    def step(self, gate: Any, state: Any) -> dict[str, Value]:
        older = dict(zip(self.states[1:], self.states, strict=False))
        return {"h": tanh(gate.hidden)} | {s: getattr(state, b) for s, b in older.items()}
