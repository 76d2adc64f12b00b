"""Run a cell's step once on symbols: what it computes, as expressions.

Symbols (all real, one number per unit):
    a_GATE            the pre-activation W x_t + U r_{t-1} + b
    a_GATE_x, a_GATE_h  its two parts, for a split gate
    STATE_prev        a state before the step
    p_PARAM           a per-unit parameter
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from weakref import WeakKeyDictionary

import sympy
import torch

from gatewise.equations.cell import Cell
from gatewise.equations.functions import ELEMENTARY, Inside, Mean, Positive, _Symbolic

ON_TENSOR = {
    **{f.symbol: f.on_tensor for f in ELEMENTARY.values()},
    # Derivatives bring these two.
    Positive: lambda x: (x > 0).to(x.dtype),
    Inside: lambda x: (x.abs() < 1).to(x.dtype),
}


@dataclass(frozen=True)
class Accumulator:
    """One sum of products per unit: a pre-activation, or one part of a split gate's."""

    name: str  # its symbol: a_forget, a_new_x
    gate: str
    from_input: bool  # includes W x_t and its bias
    from_feedback: bool  # includes U r_{t-1} and its bias


@dataclass(frozen=True, eq=False)
class Trace:
    """A cell as expressions over the symbols above.

    Gates, states, feedback and parameters hold only what the equations use: a gate that an
    ablation replaced by a constant is gone, and so are its weights.
    """

    cell: Cell
    gates: tuple[str, ...]
    accumulators: tuple[Accumulator, ...]
    states: tuple[str, ...]
    feedback: tuple[str, ...]
    parameters: tuple[str, ...]
    new_states: dict[str, sympy.Expr]
    signals: dict[str, sympy.Expr]  # what can be recorded: states, gates, extra values
    late_sources: dict[str, sympy.Expr]  # accumulator name -> the value its U multiplies

    @functools.cached_property
    def pointwise(self) -> bool:
        """True where one pass over the units suffices: no mean over units, no late gate."""
        inside = subexpressions([*self.new_states.values(), *self.signals.values()])
        return not self.late_sources and not any(isinstance(e, Mean) for e in inside)

    @property
    def output(self) -> str:
        return self.states[0]


def symbol(name: str) -> sympy.Symbol:
    """The real symbol of that name: the same one for everybody."""
    return sympy.Symbol(name, real=True)


class _LateGate:
    """Stands for a late gate while tracing: calling it names the value its U multiplies."""

    def __init__(self, name: str) -> None:
        self.symbol = symbol(name)
        self.source: sympy.Expr | None = None

    def __call__(self, value: Any) -> sympy.Symbol:
        if self.source is not None and self.source != value:
            raise ValueError(f"late gate {self.symbol.name[2:]} is called with two values")
        self.source = sympy.sympify(value)
        return self.symbol


_traces: WeakKeyDictionary[Cell, Trace] = WeakKeyDictionary()


def trace(cell: Cell) -> Trace:
    """The cell's equations as a `Trace`; computed once per cell object."""
    if cell not in _traces:
        _traces[cell] = _trace(cell)
    return _traces[cell]


def _trace(cell: Cell) -> Trace:
    cell.check()
    late = {g: _LateGate(f"a_{g}") for g in cell.late}
    accumulators: list[Accumulator] = []
    gate_values: dict[str, Any] = {}
    for g in cell.gates:
        if g in cell.split:
            x, h = f"a_{g}_x", f"a_{g}_h"
            accumulators += [Accumulator(x, g, True, False), Accumulator(h, g, False, True)]
            gate_values[g] = SimpleNamespace(input=symbol(x), recurrent=symbol(h))
        else:
            accumulators.append(Accumulator(f"a_{g}", g, True, True))
            gate_values[g] = late[g] if g in late else symbol(f"a_{g}")

    state = SimpleNamespace(**{s: symbol(f"{s}_prev") for s in cell.states})
    param = SimpleNamespace(**{p: symbol(f"p_{p}") for p in cell.parameters})
    try:
        result = cell.run_step(SimpleNamespace(**gate_values), state, param)
        result = _whole_numbers({k: sympy.sympify(v) for k, v in result.items()})
    except (TypeError, AttributeError, sympy.SympifyError) as error:
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(
            f"{type(cell).__name__}.step cannot be traced: {error}. A step may use arithmetic, "
            "its gates, states and parameters, and gatewise's functions "
            f"({', '.join(ELEMENTARY)})"
        ) from error

    new_states = {s: result[s] for s in cell.states}
    sources = {gate.symbol.name: gate.source for gate in late.values() if gate.source is not None}
    inside = subexpressions([*result.values(), *sources.values()])
    used = {e.name for e in inside if isinstance(e, sympy.Symbol)}
    _check_symbols(cell, used, accumulators)
    accumulators = _used_accumulators(cell, accumulators, used)
    gates = tuple(dict.fromkeys(a.gate for a in accumulators))
    signals = dict(result)
    for g, activation in _activations(accumulators, subexpressions(result.values())).items():
        signals.setdefault(g, activation)
    return Trace(
        cell=cell,
        gates=gates,
        accumulators=tuple(accumulators),
        states=tuple(cell.states),
        feedback=tuple(cell.fed_back),
        parameters=tuple(p for p in cell.parameters if f"p_{p}" in used),
        new_states=new_states,
        signals=signals,
        late_sources={n: s for n, s in sources.items() if n in used},
    )


def _whole_numbers(exprs: dict[str, sympy.Expr]) -> dict[str, sympy.Expr]:
    """1.0·x -> x: a constant gate then leaves no trace in the equations."""
    floats = [e for e in subexpressions(exprs.values()) if isinstance(e, sympy.Float)]
    whole = {f: sympy.Integer(int(f)) for f in floats if float(f).is_integer()}
    return {n: e.xreplace(whole) for n, e in exprs.items()}


def _check_symbols(cell: Cell, used: set[str], accumulators: list[Accumulator]) -> None:
    known = {a.name for a in accumulators} | {f"{s}_prev" for s in cell.states}
    known |= {f"p_{p}" for p in cell.parameters}
    if used - known:
        raise ValueError(
            f"{type(cell).__name__}.step uses symbols it was not given: {sorted(used - known)}"
        )


def _used_accumulators(
    cell: Cell, accumulators: list[Accumulator], used: set[str]
) -> list[Accumulator]:
    """Drop the gates no equation uses; a split gate stays whole while either part is used."""
    live = {a.gate for a in accumulators if a.name in used}
    kept = [a for a in accumulators if a.gate in live]
    if not kept:
        raise ValueError(f"{type(cell).__name__}.step uses none of its gates {cell.gates}")
    return kept


def subexpressions(exprs: Iterable[sympy.Expr]) -> list[sympy.Expr]:
    """Every expression that occurs in `exprs`, once, after what it is made of.

    Equations share parts: as trees, those of a layer-normalised cell have a hundred times as
    many nodes.
    """
    found: dict[sympy.Expr, None] = {}

    def visit(e: Any) -> None:
        if e not in found:
            for a in e.args:
                visit(a)
            found[e] = None

    for e in exprs:
        visit(e)
    return list(found)


def _activations(
    accumulators: list[Accumulator], inside: list[sympy.Expr]
) -> dict[str, sympy.Expr]:
    """What is recorded under each gate's name where step returns nothing under it.

    The innermost function applied to the gate's pre-activation, if there is exactly one
    (sigmoid(a) in an LSTM); otherwise the pre-activation itself.
    """
    leaves: dict[str, list[sympy.Symbol]] = {}
    for a in accumulators:
        leaves.setdefault(a.gate, []).append(symbol(a.name))
    nothing: frozenset[str] = frozenset()
    seen: dict[sympy.Expr, frozenset[str]] = {}  # gates that occur in it
    hidden: dict[sympy.Expr, frozenset[str]] = {}  # gates that occur in it inside a function
    gate_of = {s: frozenset([g]) for g, own in leaves.items() for s in own}
    innermost: dict[str, list[sympy.Expr]] = {g: [] for g in leaves}
    for e in inside:
        seen[e] = gate_of.get(e, nothing).union(*(seen[a] for a in e.args))
        hidden[e] = nothing.union(*(hidden[a] for a in e.args))
        if isinstance(e, _Symbolic):
            if not isinstance(e, Mean):
                for g in seen[e] - hidden[e]:
                    innermost[g].append(e)
            hidden[e] = seen[e]
    return {
        g: found[0] if len(found) == 1 else sympy.Add(*leaves[g]) for g, found in innermost.items()
    }


def evaluate(expr: sympy.Expr, values: dict[str, Any]) -> Any:
    """The expression on tensors (or numbers): `values` by symbol name."""
    if isinstance(expr, sympy.Symbol):
        return values[expr.name]
    if expr.is_Number:
        return float(expr)
    args = [evaluate(a, values) for a in expr.args]
    if isinstance(expr, sympy.Add):
        return sum(args[1:], args[0])
    if isinstance(expr, sympy.Mul):
        product = args[0]
        for a in args[1:]:
            product = product * a
        return product
    if isinstance(expr, sympy.Pow):
        return args[0] ** args[1]
    on_tensor = ON_TENSOR.get(type(expr))
    if on_tensor is None:
        raise TypeError(f"cannot evaluate {type(expr).__name__} on tensors")
    return on_tensor(torch.as_tensor(args[0]))
