"""From a trace to straight-line programs: one step forward, one step backward.

Forward: new states (and recorded signals) from pre-activations, previous states, parameters.
Backward: with L = Σ_s d_s · new_s (+ Σ d_signal · signal), the derivative of L by every
pre-activation, previous state and parameter. Every function application becomes a value with
a name, and each derivative is written in terms of values (σ' = σ(1-σ)), so the backward pass
evaluates no function whose value was kept.

Which edges carry a gradient is an argument (`cut`), see `edges`.

What is kept: values and pre-activations the backward needs that cannot be had again from the
previous states, the parameters and what is already kept. tanh(c_t) of an LSTM is computed
again, its four gates are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import sympy

from gatewise.equations.functions import Mean, _Symbolic
from gatewise.equations.trace import Trace, evaluate, symbol

Assignment = tuple[str, sympy.Expr]


@dataclass(frozen=True)
class Program:
    """Straight-line code: each assignment uses inputs and earlier assignments only."""

    inputs: tuple[str, ...]
    body: tuple[Assignment, ...]
    outputs: tuple[Assignment, ...]  # name of the output, expression (usually a symbol)

    def run(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs on tensors; a constant comes out as a number."""
        known = dict(values)
        for name, expr in self.body:
            known[name] = evaluate(expr, known)
        return {n: evaluate(e, known) for n, e in self.outputs}

    def __str__(self) -> str:
        lines = [f"{n} = {e}" for n, e in self.body]
        return "\n".join(lines + [f"-> {n} = {e}" for n, e in self.outputs])


@dataclass(frozen=True)
class StepPrograms:
    """A cell's step, forward and backward, and what one hands to the other."""

    forward: Program
    backward: Program
    saved: tuple[str, ...]  # forward outputs "save_NAME", backward inputs NAME
    kept_in_state: dict[str, str]  # value that is a new state already -> that state


def edges(trace: Trace) -> tuple[str, ...]:
    """The recurrent edges of a cell by name: those a learning rule may cut.

    A fed-back state names the product U·state; a per-unit parameter names the product
    p ∘ (previous state, or what is computed from it) inside a gate: a peephole, or the weight of
    an element-wise recurrence. What is left when all are cut is the carousel: a state's own way
    to its next value outside every gate.

    >>> from gatewise.cells import PeepholeLSTM
    >>> from gatewise.equations import trace
    >>> edges(trace(PeepholeLSTM()))
    ('h', 'peephole_input', 'peephole_forget', 'peephole_output')
    """
    if not trace.pointwise:  # its other passes hold no per-unit recurrent weights
        return trace.feedback
    values, _ = hoist(trace.new_states, trace)
    closed = _through_parameters(trace, values, trace.parameters)
    found = {p for names in closed.values() for p in names}
    return (*trace.feedback, *(p for p in trace.parameters if p in found))


def check_cut(trace: Trace, cut: frozenset[str]) -> None:
    """Raise ValueError where `cut` names what is no edge of the cell."""
    unknown = cut - {*edges(trace)}
    if unknown:
        raise ValueError(
            f"cut must name edges of {type(trace.cell).__name__} "
            f"({', '.join(edges(trace)) or 'it has none'}), got {', '.join(sorted(unknown))}"
        )


def _through_parameters(
    trace: Trace, values: list[Assignment], names: Iterable[str]
) -> dict[str, tuple[str, ...]]:
    """Value -> those of the parameters `names` whose product with a state is in its argument."""
    accumulators = {symbol(a.name) for a in trace.accumulators}
    recurrent = {symbol(f"{s}_prev") for s in trace.states}
    found: dict[str, tuple[str, ...]] = {}
    for name, expr in values:
        arg, closed = expr.args[0], []
        for p in map(symbol, (f"p_{p}" for p in names)):
            factor = sympy.diff(arg, p).free_symbols
            own = arg.xreplace({p: sympy.Integer(0)}).free_symbols & accumulators
            if factor & recurrent and not factor & own:
                closed.append(p.name[2:])
        if closed:
            found[name] = tuple(closed)
        if arg.free_symbols & recurrent:
            recurrent.add(symbol(name))
    return found


def derive(
    trace: Trace,
    record: tuple[str, ...] = (),
    zoneout: tuple[str, ...] = (),
    cut: frozenset[str] = frozenset(),
    sometimes: bool = False,
) -> StepPrograms:
    """Both programs for a pointwise cell, with `record` as extra outputs of every step.

    States in `zoneout` keep a part of their previous value, given by an input keep_STATE:
    s = keep s_prev + (1 - keep) new_s.

    `cut` names `edges` that carry no gradient: what they multiply counts as a constant. Those
    named by a state lie outside the step (the executor leaves the product with U away); those
    named by a parameter are left out of the derivatives here; where they are cut `sometimes`, an
    input `open` of the backward program is 1 at the steps at which they are not, and 0 elsewhere.
    """
    if not trace.pointwise:
        raise ValueError(f"{type(trace.cell).__name__} is not one pointwise pass over the units")
    check_cut(trace, cut)
    outputs = step_outputs(trace, record, zoneout)
    values, hoisted = hoist(outputs, trace)
    gradients = _reverse(trace, values, hoisted, cut, sometimes)
    fixed = (
        *(("open",) if sometimes else ()),
        *(f"{s}_prev" for s in trace.states),
        *(f"p_{p}" for p in trace.parameters),
        *(f"keep_{s}" for s in zoneout),
    )
    in_state = {str(hoisted[f"new_{s}"]): s for s in trace.states}
    saved, again = _kept(trace, values, gradients.values(), {*fixed, *in_state})
    mentioned = {
        n.name for e in [*gradients.values(), *dict(again).values()] for n in e.free_symbols
    }
    in_state = {
        v: s
        for v, s in in_state.items()
        if v in mentioned and v in dict(values) and v not in dict(again)
    }

    forward = straight_line(
        (*(a.name for a in trace.accumulators), *fixed),
        values,
        hoisted | {f"save_{name}": symbol(name) for name in saved},
        prefix="t",
    )
    adjoints = tuple(f"d_{name}" for name in outputs)
    backward = straight_line((*saved, *in_state, *fixed, *adjoints), again, gradients, prefix="u")
    return StepPrograms(forward, backward, saved, in_state)


def step_outputs(
    trace: Trace, record: tuple[str, ...], zoneout: tuple[str, ...]
) -> dict[str, sympy.Expr]:
    """What a step puts out: new_STATE, zoned out where asked, and rec_SIGNAL."""
    states = dict(trace.new_states)
    for s in zoneout:
        keep = symbol(f"keep_{s}")
        states[s] = keep * symbol(f"{s}_prev") + (1 - keep) * states[s]
    signals = {**trace.signals, **states}
    outputs = {f"new_{s}": e for s, e in states.items()}
    outputs |= {f"rec_{r}": signals[r] for r in record}
    return outputs


def hoist(
    outputs: dict[str, sympy.Expr], trace: Trace
) -> tuple[list[Assignment], dict[str, sympy.Expr]]:
    """Give every function application a name; outputs become polynomials in those names.

    Returns the functions in the order they can be evaluated, and the outputs in their names.
    """
    names: dict[sympy.Expr, sympy.Symbol] = {}
    order: list[Assignment] = []
    taken: set[str] = set()
    gate_of = {symbol(a.name): a.gate for a in trace.accumulators}

    def name_for(arg: sympy.Expr, kind: str) -> str:
        gates = {gate_of[s] for s in arg.free_symbols if s in gate_of}
        base = f"{kind}_{gates.pop()}" if len(gates) == 1 else kind
        name, k = base, 2
        while name in taken or name == kind:
            name, k = f"{base}{k}", k + 1
        taken.add(name)
        return name

    def visit(e: sympy.Expr) -> sympy.Expr:
        if not e.args:
            return e
        args = [visit(a) for a in e.args]
        e = e.func(*args)
        if not isinstance(e, _Symbolic):
            return e
        if e not in names:
            names[e] = symbol(name_for(args[0], "m" if isinstance(e, Mean) else "y"))
            order.append((names[e].name, e))
        return names[e]

    return order, {n: visit(e) for n, e in outputs.items()}


def _reverse(
    trace: Trace,
    values: list[Assignment],
    outputs: dict[str, sympy.Expr],
    cut: frozenset[str],
    sometimes: bool,
) -> dict[str, sympy.Expr]:
    """Derivatives of L by accumulators (g_a_…), previous states and parameters."""
    closed = _through_parameters(trace, values, [p for p in trace.parameters if p in cut])

    def inner(value: str, expr: sympy.Expr, leaf: str) -> sympy.Expr:
        """The derivative of a value's argument; past a cut edge only the weight itself learns."""
        away = {symbol(f"p_{p}"): 0 for p in closed.get(value, ()) if leaf != f"p_{p}"}
        held = sympy.diff(expr.args[0].xreplace(away), symbol(leaf))
        if not sometimes:
            return held
        return held + symbol("open") * (sympy.diff(expr.args[0], symbol(leaf)) - held)

    loss = sum((symbol(f"d_{n}") * e for n, e in outputs.items()), sympy.Integer(0))
    by = chain(values, loss, inner)
    gradients = {f"g_{a.name}": by(a.name) for a in trace.accumulators}
    gradients |= {f"g_{s}_prev": by(f"{s}_prev") for s in trace.states}
    gradients |= {f"g_p_{p}": by(f"p_{p}") for p in trace.parameters}
    return gradients


def _argument_slope(value: str, expr: sympy.Expr, leaf: str) -> sympy.Expr:
    return sympy.diff(expr.args[0], symbol(leaf))


def chain(
    values: list[Assignment],
    loss: sympy.Expr,
    inner: Callable[[str, sympy.Expr, str], sympy.Expr] = _argument_slope,
    arriving: Mapping[str, sympy.Expr] = MappingProxyType({}),
) -> Callable[[str], sympy.Expr]:
    """The chain rule: a function from a leaf's name to the derivative of `loss` by it.

    `values` are the functions the loss is made of, first to last; `inner` is the derivative of
    a value's argument by a leaf; `arriving` adds to a value's adjoint what reaches it from
    elsewhere.
    """
    adjoint: dict[str, sympy.Expr] = {}
    # From the last value to the first: a value's adjoint is complete once every later value
    # that uses it has been visited.
    for i in range(len(values) - 1, -1, -1):
        name, _ = values[i]
        total = sympy.diff(loss, symbol(name)) + arriving.get(name, 0)
        for later, expr in values[i + 1 :]:
            slope = expr.fdiff().subs(expr, symbol(later)) * inner(later, expr, name)
            total += adjoint[later] * slope
        adjoint[name] = total

    def by(leaf: str) -> sympy.Expr:
        total = sympy.diff(loss, symbol(leaf))
        for name, expr in values:
            slope = inner(name, expr, leaf)
            if slope != 0:
                total += adjoint[name] * expr.fdiff().subs(expr, symbol(name)) * slope
        return sympy.factor_terms(total)  # (d_c + u) y rather than d_c y + u y

    return by


def _kept(
    trace: Trace, values: list[Assignment], gradients: Iterable[sympy.Expr], fixed: set[str]
) -> tuple[tuple[str, ...], list[Assignment]]:
    """What forward must keep for `gradients`, and which values backward computes again.

    `fixed` is at hand in the backward pass anyway.
    """
    definition = dict(values)
    pre_activations = {a.name for a in trace.accumulators}

    needed = {s.name for g in gradients for s in g.free_symbols}
    saved = sorted(needed & pre_activations)
    again: list[str] = []
    # Visit values first to last: one is computed again if all it needs is at hand; its own
    # needs then count too, so repeat until nothing changes.
    while True:
        at_hand = fixed | set(saved)
        recomputed = []
        for name, expr in values:
            if name in at_hand:
                continue
            if {s.name for s in expr.free_symbols} <= at_hand | set(recomputed):
                recomputed.append(name)
            elif name in needed and name not in saved:
                saved.append(name)
                at_hand.add(name)
        more = {s.name for n in recomputed if n in needed for s in definition[n].free_symbols}
        more -= fixed
        again = [n for n in recomputed if n in needed and n not in saved]
        if more <= needed:
            break
        needed |= more
    order = [a.name for a in trace.accumulators] + [n for n, _ in values]
    return tuple(sorted(saved, key=order.index)), [(n, definition[n]) for n in again]


def straight_line(
    inputs: tuple[str, ...],
    values: list[Assignment],
    outputs: dict[str, sympy.Expr],
    prefix: str,
) -> Program:
    """A program for `outputs`: common subexpressions named once, in the order they are needed.

    `values` are the functions to evaluate, each under its name.
    """
    targets = [e for _, e in values] + list(outputs.values())
    # Functions stay whole: cse sees their arguments only through `values`.
    temps, reduced = sympy.cse(targets, symbols=_numbered(prefix), order="canonical")
    pending: list[Assignment] = [(s.name, e) for s, e in temps]
    body: list[Assignment] = []
    done = set(inputs)

    def flush(expr: sympy.Expr) -> None:
        """Place every temporary `expr` needs before it."""
        for s in sorted(expr.free_symbols, key=str):
            if s.name in done:
                continue
            for k, (name, e) in enumerate(pending):
                if name == s.name:
                    del pending[k]
                    flush(e)
                    body.append((name, e))
                    done.add(name)
                    break

    for (name, _), expr in zip(values, reduced, strict=False):
        flush(expr)
        body.append((name, expr))
        done.add(name)
    final = []
    for name, expr in zip(outputs, reduced[len(values) :], strict=True):
        flush(expr)
        final.append((name, expr))
    return Program(inputs, tuple(body), tuple(final))


def _numbered(prefix: str) -> Iterable[sympy.Symbol]:
    k = 0
    while True:
        yield symbol(f"{prefix}{k}")
        k += 1
