"""What a cell is: gates, states, and one step of equations.

Shapes: H = hidden units. A cell knows one step of one unit; it does not know time, batch,
device, direction, lengths or learning.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, ClassVar

from gatewise.equations.functions import Value


class Cell:
    """One recurrent cell, written once as its equations.

    Subclass it, name the gates and states, and write `step`:

    >>> from gatewise import Cell, sigmoid, tanh
    >>> class LeakyCell(Cell):
    ...     '''h_t = (1 - z) h_{t-1} + z tanh(candidate)'''
    ...
    ...     gates = ("leak", "candidate")
    ...     states = ("h",)
    ...
    ...     def step(self, gate, state):
    ...         z = sigmoid(gate.leak)
    ...         return {"h": (1 - z) * state.h + z * tanh(gate.candidate)}

    Every name in `gates` is a pre-activation a = W x_t + U r_{t-1} + b, where r is the
    concatenation of the states named in `feedback`. `step` receives the pre-activations and
    the previous states and returns the new states by name. What else it returns under other
    names is a signal that can be recorded.

    Class attributes
        gates: names of the pre-activations, in the order of the rows of W.
        states: names of the states; the first is the layer's output.
        feedback: states fed back through U. Default: the first state.
        parameters: per-unit weights [H] by name, with their initial value; `step` then takes
            a third argument that holds them.
        split: gates whose input part and recurrent part `step` needs apart; such a gate has
            the fields `.input` (W x_t + b_ih) and `.recurrent` (U r_{t-1} + b_hh).
        late: gates whose recurrent product is of a value computed in this same step;
            `gate.name(value)` gives W x_t + U value + b.
        shared: gates computed once per block of `block_size` consecutive units.
        biased: gates that have a bias. Default: all.
        biases: 1, or 2 for torch's redundant pair (bias_ih, bias_hh).
        keeps: which gates hold memory open: +1 where a large pre-activation remembers, -1
            where it overwrites. Chrono and forget-bias initialisation use it.
    """

    gates: tuple[str, ...] = ()
    states: tuple[str, ...] = ("h",)
    feedback: tuple[str, ...] | None = None
    parameters: Mapping[str, float] = {}
    split: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    block_size: int = 1
    biased: tuple[str, ...] | None = None
    biases: int = 1
    keeps: Mapping[str, int] = {}
    source: ClassVar[str] = ""  # paper and year

    def step(self, gate: Any, state: Any, *args: Any, **kwargs: Any) -> dict[str, Value]:
        """One time step: the new states by name, from pre-activations and previous states.

        A cell with per-unit parameters takes them as its third argument. (To type checkers
        this signature admits both.)
        """
        raise NotImplementedError(f"{type(self).__name__} must define step(self, gate, state)")

    # -- what the library asks of a cell -------------------------------------------------

    @property
    def fed_back(self) -> tuple[str, ...]:
        return self.states[:1] if self.feedback is None else tuple(self.feedback)

    @property
    def gates_with_bias(self) -> tuple[str, ...]:
        return tuple(self.gates) if self.biased is None else tuple(self.biased)

    def run_step(
        self, gate: SimpleNamespace, state: SimpleNamespace, param: SimpleNamespace
    ) -> dict[str, Value]:
        """Call `step`, with the per-unit parameters where the cell has any; check its keys."""
        result = self.step(gate, state, param) if self.parameters else self.step(gate, state)
        if not isinstance(result, dict):
            raise TypeError(
                f"{type(self).__name__}.step must return a dict of states, "
                f"got {type(result).__name__}"
            )
        missing = [name for name in self.states if name not in result]
        if missing:
            raise ValueError(
                f"{type(self).__name__}.step must return every state, missing: "
                + ", ".join(missing)
            )
        return result

    def check(self) -> None:
        """Raise ValueError or TypeError where the declaration contradicts itself."""
        name = type(self).__name__
        for what in ("gates", "states"):
            names = getattr(self, what)
            if not isinstance(names, tuple) or not all(isinstance(n, str) for n in names):
                raise TypeError(f"{name}.{what} must be a tuple of names, got {names!r}")
            if not names:
                raise ValueError(f"{name}.{what} must name at least one, got ()")
        for what in ("gates", "states", "parameters"):
            names = tuple(getattr(self, what))
            if len(set(names)) != len(names):
                raise ValueError(f"{name}.{what} has a name twice: {names}")
            for n in names:
                if not n.isidentifier():
                    raise ValueError(f"{name}.{what} must be identifiers, got {n!r}")
        allowed = {
            "feedback": self.states,
            "split": self.gates,
            "late": self.gates,
            "biased": self.gates,
            "keeps": self.gates,
        }
        for what, pool in allowed.items():
            unknown = [n for n in (getattr(self, what) or ()) if n not in pool]
            if unknown:
                raise ValueError(
                    f"{name}.{what} names {', '.join(unknown)}; allowed: {', '.join(pool)}"
                )
        both = set(self.split) & set(self.late)
        if both:
            raise ValueError(f"{name}: a gate is split or late, not both: {', '.join(both)}")
        if not isinstance(self.block_size, int) or self.block_size < 1:
            raise ValueError(f"{name}.block_size must be at least 1, got {self.block_size!r}")
        if self.biases not in (1, 2):
            raise ValueError(f"{name}.biases must be 1 or 2, got {self.biases!r}")

    def options(self) -> dict[str, Any]:
        """The arguments this cell was made with, by name."""
        names = [p for p in inspect.signature(type(self).__init__).parameters if p != "self"]
        return {n: getattr(self, n) for n in names if n not in ("args", "kwargs")}

    def __repr__(self) -> str:
        inner = ", ".join(f"{k}={v!r}" for k, v in self.options().items())
        return f"{type(self).__name__}({inner})"
