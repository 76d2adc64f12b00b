"""The C source of one cell: generated step functions around a fixed skeleton.

The result depends on the cell's equations and on which signals are recorded, never on sizes:
units, batch and length are arguments of the compiled functions.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files

import torch

from gatewise.equations.derive import StepPrograms, derive
from gatewise.equations.phases import (
    PROJECTION,
    PhasedStep,
    derive_phases,
    first_accumulators,
    late_accumulators,
)
from gatewise.equations.trace import Accumulator, Trace
from gatewise.executors.cpu.phased import functions
from gatewise.executors.render import C, expression, statements

_HELD = {"full": "FULL", "bf16": "BF16", "int8": "INT8"}  # the names in weights.h
REAL_BITS = {torch.float32: 32, torch.float64: 64}


@dataclass(frozen=True, eq=False)
class KernelSpec:
    """What one compiled library computes."""

    trace: Trace
    dtype: torch.dtype
    training: bool  # keeps what backward needs, and has a backward
    record: tuple[str, ...] = ()
    zoneout: tuple[str, ...] = ()  # states that are zoned out
    cut: frozenset[str] = frozenset()  # edges (equations.edges) without a gradient
    sometimes: bool = False  # per-unit edges among them are cut at some steps only
    masked: bool = False  # what late gates multiply is masked
    projected: bool = False  # the output is projected at the end of the step
    held: str = "full"  # how weights are held: a key of _HELD

    @cached_property
    def programs(self) -> StepPrograms:
        """The step of a cell that is one pass over the units."""
        return derive(self.trace, self.record, self.zoneout, self.cut, self.sometimes)

    @cached_property
    def phased(self) -> PhasedStep:
        """The step of any other cell."""
        options = (self.record, self.zoneout, self.masked, self.projected)
        return derive_phases(self.trace, *options)

    @property
    def pointwise(self) -> bool:
        """Is the step one pass over the units?"""
        return self.trace.pointwise and not self.projected

    @property
    def late(self) -> tuple[str, ...]:
        """Gates whose product with U comes later in the step; the projection as one of them."""
        gates = tuple(a.gate for a in late_accumulators(self.trace))
        return (*gates, PROJECTION) if self.projected else gates

    @property
    def accumulators(self) -> tuple[Accumulator, ...]:
        return first_accumulators(self.trace)

    def needs_history(self, state: str) -> bool:
        """Is `state` needed at every step, or only its latest value?"""
        if state == self.trace.output or state in self.trace.feedback:
            return True
        if not self.pointwise:
            return True  # its later phases read the previous state after the new one is written
        if not self.training:
            return False
        backward = self.programs.backward
        used = {s.name for _, e in (*backward.body, *backward.outputs) for s in e.free_symbols}
        return f"{state}_prev" in used or state in self.programs.kept_in_state.values()


# What every cell's kernel shares, in this order; phases.c comes into forward.c.
SKELETON = ("kernel.c", "forward.c", "backward.c", "packing.c")


@functools.cache
def c_text(name: str) -> str:
    """A file of `source/`."""
    return (files("gatewise.executors.cpu") / "source" / name).read_text("utf-8")


def source(spec: KernelSpec) -> str:
    """The complete C source of `spec`."""
    skeleton = "\n".join(map(c_text, SKELETON)).replace("/*@bytes@*/", c_text("bytes.h"))
    if not spec.pointwise:
        code = functions(spec.trace, spec.phased, spec.record, spec.training)
        phases = c_text("phases.c").replace("/*@functions@*/", code)
        skeleton = skeleton.replace("/*@phases@*/", phases)
    headers = [c_text("vector.h"), c_text("weights.h")]
    return "\n".join([_constants(spec), *headers, step_source(spec), skeleton])


def _constants(spec: KernelSpec) -> str:
    trace, accumulators = spec.trace, spec.accumulators
    defines = {
        "REAL_BITS": REAL_BITS[spec.dtype],
        "HELD": _HELD[spec.held],
        "TRAINING": int(spec.training),
        "NG": len(accumulators),
        "NGX": sum(a.from_input for a in accumulators),
        "NGH": sum(a.from_feedback for a in accumulators),
        "NS": len(trace.states),
        "NP": len(trace.parameters),
        "NF": len(trace.feedback),
        "NR": len(spec.record),
    }
    if spec.pointwise:
        saved = len(spec.programs.saved) if spec.training else 0
        defines |= {"NSAVE": saved, "PHASES": 0, "NLATE": 0, "NMEANS": 0, "NCOLLECTED": 0}
    else:
        step = spec.phased
        defines |= {"NSAVE": len(step.kept), "PHASES": len(step.phases)}
        defines |= {"NLATE": len(step.late), "NMEANS": len(step.means)}
        defines |= {"NCOLLECTED": len(step.collected)}
    return "\n".join(f"#define {k} {v}" for k, v in defines.items())


def _table(name: str, numbers: list[int]) -> str:
    inner = ", ".join(map(str, numbers or [0]))
    return f"static const int {name}[{max(1, len(numbers))}] = {{{inner}}};"


def step_source(spec: KernelSpec) -> str:
    """The cell itself in C: one step forward and, for training, backward, on LANES units."""
    trace = spec.trace
    accs, late = spec.accumulators, [a.gate for a in late_accumulators(trace)]
    tables = [
        _table("X_GATE", [k for k, a in enumerate(accs) if a.from_input]),
        _table("H_GATE", [k for k, a in enumerate(accs) if a.from_feedback]),
        _table("GATE_OF", [trace.gates.index(a.gate) for a in accs]),
        _table("FROM_X", [int(a.from_input) for a in accs]),
        _table("BIAS_HH", [int(a.from_feedback or a.gate in late) for a in accs]),
        _table("FEEDBACK", [trace.states.index(s) for s in trace.feedback]),
        _table("CUT", [int(s in spec.cut) for s in trace.feedback]),
        _table("ZONEOUT", [int(s in spec.zoneout) for s in trace.states]),
        _table("HISTORY", [int(spec.needs_history(s)) for s in trace.states]),
    ]
    if not spec.pointwise:
        step = spec.phased
        states = [step.collected.index(f"{s}_prev") for s in trace.states]
        tables += [
            _table("LATE_LEVEL", [x.level for x in step.late]),
            # The projection's rows follow the gates' (packing.py).
            _table("LATE_GATE", [[*trace.gates, PROJECTION].index(x.gate) for x in step.late]),
            _table("CUT_LATE", [int(x.gate != PROJECTION and bool(spec.cut)) for x in step.late]),
            _table("COLLECTED_STATE", states),
        ]
        return "\n".join(tables)
    parts = [*tables, "", _forward(spec)]
    if spec.training:
        parts += ["", _backward(spec)]
    return "\n".join(parts)


def _inputs(spec: KernelSpec) -> dict[str, str]:
    """Symbol -> where the step functions find it, for what both directions read."""
    trace = spec.trace
    where = {f"{s}_prev": f"previous[{k}]" for k, s in enumerate(trace.states)}
    where |= {f"p_{p}": f"p[{k}]" for k, p in enumerate(trace.parameters)}
    return where | {f"keep_{s}": f"keep[{trace.states.index(s)}]" for s in spec.zoneout}


def _function(
    signature: str, inputs: dict[str, str], program: list[str], outputs: list[str]
) -> str:
    body = "\n".join(program + outputs)
    used = [f"  const vec {n} = {at};" for n, at in inputs.items() if _mentions(body, n)]
    return "\n".join([signature + " {", *used, *program, *outputs, "}"])


def _mentions(text: str, name: str) -> bool:
    return re.search(rf"\b{name}\b", text) is not None


def _forward(spec: KernelSpec) -> str:
    trace, program = spec.trace, spec.programs.forward
    inputs = {a.name: f"a[{k}]" for k, a in enumerate(trace.accumulators)} | _inputs(spec)
    target = {f"new_{s}": f"next[{k}]" for k, s in enumerate(trace.states)}
    target |= {f"save_{n}": f"kept[{k}]" for k, n in enumerate(spec.programs.saved)}
    target |= {f"rec_{r}": f"record[{k}]" for k, r in enumerate(spec.record)}
    outputs = [
        f"  {target[n]} = {expression(e, C)};"
        for n, e in program.outputs
        if spec.training or not n.startswith("save_")
    ]
    signature = (
        "INLINE void step_forward(const vec *a, const vec *previous, const vec *keep,\n"
        "                         const vec *p, vec *next, vec *kept, vec *record)"
    )
    return _function(signature, inputs, statements(program, C), outputs)


def _backward(spec: KernelSpec) -> str:
    trace, program = spec.trace, spec.programs.backward
    inputs = {n: f"kept[{k}]" for k, n in enumerate(spec.programs.saved)} | _inputs(spec)
    inputs |= {
        value: f"next[{trace.states.index(state)}]"
        for value, state in spec.programs.kept_in_state.items()
    }
    inputs |= {"open": "is_open"}
    inputs |= {f"d_new_{s}": f"d_next[{k}]" for k, s in enumerate(trace.states)}
    inputs |= {f"d_rec_{r}": f"d_record[{k}]" for k, r in enumerate(spec.record)}
    target = {f"g_{a.name}": f"d_acc[{k}]" for k, a in enumerate(trace.accumulators)}
    target |= {f"g_{s}_prev": f"d_previous[{k}]" for k, s in enumerate(trace.states)}
    target |= {f"g_p_{p}": f"d_p[{k}]" for k, p in enumerate(trace.parameters)}
    outputs = [f"  {target[n]} = {expression(e, C)};" for n, e in program.outputs]
    signature = (
        "INLINE void step_backward(const vec *kept, const vec *previous, const vec *next,\n"
        "                          const vec *keep, const vec *p, const vec is_open,\n"
        "                          const vec *d_next, const vec *d_record, vec *d_acc,\n"
        "                          vec *d_previous, vec *d_p)"
    )
    return _function(signature, inputs, statements(program, C), outputs)
