"""The C source of a step in phases: one function per phase and direction, on one row.

What a symbol of equations/phases.py is in C: a number per unit of a row (`kept`, `collected`,
states, parameters), or one per row (means).
"""

from __future__ import annotations

import re

import sympy

from gatewise.equations.derive import Program
from gatewise.equations.phases import PhasedStep
from gatewise.equations.trace import Trace
from gatewise.executors.render import C, expression, statements


def functions(trace: Trace, step: PhasedStep, record: tuple[str, ...], training: bool) -> str:
    """All phase functions and the tables of them."""
    where = _Places(trace, step, record)
    parts = [where.forward(k, phase.forward) for k, phase in enumerate(step.phases)]
    if training:
        parts += [where.backward(k, phase.backward) for k, phase in enumerate(step.phases)]
    parts.append(_table("FORWARD_PHASE", "forward_phase", len(step.phases)))
    if training:
        parts.append(_table("BACKWARD_PHASE", "backward_phase", len(step.phases)))
    return "\n\n".join(parts)


def _table(name: str, function: str, count: int) -> str:
    names = ", ".join(f"{function}_{k}" for k in range(count))
    return f"typedef void (*{function}_fn)(const row_view *);\n" + (
        f"static const {function}_fn {name}[PHASES] = {{{names}}};"
    )


class _Places:
    """Where symbols are read from and outputs are written to."""

    def __init__(self, trace: Trace, step: PhasedStep, record: tuple[str, ...]) -> None:
        self.means = [*step.means]
        self.collected = [*step.collected]
        at = "at"
        read = {n: f"load(r->kept + {k} * r->padded + {at})" for k, n in enumerate(step.kept)}
        for k, s in enumerate(trace.states):
            read[f"{s}_prev"] = f"load(r->previous[{k}] + {at})"
            read[f"keep_{s}"] = f"load(r->keep[{k}] + {at})"
            output = f" + (r->d_output ? load(r->d_output + {at}) : splat(0))" if k == 0 else ""
            read[f"d_new_{s}"] = f"load(r->carry[{k}] + {at}){output}"
        for k, p in enumerate(trace.parameters):
            read[f"p_{p}"] = f"load(r->param + {k} * r->padded + {at})"
        for k, name in enumerate(record):
            read[f"d_rec_{name}"] = f"r->d_record[{k}] ? load(r->d_record[{k}] + {at}) : splat(0)"
        for k, n in enumerate(self.collected):
            read[f"d_{n}"] = f"load(r->collected + {k} * r->padded + {at})"
        read["mask"] = f"load(r->mask + {at})"
        self.read = read
        self.per_row = {m: f"splat(r->means[{k}])" for k, m in enumerate(self.means)}
        self.per_row |= {
            f"d_sum_{m}": f"splat(r->d_means[{k}] / r->units)" for k, m in enumerate(self.means)
        }
        self.write = {f"keep_{n}": f"r->kept + {k} * r->padded" for k, n in enumerate(step.kept)}
        self.write |= {f"new_{s}": f"r->state[{k}]" for k, s in enumerate(trace.states)}
        self.write |= {f"rec_{n}": f"r->record[{k}]" for k, n in enumerate(record)}
        self.add = {
            f"param_{p}": f"r->d_param + {k} * r->padded" for k, p in enumerate(trace.parameters)
        }
        for k, n in enumerate(self.collected):
            self.write[f"set_{n}"] = f"r->collected + {k} * r->padded"
            self.add[f"add_{n}"] = f"r->collected + {k} * r->padded"

    def forward(self, number: int, program: Program) -> str:
        return self._function(
            f"forward_phase_{number}", program, "r->means[{k}] = {sum} / r->units;"
        )

    def backward(self, number: int, program: Program) -> str:
        return self._function(f"backward_phase_{number}", program, "r->d_means[{k}] += {sum};")

    def _function(self, name: str, program: Program, finish: str) -> str:
        body = statements(program, C)
        sums: list[tuple[int, str]] = []
        for out, expr in program.outputs:
            text = expression(expr, C)
            if out in self.write:
                body.append(f"  store({self.write[out]} + at, {text});")
            elif out in self.add:
                place = f"{self.add[out]} + at"
                body.append(f"  store({place}, load({place}) + {text});")
            else:
                mean = out.removeprefix("sum_")
                sums.append((self.means.index(mean), f"sum_{mean}"))
                body.append(f"  sum_{mean} += blend(alive, {text}, splat(0));")
        used = {s.name for s in _symbols(program)} - {n for n, _ in program.body}
        rows = [f"  const vec {n} = {self.per_row[n]};" for n in sorted(used) if n in self.per_row]
        loads = [f"  const vec {n} = {self.read[n]};" for n in sorted(used) if n in self.read]
        alive = ["    const ivec alive = living(at, r->units);"] if sums else []
        return "\n".join(
            [
                f"static void {name}(const row_view *r) {{",
                *rows,
                *(f"  vec {n} = splat(0);" for _, n in sums),
                "  for (long at = 0; at < r->padded; at += LANES) {",
                *alive,
                *(re.sub("^", "  ", line) for line in [*loads, *body]),
                "  }",
                *("  " + finish.format(k=k, sum=f"sum_of({n})") for k, n in sums),
                "}",
            ]
        )


def _symbols(program: Program) -> set[sympy.Symbol]:
    exprs = [e for _, e in (*program.body, *program.outputs)]
    return {s for e in exprs for s in e.free_symbols}
