"""A step of several passes over the units: forward and backward programs, phase by phase.

A mean over units, the product of a late gate, and a projected output, are known only when every
unit has been visited: each ends a phase. Phase p may use the accumulators, what earlier phases
computed, the means whose argument was complete in phase p - 1 and the late products whose source
was.

Backward runs the phases from the last to the first. What a phase contributes to the derivative
by something computed before it is collected under the name d_NAME until the phase that computed
NAME is reached.

Symbols beside those of trace.py:
    y…, m…        values of functions, and of means over units
    a_GATE_x, a_GATE_l   a late gate's part from the input, and its product with U
    source_GATE   what that product multiplies
    a_weight_hr_l, source_weight_hr   the output after its projection, and before
    mask          scales what a late gate's U multiplies, where it is masked
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import sympy

from gatewise.equations.derive import Assignment, Program, chain, hoist, step_outputs, straight_line
from gatewise.equations.functions import Mean
from gatewise.equations.trace import Accumulator, Trace, symbol


@dataclass(frozen=True)
class Phase:
    """One pass over the units of a row.

    Outputs of `forward`: keep_NAME (a value later phases or backward read), sum_MEAN (what the
    mean is taken of), new_STATE, rec_SIGNAL. Outputs of `backward`: set_NAME and add_NAME (the
    first and each further contribution to what is collected under d_NAME), sum_MEAN (a
    contribution by a mean, to be summed over the units), param_NAME. Inputs of `backward`:
    d_new_STATE, d_rec_SIGNAL, d_sum_MEAN (already divided by the number of units), d_NAME.
    """

    forward: Program
    backward: Program


@dataclass(frozen=True)
class Late:
    """A product with U, or with the projection, of a value computed in the step."""

    gate: str
    product: str  # its symbol, a_GATE_l
    source: str  # the symbol of what it multiplies, source_GATE
    level: int  # the first phase that may use it; its source is complete one phase earlier


@dataclass(frozen=True)
class PhasedStep:
    """A cell's step in phases, and the names of what it keeps and collects."""

    phases: tuple[Phase, ...]
    accumulators: tuple[Accumulator, ...]  # computed before phase 0
    late: tuple[Late, ...]
    means: dict[str, int]  # mean -> the first phase that may use it
    kept: tuple[str, ...]  # accumulators first: one number per unit and row each
    collected: tuple[str, ...]  # names NAME with a d_NAME of their own


def late_accumulators(trace: Trace) -> tuple[Accumulator, ...]:
    """The pre-activations of late gates."""
    return tuple(a for a in trace.accumulators if a.name in trace.late_sources)


def first_accumulators(trace: Trace) -> tuple[Accumulator, ...]:
    """What is summed before phase 0: of a late gate, the part from the input."""
    late = late_accumulators(trace)
    return tuple(
        Accumulator(f"{a.name}_x", a.gate, True, False) if a in late else a
        for a in trace.accumulators
    )


PROJECTION = "weight_hr"  # stands for a gate where the product is with the projection


class _Step:
    """The step's values with the phase (level) each belongs to."""

    def __init__(
        self,
        trace: Trace,
        outputs: dict[str, sympy.Expr],
        masked: bool,
        projected: dict[str, sympy.Expr],
    ) -> None:
        late = late_accumulators(trace)
        parts = {symbol(a.name): symbol(f"{a.name}_x") + symbol(f"{a.name}_l") for a in late}
        scale = symbol("mask") if masked else sympy.Integer(1)
        sources = {f"source_{a.gate}": scale * trace.late_sources[a.name] for a in late}
        sources |= {f"source_{name}": e for name, e in projected.items()}
        everything = {n: e.xreplace(parts) for n, e in (outputs | sources).items()}
        values, hoisted = hoist(everything, trace)
        self.trace = trace
        self.accumulators = first_accumulators(trace)
        self.means = {n: e.args[0] for n, e in values if isinstance(e, Mean)}
        self.values = [(n, e) for n, e in values if n not in self.means]
        self.outputs = {n: e for n, e in hoisted.items() if n not in sources}
        self.sources = {n: hoisted[n] for n in sources}
        self.late_gates = [*(a.gate for a in late), *projected]
        self.level: dict[str, int] = {}
        self.uniform: set[str] = set()
        self._find_levels(values)

    def _find_levels(self, values: list[Assignment]) -> None:
        waiting = [*values, *((f"a_{g}_l", self.sources[f"source_{g}"]) for g in self.late_gates)]
        unknown = {n for n, _ in waiting}
        while waiting:
            ready = [(n, e) for n, e in waiting if not self.names(e) & unknown]
            if not ready:
                raise ValueError(f"{type(self.trace.cell).__name__}: late gates need each other")
            for n, e in ready:
                ends_a_phase = n in self.means or n not in dict(values)
                self.level[n] = self.level_of(e) + int(ends_a_phase)
                rows_only = self.names(e) <= {*self.means} | self.uniform
                if rows_only and not ends_a_phase:
                    self.uniform.add(n)  # the same for all units of a row: cheap to have again
                unknown.discard(n)
            waiting = [w for w in waiting if w[0] in unknown]

    @staticmethod
    def names(expr: sympy.Expr) -> set[str]:
        return {s.name for s in expr.free_symbols}

    def level_of(self, expr: sympy.Expr) -> int:
        return max((self.level.get(n, 0) for n in self.names(expr)), default=0)

    def targets(self, phase: int) -> dict[str, sympy.Expr]:
        """What is complete in this phase: outputs, arguments of means, sources."""
        named = {f"sum_{m}": e for m, e in self.means.items()} | self.outputs
        named |= {f"keep_{n}": e for n, e in self.sources.items()}
        return {n: e for n, e in named.items() if self.level_of(e) == phase}

    def local(self, phase: int, wanted: Iterable[sympy.Expr]) -> list[Assignment]:
        """The functions this phase evaluates: its own, and row-uniform ones it needs."""
        needed = {n for e in wanted for n in self.names(e)}
        own: list[Assignment] = []
        for n, e in reversed(self.values):
            mine = self.level[n] == phase and n not in self.uniform
            if mine or (n in needed and n in self.uniform):
                own.insert(0, (n, e))
                needed |= self.names(e)
        return own


def derive_phases(
    trace: Trace,
    record: tuple[str, ...] = (),
    zoneout: tuple[str, ...] = (),
    masked: bool = False,
    projected: bool = False,
) -> PhasedStep:
    """The phases of any cell; see `derive` for `record` and `zoneout`."""
    raw: dict[str, sympy.Expr] = {}
    if projected:
        raw = {PROJECTION: trace.new_states[trace.output]}
        states = trace.new_states | {trace.output: symbol(f"a_{PROJECTION}_l")}
        trace = replace(trace, new_states=states)
    outputs = step_outputs(trace, record, zoneout)
    step = _Step(trace, outputs, masked, raw)
    count = 1 + max([*step.level.values(), 0])
    count = max(count, 1 + max(step.level_of(e) for e in step.outputs.values()))
    late = tuple(
        Late(g, f"a_{g}_l", f"source_{g}", step.level[f"a_{g}_l"]) for g in step.late_gates
    )
    functions = [n for n, _ in step.values if n not in step.uniform]
    collected = (
        *(a.name for a in step.accumulators),
        *(x.product for x in late),
        *(x.source for x in late),
        *functions,
        *(f"{s}_prev" for s in trace.states),
    )
    kept = (
        *(a.name for a in step.accumulators),
        *(x.product for x in late),
        *(x.source for x in late),
        *functions,
    )
    written: set[str] = {x.source for x in late}  # by the product with U transposed
    backward: list[Program] = []
    for p in reversed(range(count)):
        backward.insert(0, _backward(step, p, {*collected}, written, first=p == 0))
    phases = tuple(Phase(_forward(step, p), backward[p]) for p in range(count))
    return PhasedStep(
        phases, step.accumulators, late, {m: step.level[m] for m in step.means}, kept, collected
    )


def _forward(step: _Step, phase: int) -> Program:
    targets = step.targets(phase)
    values = step.local(phase, targets.values())
    own = [n for n, _ in values if n not in step.uniform]
    outputs = targets | {f"keep_{n}": symbol(n) for n in own}
    return straight_line(_inputs(values, outputs), values, outputs, prefix="t")


def _backward(
    step: _Step, phase: int, collected: set[str], written: set[str], first: bool
) -> Program:
    """The phase's contributions; `written` holds what later phases contributed to."""
    targets = step.targets(phase)
    values = step.local(phase, targets.values())
    local = {n for n, _ in values}
    adjoint = {n: symbol(f"d_{n.removeprefix('keep_')}") for n in targets}
    loss = sum((adjoint[n] * e for n, e in targets.items()), sympy.Integer(0))
    # What later phases said of this phase's own values.
    arriving = {n: symbol(f"d_{n}") for n in local & written}
    by = chain(values, loss, arriving=arriving)
    params = {f"p_{p}" for p in step.trace.parameters}
    outputs = {}
    for n in sorted(_used(values, targets) - local):
        slope = by(n) if n in collected or n in step.means or n in params else 0
        if slope == 0:
            continue
        if n in collected:
            outputs[f"add_{n}" if n in written else f"set_{n}"] = slope
            written.add(n)
        else:
            outputs[f"sum_{n}" if n in step.means else f"param_{n[2:]}"] = slope
    if first:  # what nothing depends on
        names = {a.name for a in step.accumulators}
        names |= {f"{s}_prev" for s in step.trace.states}
        names |= {f"a_{g}_l" for g in step.late_gates}
        outputs |= {f"set_{n}": sympy.Integer(0) for n in sorted(names - written)}
    # A value kept by the forward pass is read, not evaluated again.
    needed = {m for e in outputs.values() for m in step.names(e)}
    again: list[Assignment] = []
    for n, e in reversed(values):
        if n in step.uniform and n in needed:
            again.insert(0, (n, e))
            needed |= step.names(e)
    return straight_line(_inputs(again, outputs), again, outputs, prefix="u")


def _used(values: list[Assignment], outputs: dict[str, sympy.Expr]) -> set[str]:
    exprs = [e for _, e in values] + list(outputs.values())
    return {s.name for e in exprs for s in e.free_symbols}


def _inputs(values: list[Assignment], outputs: dict[str, sympy.Expr]) -> tuple[str, ...]:
    return tuple(sorted(_used(values, outputs) - {n for n, _ in values}))
