"""The long short-term memory of 1997."""

from __future__ import annotations

from typing import Any

from gatewise.equations.cell import Cell
from gatewise.equations.functions import Value, centred_1, centred_2, constant, sigmoid

_ONE = constant(1.0)


class LSTM1997(Cell):
    """Long short-term memory without a forget gate (Hochreiter & Schmidhuber, 1997).

    c_t = c_{t-1} + i ∘ g(candidate),  h_t = o ∘ h(c_t): the carousel's self-weight is 1.
    g = 4σ - 2 in [-2, 2] and h = 2σ - 1 in [-1, 1]; pass `candidate=tanh, squash=tanh` for
    the modern range. The `block_size` cells of a memory block share one input gate and one
    output gate. With `gate_feedback` (the paper's fully connected hidden layer) the gates'
    activations are fed back beside the cells' outputs.

    `output=constant(1.0)` removes the output gate, `squash=identity` the outer nonlinearity
    (both: the paper's experiment 2a); `self_weight` 0.9 or 1.1 breaks the carousel.
    `forget=sigmoid` gives each block the forget gate of Gers et al. (2000), c_t = f ∘ c_{t-1} + …,
    and changes nothing else. `recurrent=False` leaves the carousel as the only recurrence.
    """

    source = "Hochreiter & Schmidhuber, Long short-term memory, Neural Computation 9(8), 1997"
    gates = ("input", "forget", "candidate", "output")
    shared = ("input", "forget", "output")
    biases = 1
    keeps = {"input": -1, "forget": 1}

    def __init__(
        self,
        block_size: int = 1,
        input: Any = sigmoid,
        forget: Any = _ONE,
        candidate: Any = centred_2,
        output: Any = sigmoid,
        squash: Any = centred_1,
        self_weight: float = 1.0,
        gate_feedback: bool = True,
        recurrent: bool = True,
        biased: tuple[str, ...] = ("input", "forget", "candidate", "output"),
    ) -> None:
        self.block_size = block_size
        self.input, self.forget, self.output = input, forget, output
        self.candidate, self.squash = candidate, squash
        self.self_weight = self_weight
        self.gate_feedback, self.recurrent, self.biased = gate_feedback, recurrent, biased
        present = {"input": input, "forget": forget, "output": output}
        gates = tuple(g for g, f in present.items() if not isinstance(f, constant))
        # A gate is a state only to be fed back: U multiplies its previous activation.
        extra = gates if gate_feedback and recurrent else ()
        self.states = ("h", "c", *extra)
        self.feedback = ("h", *extra) if recurrent else ()

    def step(self, gate: Any, state: Any) -> dict[str, Value]:
        i, f, o = self.input(gate.input), self.forget(gate.forget), self.output(gate.output)
        g = self.candidate(gate.candidate)
        c = self.self_weight * f * state.c + i * g
        gates = {"input": i, "forget": f, "output": o, "candidate": g}
        return {"h": o * self.squash(c), "c": c} | gates
