"""Program -> text. A dialect is a table of how it writes each thing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sympy

from gatewise.equations.derive import Program


@dataclass(frozen=True)
class Dialect:
    """How one language writes an expression over vectors of units."""

    functions: Mapping[str, str]  # class name in equations/functions.py -> function name
    constant: str  # format of a number inside an expression
    alone: str  # format of an expression that is a number and nothing else
    declare: str  # format of an assignment


C = Dialect(
    functions={
        "Sigmoid": "v_sigmoid",
        "Tanh": "v_tanh",
        "Relu": "v_relu",
        "Positive": "v_positive",
        "HardTanh": "v_hard_tanh",
        "Inside": "v_inside",
        "Exp": "v_exp",
        "Log": "v_log",
        "Sqrt": "v_sqrt",
        "Softplus": "v_softplus",
    },
    constant="(real){value}",
    alone="splat({value})",
    declare="  const vec {name} = {text};",
)


def expression(expr: sympy.Expr, dialect: Dialect) -> str:
    """The expression as text."""
    if expr.is_Number:
        return dialect.alone.format(value=_number(expr))
    return _text(expr, dialect)


def statements(program: Program, dialect: Dialect) -> list[str]:
    """The program's assignments, one line each."""
    return [dialect.declare.format(name=n, text=expression(e, dialect)) for n, e in program.body]


def _number(expr: sympy.Expr) -> str:
    return repr(float(expr))


def _text(expr: sympy.Expr, dialect: Dialect) -> str:
    if isinstance(expr, sympy.Symbol):
        return expr.name
    if expr.is_Number:
        return dialect.constant.format(value=_number(expr))
    if isinstance(expr, sympy.Add):
        return _sum(expr, dialect)
    if isinstance(expr, sympy.Mul):
        return _product(expr, dialect)
    if isinstance(expr, sympy.Pow):
        return _power(expr, dialect)
    name = dialect.functions.get(type(expr).__name__)
    if name is None:
        raise ValueError(f"the kernel language has no {type(expr).__name__}")
    return f"{name}({expression(expr.args[0], dialect)})"


def _wrap(expr: sympy.Expr, dialect: Dialect) -> str:
    text = _text(expr, dialect)
    return text if expr.is_Symbol or expr.is_Number or expr.is_Function else f"({text})"


def _sum(expr: sympy.Add, dialect: Dialect) -> str:
    terms = sorted(expr.args, key=lambda e: e.could_extract_minus_sign())
    text = _text(terms[0], dialect)
    for term in terms[1:]:
        if term.could_extract_minus_sign():
            minus = -term
            inner = _wrap(minus, dialect) if isinstance(minus, sympy.Add) else _text(minus, dialect)
            text += f" - {inner}"
        else:
            text += f" + {_text(term, dialect)}"
    return text


def _product(expr: sympy.Mul, dialect: Dialect) -> str:
    over, under = [], []
    for factor in expr.args:
        if isinstance(factor, sympy.Pow) and factor.exp.is_number and factor.exp.is_negative:
            under.append(sympy.Pow(factor.base, -factor.exp))
        else:
            over.append(factor)
    if over and over[0] == -1 and len(over) > 1:
        text = "-" + " * ".join(_wrap(f, dialect) for f in over[1:])
    else:
        text = " * ".join(_wrap(f, dialect) for f in over) or dialect.constant.format(value="1.0")
    if under:
        text += " / " + _wrap(sympy.Mul(*under), dialect)
    return text


def _power(expr: sympy.Pow, dialect: Dialect) -> str:
    base, exponent = expr.base, expr.exp
    if exponent == sympy.Rational(1, 2):
        return f"{dialect.functions['Sqrt']}({expression(base, dialect)})"
    if not exponent.is_Integer:
        raise ValueError(f"the kernel language has no power {exponent}")
    power = " * ".join([_wrap(base, dialect)] * abs(int(exponent)))
    if exponent > 0:
        return power
    one = dialect.constant.format(value="1.0")
    return f"{one} / ({power})"
