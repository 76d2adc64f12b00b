"""The derivatives of one step alone, for rules that carry derivatives forward in time.

From the backward program of `derive`, which is linear in its adjoints, by putting in the unit
adjoints one at a time: no equation of its own.

Symbols of the outputs:
    g_LEAF            dL/dLEAF where L reaches the step through its output state only (d_new_OUT)
    j_STATE__LEAF     ∂new STATE / ∂LEAF, for every carried state
LEAF is a pre-activation (a_GATE), a previous state (STATE_prev) or a parameter (p_PARAM).
"""

from __future__ import annotations

from dataclasses import dataclass

import sympy

from gatewise.equations.derive import Assignment, Program, derive, straight_line
from gatewise.equations.functions import _Symbolic
from gatewise.equations.trace import Trace, symbol


@dataclass(frozen=True)
class LocalPrograms:
    """One step forward, the way of an error into it, and its Jacobian.

    A state is *carried* where an error at a later step can reach it outside the cut edges: the
    cell state of an LSTM, h of a GRU. Only carried states need traces.
    """

    forward: Program
    saved: tuple[str, ...]  # forward outputs "save_NAME", inputs NAME of the other two
    kept_in_state: dict[str, str]  # value that is a new state already -> that state
    error: Program
    jacobian: Program
    carried: tuple[str, ...]
    traced: dict[str, tuple[str, ...]]  # carried state -> leaves (not states) that can change it
    carries: dict[str, tuple[str, ...]]  # carried state -> carried states its new value is made of

    def rigid(self, state: str) -> bool:
        """Is the state's self-weight the constant 1, and its only tie to the past?"""
        if self.carries[state] != (state,):
            return False
        return dict(self.jacobian.outputs)[f"j_{state}__{state}_prev"] == 1


def derive_local(
    trace: Trace, cut: frozenset[str] = frozenset(), also: tuple[str, ...] = ()
) -> LocalPrograms:
    """The three programs of a pointwise cell with the edges of `cut` removed.

    States in `also` count as carried, whether or not their own past reaches them.
    """
    programs = derive(trace, cut=cut)
    values, gradients = _expanded(programs.backward)
    adjoint = {s: symbol(f"d_new_{s}") for s in trace.states}

    def with_error(state: str, size: sympy.Expr) -> dict[str, sympy.Expr]:
        """LEAF -> derivative where `state` alone receives an error of that size."""
        put = {d: size if s == state else sympy.Integer(0) for s, d in adjoint.items()}
        return {n[2:]: sympy.factor_terms(e.xreplace(put)) for n, e in gradients.items()}

    rows = {s: with_error(s, sympy.Integer(1)) for s in trace.states}
    error = with_error(trace.output, adjoint[trace.output])
    carried = tuple(s for s in trace.states if s in also or s in _carried(trace, rows))
    carries = {s: tuple(q for q in carried if rows[s][f"{q}_prev"] != 0) for s in carried}
    inputs = tuple(n for n in programs.backward.inputs if not n.startswith("d_new_"))
    return LocalPrograms(
        forward=programs.forward,
        saved=programs.saved,
        kept_in_state=programs.kept_in_state,
        error=_program(
            (*inputs, f"d_new_{trace.output}"), values, {f"g_{n}": e for n, e in error.items()}
        ),
        jacobian=_program(
            inputs, values, {f"j_{s}__{n}": e for s in carried for n, e in rows[s].items()}
        ),
        carried=carried,
        traced=_traced(trace, rows, carries),
        carries=carries,
    )


def _expanded(program: Program) -> tuple[list[Assignment], dict[str, sympy.Expr]]:
    """The functions a program evaluates, and its outputs in terms of them and of its inputs."""
    temporary: dict[sympy.Expr, sympy.Expr] = {}
    values: list[Assignment] = []
    for name, expr in program.body:
        expr = expr.xreplace(temporary)
        if isinstance(expr, _Symbolic):
            values.append((name, expr))
        else:
            temporary[symbol(name)] = expr
    return values, {n: e.xreplace(temporary) for n, e in program.outputs}


def _program(
    inputs: tuple[str, ...], values: list[Assignment], outputs: dict[str, sympy.Expr]
) -> Program:
    """Straight-line code for `outputs`, evaluating only the functions they need."""
    needed = {s.name for e in outputs.values() for s in e.free_symbols}
    kept: list[Assignment] = []
    for name, expr in reversed(values):
        if name in needed:
            kept.insert(0, (name, expr))
            needed |= {s.name for s in expr.free_symbols}
    return straight_line(inputs, kept, outputs, prefix="v")


def _carried(trace: Trace, rows: dict[str, dict[str, sympy.Expr]]) -> set[str]:
    """States an error at the output, now or later, reaches through their previous value."""
    found: set[str] = set()
    reached = {trace.output}
    while reached:
        reached = {q for s in reached for q in trace.states if rows[s][f"{q}_prev"] != 0} - found
        found |= reached
    return found


def _traced(
    trace: Trace,
    rows: dict[str, dict[str, sympy.Expr]],
    carries: dict[str, tuple[str, ...]],
) -> dict[str, tuple[str, ...]]:
    """The leaves a carried state depends on, at once or through what carried states hold."""
    leaves = [a.name for a in trace.accumulators] + [f"p_{p}" for p in trace.parameters]
    found = {s: {n for n in leaves if rows[s][n] != 0} for s in carries}
    for _ in carries:  # a dependence spreads at most once through every carried state
        for s, parts in carries.items():
            found[s] = found[s].union(*(found[q] for q in parts))
    return {s: tuple(n for n in leaves if n in found[s]) for s in carries}
