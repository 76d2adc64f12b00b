"""The C source of one kind of small network: a cell's step functions around a fixed skeleton.

Sizes are constants of the compiled library, unlike in the kernels for layers: a network of 93
weights is a few hundred instructions, and loops over its four units would cost as much again.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files

import sympy
import torch

from gatewise.equations import (
    Cell,
    Layout,
    LocalPrograms,
    Program,
    Trace,
    derive,
    derive_local,
    edges,
    trace,
)
from gatewise.executors.render import C, expression, statements

REAL_BITS = {torch.float32: 32, torch.float64: 64}
HEADS = ("logistic", "linear", "softmax", "none")


@dataclass(frozen=True)
class Network:
    """One hidden layer of a pointwise cell and an output layer.

    Args:
        cell: the cell of the hidden layer; each of its pre-activations has at most one bias.
        inputs: numbers per step, or how many symbols there are.
        units: hidden units.
        outputs: output units.
        symbols: an input is a symbol's number (one-hot; of more than 16 never multiplied out).
        head: "logistic", "linear" or "softmax" output units; "none": the first `outputs` hidden
            units are the output units (Williams & Zipser, 1989), with squared error.
        head_bias: output units have a bias.
        head_inputs: output units see the inputs too (1997, experiment 2a).
        slope: the error e_k = t_k - y_k is multiplied by f'(net_k): squared error of logistic
            units. Without it the same units have cross-entropy. Linear and softmax units have
            e_k = t_k - y_k (squared error, cross-entropy) in either case.
        every_step: there is a target at every step, else at the sequence's end.
        target_symbols: the target is a symbol's number, one-hot over the outputs.
        judge_end: only the last step counts for success.
        stepwise: weights change at every target, else after the sequence.
        ranked: a step is right when the outputs that the task allows are the largest ones.
        gate_start: activation of the gates that are fed back, before the first step.
        exact: real-time recurrent learning (Williams & Zipser, 1989) in place of the 1997 rule: no
            recurrent edge is cut. For a simple recurrent network; O(units³ · sources) per step.
        bias: hidden units have one.
        whole: backpropagation through time in place of the 1997 rule; weights change after the
            sequence.

    Raises:
        ValueError: a size, a head or a cell it cannot have.
    """

    cell: Cell
    inputs: int
    units: int
    outputs: int
    symbols: bool = False
    head: str = "logistic"
    head_bias: bool = False
    head_inputs: bool = False
    slope: bool = True
    every_step: bool = False
    target_symbols: bool = False
    judge_end: bool = False
    stepwise: bool = False
    ranked: bool = False
    gate_start: float = 0.0
    exact: bool = False
    bias: bool = True
    whole: bool = False

    def __post_init__(self) -> None:
        for name in ("inputs", "units", "outputs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.head not in HEADS:
            raise ValueError(f"head must be one of {', '.join(HEADS)}, got {self.head!r}")
        if not self.trace.pointwise:
            raise ValueError(
                f"cell must be one pointwise pass over its units, got {type(self.cell).__name__}"
            )
        if self.exact and not _simple(self.trace):
            raise ValueError(
                "cell must have one gate and one state, fed back, to be learnt exactly, got "
                f"{type(self.cell).__name__}"
            )
        if self.whole and (self.exact or self.stepwise):
            raise ValueError("whole is a rule of its own: exact and stepwise must be False")
        if not self.whole and len(self.local.carried) > 1:
            raise ValueError(
                f"cell must carry at most one state outside its gates, {type(self.cell).__name__} "
                f"carries {', '.join(self.local.carried)}"
            )
        if self.head == "none" and (self.outputs > self.units or self.head_bias + self.head_inputs):
            raise ValueError(
                "head 'none' needs units for all outputs and no weights of its own, got "
                f"{self.units} units, {self.outputs} outputs"
            )
        _ = self.layout  # refuses units that fill no whole blocks

    @property
    def trace(self) -> Trace:
        return trace(self.cell)

    @property
    def layout(self) -> Layout:
        return Layout(self.trace, self.inputs, self.units, bias=self.bias)

    @cached_property
    def local(self) -> LocalPrograms:
        """The step's derivatives with every recurrent edge cut, or none."""
        if self.exact or self.whole:
            return derive_local(self.trace, also=self.trace.states)
        return derive_local(self.trace, frozenset(edges(self.trace)))

    def rows(self, gate: str) -> int:
        """Pre-activations of a gate: one per unit, or per block where they are shared."""
        return self.layout.gate_rows(gate)

    @property
    def fed_back(self) -> int:
        return sum(self.layout.state_size(s) for s in self.trace.feedback)

    @property
    def biased(self) -> tuple[bool, ...]:
        """Which accumulators have a bias."""
        names = self.layout.biased
        return tuple(a.gate in names for a in self.trace.accumulators)

    def uniform(self, bound: float, draw: torch.Generator) -> dict[str, torch.Tensor]:
        """Parameters of one network, uniform in ± `bound`."""
        return {
            n: (2 * torch.rand(shape, generator=draw) - 1) * bound
            for n, shape in self.shapes().items()
        }

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Parameter name -> shape, without the axis of networks.

        `weight_ih` and `weight_hh` have a row per accumulator (gate, or one part of a split gate)
        and unit or block, `bias` one for every biased row.
        """
        accumulators = self.trace.accumulators
        from_x = sum(self.rows(a.gate) for a in accumulators if a.from_input)
        from_h = sum(self.rows(a.gate) for a in accumulators if a.from_feedback)
        biased = sum(
            self.rows(a.gate) for a, has in zip(accumulators, self.biased, strict=True) if has
        )
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (from_x, self.inputs),
            "weight_hh": (from_h, self.fed_back),
            "bias": (biased,),
            **dict.fromkeys(self.trace.parameters, (self.units,)),
            "head_weight": (0 if self.head == "none" else self.outputs, self.units),
            "head_bias": (self.outputs,) if self.head_bias else (0,),
            "head_input": (self.outputs, self.inputs) if self.head_inputs else (0, self.inputs),
        }
        return {n: s for n, s in shapes.items() if 0 not in s}

    @property
    def weights(self) -> int:
        """How many weights a network has: the number papers print."""
        total = 0
        for shape in self.shapes().values():
            count = 1
            for size in shape:
                count *= size
            total += count
        return total


def _simple(t: Trace) -> bool:
    """Is it a simple recurrent network: h from W x + U h alone?"""
    whole = [a for a in t.accumulators if a.from_input and a.from_feedback]
    return len(t.accumulators) == len(whole) == 1 and t.feedback == t.states and not t.parameters


def source(network: Network, dtype: torch.dtype, task: str = "") -> str:
    """The complete C source; `task` is the text of a task's C file, or empty."""
    parts = [skeleton("gatewise.executors.cpu", name) for name in ("vector.h", "philox.h")]
    own = ["lanes.c", "traces.c", "errors.c", *(["sweep.c"] if network.whole else []), "run.c"]
    parts += [skeleton(__package__, "sequence.h"), step_source(network)]
    parts += [skeleton(__package__, name) for name in own]
    if task:
        parts += ["#define TASK 1", task]
    return "\n".join([constants(network, dtype), *parts, skeleton(__package__, "drive.c")])


@functools.cache  # a task reads three at every draw
def skeleton(package: str | None, name: str) -> str:
    """The text of a package's source/`name`."""
    assert package is not None
    return (files(package) / "source" / name).read_text("utf-8")


def _defines(values: dict[str, object]) -> str:
    return "\n".join(f"#define {k} {v}" for k, v in values.items())


def sequence_constants(network_or_task: object, dtype: torch.dtype) -> str:
    """What sequence.h and a task's C file read."""
    n = network_or_task
    flags = ("symbols", "every_step", "target_symbols", "judge_end", "ranked")
    values: dict[str, object] = {"REAL_BITS": REAL_BITS[dtype]}
    values |= {k.upper(): getattr(n, k) for k in ("inputs", "outputs")}
    values |= {k.upper(): int(getattr(n, k)) for k in flags}
    return _defines(values)


def constants(network: Network, dtype: torch.dtype) -> str:
    """Everything the skeleton must know of the network."""
    t, local = network.trace, network.local
    accumulators = t.accumulators
    shared, block = network.cell.shared, network.cell.block_size
    rows = [network.rows(a.gate) for a in accumulators]
    needed = () if network.whole else local.traced.values()
    traced = [a.name for a in accumulators if any(a.name in v for v in needed)]
    traced_params = [p for p in t.parameters if any(f"p_{p}" in v for v in needed)]
    values: dict[str, object] = {
        "LOGISTIC": 0,
        "LINEAR": 1,
        "SOFTMAX": 2,
        "NONE": 3,
        "NG": len(accumulators),
        "NS": len(t.states),
        "NP": len(t.parameters),
        "NF": len(t.feedback),
        "NSAVE": len(local.saved),
        "NC": len(local.carried),
        "NTA": len(traced),
        "NTP": len(traced_params),
        "RIGID": int(all(local.rigid(s) for s in local.carried)),
        "UNITS": network.units,
        "BLOCK": block,
        "ROWS": sum(rows),
        "ROW_TILE": _tile(sum(rows)),
        "FED": network.fed_back,
        "HEAD": network.head.upper(),
        "HEAD_BIAS": int(network.head_bias),
        "HEAD_INPUTS": int(network.head_inputs),
        "SLOPE": int(network.slope),
        "STEPWISE": int(network.stepwise),
        "EXACT": int(network.exact),
        "WHOLE": int(network.whole),
    }
    names = [a.name for a in accumulators]
    tables = {
        "ROW0": [sum(rows[:k]) for k in range(len(rows))],
        "SHARED": [int(a.gate in shared) for a in accumulators],
        "SHARED_STATE": [int(s in shared) for s in t.feedback],
        "FROM_X": [int(a.from_input) for a in accumulators],
        "FROM_H": [int(a.from_feedback) for a in accumulators],
        "BIASED": [int(b) for b in network.biased],
        "FEEDBACK": [t.states.index(s) for s in t.feedback],
        "CARRIED": [t.states.index(s) for s in local.carried],
        "TRACED": [names.index(n) for n in traced],
        "TRACE_OF": [traced.index(n) if n in traced else -1 for n in names],
        "PTRACE_OF": [traced_params.index(p) if p in traced_params else -1 for p in t.parameters],
    }
    start = [network.gate_start if s in t.gates else 0.0 for s in t.states]
    text = [
        f"static const double START[] = {{{', '.join(map(str, start))}}};",
    ]
    text += [
        f"static const int {k}[] = {{{', '.join(map(str, v or [0]))}}};" for k, v in tables.items()
    ]
    return "\n".join([sequence_constants(network, dtype), _defines(values), *text])


def _tile(rows: int) -> int:
    """Rows summed at once: as many as registers hold beside the operands."""
    return next(k for k in range(min(rows, 16), 0, -1) if rows % k == 0)


def step_source(network: Network) -> str:
    """The cell in C: one step forward, an error's way into it, its Jacobian; or both ways."""
    t, local = network.trace, network.local
    where = {f"{s}_prev": f"previous[{k}]" for k, s in enumerate(t.states)}
    where |= {f"p_{p}": f"p[{k}]" for k, p in enumerate(t.parameters)}
    back = where | {n: f"kept[{k}]" for k, n in enumerate(local.saved)}
    back |= {v: f"next[{t.states.index(s)}]" for v, s in local.kept_in_state.items()}
    forward = _together(
        where | {a.name: f"a[{k}]" for k, a in enumerate(t.accumulators)},
        local.forward,
        {f"new_{s}": f"next[u][{k}]" for k, s in enumerate(t.states)}
        | {f"save_{n}": f"kept[u][{k}]" for k, n in enumerate(local.saved)},
    )
    leaves = {a.name: f"d_acc[{k}]" for k, a in enumerate(t.accumulators)}
    leaves |= {f"{s}_prev": f"d_previous[{k}]" for k, s in enumerate(t.states)}
    leaves |= {f"p_{p}": f"d_p[{k}]" for k, p in enumerate(t.parameters)}
    if network.whole:
        backward = _function(
            "step_backward(const vec *kept, const vec *previous, const vec *next, const vec *p,\n"
            "                          const vec *d_next, vec *d_acc, vec *d_previous, vec *d_p)",
            back | {f"d_new_{s}": f"d_next[{k}]" for k, s in enumerate(t.states)},
            derive(t).backward,
            {f"g_{leaf}": at for leaf, at in leaves.items()},
        )
        return "\n\n".join([forward, backward])
    error = _function(
        "step_error(const vec *kept, const vec *previous, const vec *next, const vec *p,\n"
        "                       vec d_output, vec *d_acc, vec *d_previous, vec *d_p)",
        back | {f"d_new_{t.output}": "d_output"},
        local.error,
        {f"g_{leaf}": at for leaf, at in leaves.items()},
    )
    traced = [a.name for a in t.accumulators if any(a.name in v for v in local.traced.values())]
    params = [f"p_{p}" for p in t.parameters if any(f"p_{p}" in v for v in local.traced.values())]
    target: dict[str, str] = {}
    for s in local.carried:
        target |= {f"j_{s}__{s}_prev": "*carry"}
        target |= {f"j_{s}__{n}": f"slope[{k}]" for k, n in enumerate(traced)}
        target |= {f"j_{s}__{n}": f"pslope[{k}]" for k, n in enumerate(params)}
    jacobian = _function(
        "step_jacobian(const vec *kept, const vec *previous, const vec *next,\n"
        "                          const vec *p, vec *carry, vec *slope, vec *pslope)",
        back,
        local.jacobian,
        target,
    )
    return "\n\n".join([forward, error, jacobian])


def _together(inputs: dict[str, str], program: Program, target: dict[str, str]) -> str:
    """The forward step of all units, statement by statement and not unit by unit.

    A step waits for one sigmoid after another, each some 60 cycles long; a processor looks a
    hundred instructions ahead at most, so what can run side by side must stand side by side.
    """
    depth: dict[str, int] = {}
    for name, e in program.body:
        depth[name] = 1 + max((depth.get(s.name, 0) for s in e.free_symbols), default=0)
    body = sorted(program.body, key=lambda statement: depth[statement[0]])
    lines = []
    for name, e in body:
        lines.append(f"  vec all_{name}[UNITS];")
        lines.append(_each_unit(inputs, depth, e, f"all_{name}[u]"))
    for name, e in program.outputs:
        if name in target:
            lines.append(_each_unit(inputs, depth, e, target[name]))
    signature = (
        "INLINE void step_forward(const vec (*all)[NG], const vec (*previous)[NS],"
        "\n                         const vec *param, vec (*next)[NS], vec (*kept)[NSAVE + 1]) {"
    )
    return "\n".join([signature, *lines, "}"])


def _each_unit(inputs: dict[str, str], made: dict[str, int], e: sympy.Expr, target: str) -> str:
    """One statement for every unit: `target` may say u."""
    where = {"a": "all[u]", "previous": "previous[u]"}
    bound = []
    for s in sorted(e.free_symbols, key=str):
        name = str(s)
        if name in made:
            source = f"all_{name}[u]"
        else:
            buffer, _, index = inputs[name].partition("[")
            source = f"param[{index[:-1]} * UNITS + u]"
            if buffer in where:
                source = f"{where[buffer]}[{index}"
        bound.append(f"const vec {name} = {source};")
    text = f"{target} = {expression(e, C)};"
    return "  UNROLL for (int u = 0; u < UNITS; u++) { " + " ".join([*bound, text]) + " }"


def _function(
    signature: str, inputs: dict[str, str], program: Program, target: dict[str, str]
) -> str:
    """A program as a function; outputs without a target are left out."""
    lines = statements(program, C)
    lines += [f"  {target[n]} = {expression(e, C)};" for n, e in program.outputs if n in target]
    body = "\n".join(lines)
    used = [f"  const vec {n} = {at};" for n, at in inputs.items() if _mentions(body, n)]
    return "\n".join([f"INLINE void {signature} {{", *used, *lines, "}"])


def _mentions(text: str, name: str) -> bool:
    return re.search(rf"\b{name}\b", text) is not None
