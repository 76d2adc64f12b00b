"""A cell's equations for people: plain text with subscripts, and LaTeX, from its trace.

    f̃ₜ = W_f·xₜ + U_f·hₜ₋₁ + b_f        a gate before its nonlinearity
    cₜ = cₜ₋₁·σ(f̃ₜ) + σ(ĩₜ)·tanh(g̃ₜ)    per unit

Nothing is written here that the trace does not say.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from unicodedata import normalize

import sympy
from sympy.printing.latex import LatexPrinter
from sympy.printing.precedence import PRECEDENCE
from sympy.printing.str import StrPrinter

from gatewise.equations.derive import Program
from gatewise.equations.trace import Trace, symbol

_FUNCTIONS = {
    "Sigmoid": "σ",
    "Tanh": "tanh",
    "Relu": "relu",
    "Positive": "step",
    "HardTanh": "hardtanh",
    "Inside": "inside",
    "Exp": "exp",
    "Log": "ln",
    "Sqrt": "sqrt",
    "Softplus": "softplus",
    "Mean": "mean",
}
_USUAL = {"candidate": "g", "update": "z"}  # the field's letter where it is not the first
_PARAMETER = {"peephole": "p", "bias": "b"}  # the same for the kinds of per-unit parameters
_LARGE = 60  # operations; beyond this, repeated parts get a name


@dataclass(frozen=True)
class Equations:
    """A cell's equations as lines: what each gate sums, then what each state becomes."""

    gates: list[str]
    states: list[str]

    def __str__(self) -> str:
        return "\n".join([*self.gates, "", *self.states])


@dataclass(frozen=True)
class _Notation:
    """How one language writes a symbol: letter, time, decoration."""

    now: str
    before: str
    tilde: str
    weight: str  # W, U or b of a gate
    product: str
    equals: str
    recurrent: str  # marks the part of a split gate that comes through U
    wide: str  # a name of more than one letter


_TEXT = _Notation("ₜ", "ₜ₋₁", "{}\u0303", "{}_{}", "·", " = ", "ʳ", "{}")
_LATEX = _Notation(
    "_{t}", "_{t-1}", r"\tilde{{{}}}", "{}_{{{}}}", r" \, ", " &= ", "^{r}", r"\mathrm{{{}}}"
)


def pretty(trace: Trace) -> Equations:
    """The equations as plain text (Unicode)."""
    found = _equations(trace, _TEXT, _Text(_names(trace, _TEXT)))
    return Equations(
        *([normalize("NFC", line) for line in part] for part in (found.gates, found.states))
    )  # one character per letter where there is one


def describe(trace: Trace) -> str:
    """The equations with what the cell's class says of itself, and which letter is which gate."""
    doc = (type(trace.cell).__doc__ or "").strip().splitlines()
    legend = ", ".join(f"{c} = {g}" for g, c in letters(trace).items() if g != c)
    lines = [doc[0] if doc else type(trace.cell).__name__]
    lines += [trace.cell.source] if trace.cell.source else []
    lines += ["", str(pretty(trace)), ""]
    lines += [f"gates: {legend}; a tilde marks the sum before the nonlinearity"] if legend else []
    shared = [g for g in trace.gates if g in trace.cell.shared]
    if shared and trace.cell.block_size > 1:
        size = trace.cell.block_size
        lines.append(f"one {' and one '.join(shared)} gate per block of {size} units")
    if any(not a.from_input for a in trace.accumulators):
        lines.append("ʳ marks the part that comes through U, kept apart from W x")
    return "\n".join(lines)


def latex(trace: Trace) -> str:
    """The equations as one LaTeX `aligned` environment."""
    lines = _equations(trace, _LATEX, _Latex(_names(trace, _LATEX)))
    inner = " \\\\\n".join([*lines.gates, *lines.states])
    return f"\\begin{{aligned}}\n{inner}\n\\end{{aligned}}"


def program(p: Program) -> str:
    """A derived program, one assignment per line."""
    printer = _Text({})
    width = max((len(n) for n, _ in (*p.body, *p.outputs)), default=0)
    lines = [f"{n:<{width}} = {printer.doprint(e)}" for n, e in (*p.body, *p.outputs)]
    return "\n".join(lines)


def letters(trace: Trace) -> dict[str, str]:
    """Gate -> its letter, or its whole name where two gates want the same letter."""
    wanted = {g: _USUAL.get(g, g[0]) for g in trace.gates}
    return {g: c if list(wanted.values()).count(c) == 1 else g for g, c in wanted.items()}


def _names(trace: Trace, n: _Notation) -> dict[str, str]:
    """Symbol name -> how it is written."""
    letter = letters(trace)
    names = {}
    for a in trace.accumulators:
        part = n.recurrent if a.from_feedback and not a.from_input else ""
        names[a.name] = n.tilde.format(_name(letter[a.gate], n)) + part + n.now
    for s in trace.states:
        names[f"{s}_prev"] = _name(letter.get(s, s), n) + n.before
        names[f"{s}_now"] = _name(letter.get(s, s), n) + n.now
    for p in trace.parameters:
        head, _, tail = p.rpartition("_")
        kind, of = _PARAMETER.get(head, head), letter.get(tail, tail)
        names[f"p_{p}"] = n.weight.format(_name(kind, n), _name(of, n)) if head else _name(p, n)
    return names


def _name(text: str, n: _Notation) -> str:
    """A letter as it is; a word as a word."""
    if len(text) == 1:
        return text
    return n.wide.format(text if n is _TEXT else text.replace("_", r"\_"))


def _equations(trace: Trace, n: _Notation, printer: StrPrinter | LatexPrinter) -> Equations:
    gates = _gate_lines(trace, n, printer)
    names = _names(trace, n)
    lines = [(names[f"{state}_now"], expr) for state, expr in _ordered(trace)]
    if sum(e.count_ops() for _, e in lines) > _LARGE:
        temporaries, reduced = sympy.cse([e for _, e in lines], symbols=_numbered())
        lines = [
            *((str(s) if n is _TEXT else printer.doprint(s), e) for s, e in temporaries),
            *((left, e) for (left, _), e in zip(lines, reduced, strict=True)),
        ]
    return Equations(gates, [left + n.equals + printer.doprint(e) for left, e in lines])


def _ordered(trace: Trace) -> list[tuple[str, sympy.Expr]]:
    """New states, each written with the ones before it: h_t in terms of c_t."""
    pending = dict(trace.new_states)
    done: list[tuple[str, sympy.Expr]] = []
    # The smallest first: what it computes is then found inside the larger ones.
    for state in sorted(pending, key=lambda s: (pending[s].count_ops(), s)):
        expr = pending[state]
        for earlier, _ in reversed(done):
            whole = trace.new_states[earlier]
            if whole.args:  # a constant or a lone symbol would be found everywhere
                expr = expr.subs(whole, symbol(f"{earlier}_now"))
        done.append((state, expr))
    return done


def _gate_lines(trace: Trace, n: _Notation, printer: StrPrinter | LatexPrinter) -> list[str]:
    letter, names = letters(trace), _names(trace, n)
    fed = ", ".join(names[f"{s}_prev"] for s in trace.feedback)
    fed = f"[{fed}]" if len(trace.feedback) > 1 else fed
    lines = []
    for a in trace.accumulators:
        of = _name(letter[a.gate], n)
        terms = []
        if a.from_input:
            terms.append(n.weight.format("W", of) + n.product + "x" + n.now)
        source = trace.late_sources.get(a.name)
        if a.from_feedback and source is not None:
            terms.append(n.weight.format("U", of) + n.product + f"({printer.doprint(source)})")
        elif a.from_feedback and trace.feedback:
            terms.append(n.weight.format("U", of) + n.product + fed)
        split = a.from_input != a.from_feedback
        if a.gate in trace.cell.gates_with_bias and not (
            split and trace.cell.biases == 1 and a.from_feedback
        ):
            mark = n.recurrent if split and a.from_feedback else ""
            terms.append(n.weight.format("b", of) + mark)
        left = printer.doprint(symbol(a.name))
        lines.append(left + n.equals + " + ".join(terms))
    return lines


def _numbered() -> Iterable[sympy.Symbol]:
    k = 0
    while True:
        k += 1
        yield symbol(f"u{k}")


class _Text(StrPrinter):
    """Products with a centred dot, functions by their usual sign, symbols by `names`."""

    def __init__(self, names: dict[str, str]) -> None:
        super().__init__()
        self._names = names

    def _print_Symbol(self, expr: sympy.Symbol) -> str:
        name = str(expr.name)
        return self._names.get(name, name)

    def _print_Function(self, expr: sympy.Function) -> str:
        name = type(expr).__name__
        return f"{_FUNCTIONS.get(name, name)}({self.stringify(expr.args, ', ')})"

    def _print_Mul(self, expr: sympy.Mul) -> str:
        return super()._print_Mul(expr).replace("*", "·")

    def _print_Pow(self, expr: sympy.Pow, rational: bool = False) -> str:
        if expr.exp == 2:
            return self.parenthesize(expr.base, PRECEDENCE["Atom"], strict=True) + "²"
        return super()._print_Pow(expr, rational).replace("**", "^")

    def _print_Float(self, expr: sympy.Float) -> str:
        return f"{float(expr):g}"


class _Latex(LatexPrinter):
    """SymPy's LaTeX with our names for the symbols."""

    def __init__(self, names: dict[str, str]) -> None:
        super().__init__()
        self._names = names

    def _print_Symbol(self, expr: sympy.Symbol, style: str = "plain") -> str:
        name = self._names.get(expr.name)
        return super()._print_Symbol(expr, style) if name is None else name

    def _print_Float(self, expr: sympy.Float) -> str:
        return f"{float(expr):g}"
