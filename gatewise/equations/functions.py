"""The functions an equation may use: each works on torch tensors, numbers and symbols alike.

A cell calls `sigmoid(gate.forget)` without knowing whether it is being run (tensors) or
traced (symbols). Adding a function means adding one `Elementary` here and its line in the
dialect tables of `executors/render.py`; the derivative is written once, below, in terms of the
function's own value wherever that is possible, because the value is what a backward pass has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sympy
import torch

Value = Any  # a torch tensor [..., H], a Python number, or a SymPy expression


class _Symbolic(sympy.Function):
    """An elementary function of one real argument, kept unevaluated."""

    nargs = 1
    is_extended_real = True

    def _latex(self, printer: Any, exp: Any = None) -> str:
        name = _LATEX[type(self).__name__]
        text = rf"{name}\left({printer._print(self.args[0])}\right)"
        return text if exp is None else rf"{text}^{{{exp}}}"


class Sigmoid(_Symbolic):
    def fdiff(self, argindex: int = 1) -> sympy.Expr:
        return self * (1 - self)


class Tanh(_Symbolic):
    def fdiff(self, argindex: int = 1) -> sympy.Expr:
        return 1 - self * self


class Relu(_Symbolic):
    def fdiff(self, argindex: int = 1) -> sympy.Expr:
        return Positive(self)


class Positive(_Symbolic):
    """1 where the argument is above 0, else 0."""

    def fdiff(self, argindex: int = 1) -> sympy.Expr:
        return sympy.Integer(0)


class HardTanh(_Symbolic):
    def fdiff(self, argindex: int = 1) -> sympy.Expr:
        return Inside(self)


class Inside(_Symbolic):
    """1 where the argument lies strictly between -1 and 1, else 0."""

    def fdiff(self, argindex: int = 1) -> sympy.Expr:
        return sympy.Integer(0)


class Exp(_Symbolic):
    def fdiff(self, argindex: int = 1) -> sympy.Expr:
        return self


class Log(_Symbolic):
    def fdiff(self, argindex: int = 1) -> sympy.Expr:
        return 1 / self.args[0]


class Sqrt(_Symbolic):
    def fdiff(self, argindex: int = 1) -> sympy.Expr:
        return sympy.Rational(1, 2) / self


class Softplus(_Symbolic):
    def fdiff(self, argindex: int = 1) -> sympy.Expr:
        return Sigmoid(self.args[0])


class Mean(_Symbolic):
    """The mean of a value over all units of the layer: one number per row of the batch."""

    def fdiff(self, argindex: int = 1) -> sympy.Expr:
        raise NotImplementedError("the mean over units has no per-unit derivative")


_LATEX = {
    "Sigmoid": r"\sigma",
    "Tanh": r"\tanh",
    "Relu": r"\operatorname{relu}",
    "Positive": r"\operatorname{step}",
    "HardTanh": r"\operatorname{hardtanh}",
    "Inside": r"\operatorname{inside}",
    "Exp": r"\exp",
    "Log": r"\ln",
    "Sqrt": r"\operatorname{sqrt}",
    "Softplus": r"\operatorname{softplus}",
    "Mean": r"\operatorname{mean}",
}


@dataclass(frozen=True)
class Elementary:
    """A named function with its tensor form and its symbol."""

    name: str
    on_tensor: Callable[[torch.Tensor], torch.Tensor]
    symbol: type[sympy.Function]

    def __call__(self, x: Value) -> Value:
        if isinstance(x, torch.Tensor):
            return self.on_tensor(x)
        if isinstance(x, sympy.Basic):
            return self.symbol(x)
        if isinstance(x, int | float):
            return float(self.on_tensor(torch.tensor(float(x), dtype=torch.float64)))
        raise TypeError(f"{self.name} takes a tensor, a number or a symbol, got {type(x).__name__}")

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> Any:
        return _function_by_name, (self.name,)  # pickles as a name: no code travels


sigmoid = Elementary("sigmoid", torch.sigmoid, Sigmoid)
tanh = Elementary("tanh", torch.tanh, Tanh)
relu = Elementary("relu", torch.relu, Relu)
hard_tanh = Elementary("hard_tanh", torch.nn.functional.hardtanh, HardTanh)
exp = Elementary("exp", torch.exp, Exp)
log = Elementary("log", torch.log, Log)
sqrt = Elementary("sqrt", torch.sqrt, Sqrt)
softplus = Elementary("softplus", torch.nn.functional.softplus, Softplus)
mean = Elementary("mean", lambda x: x.mean(dim=-1, keepdim=True), Mean)

ELEMENTARY = {f.name: f for f in (sigmoid, tanh, relu, hard_tanh, exp, log, sqrt, softplus, mean)}


def _function_by_name(name: str) -> Callable[[Value], Value]:
    return ELEMENTARY[name] if name in ELEMENTARY else COMPOSITIONS[name]


# Compositions: written with the functions above, so they need no derivative of their own.


@dataclass(frozen=True)
class Composition:
    """A named function made of others; prints and pickles as its name."""

    name: str
    function: Callable[[Value], Value]

    def __call__(self, x: Value) -> Value:
        return self.function(x)

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> Any:
        return _function_by_name, (self.name,)


def _named(function: Callable[[Value], Value]) -> Composition:
    made = Composition(function.__name__, function)
    object.__setattr__(made, "__doc__", function.__doc__)
    COMPOSITIONS[made.name] = made
    return made


COMPOSITIONS: dict[str, Composition] = {}


@_named
def identity(x: Value) -> Value:
    """x unchanged."""
    return x


@_named
def silu(x: Value) -> Value:
    """x · σ(x) (Elfwing et al., 2017)."""
    return x * sigmoid(x)


@_named
def hard_sigmoid(x: Value) -> Value:
    """min(max(x/6 + 1/2, 0), 1), torch's form."""
    return 0.5 + 0.5 * hard_tanh(x / 3)


@_named
def centred_2(x: Value) -> Value:
    """g of the 1997 paper: 4σ(x) - 2, in [-2, 2]."""
    return 4 * sigmoid(x) - 2


@_named
def centred_1(x: Value) -> Value:
    """h of the 1997 paper: 2σ(x) - 1, in [-1, 1]."""
    return 2 * sigmoid(x) - 1


@dataclass(frozen=True)
class constant:  # lower case: in a cell it stands for a function, input=constant(1.0)
    """A function that ignores its argument; replaces a gate in an ablation.

    >>> constant(0.9)(None)
    0.9
    """

    value: float

    def __call__(self, x: Value) -> float:
        return self.value


def normalise(values: Sequence[Value], eps: float = 1e-5) -> list[Value]:
    """Layer normalisation without gain and bias, over all units of all `values` together.

    (v - μ) / sqrt(σ² + eps), μ and σ² taken per row over len(values)·H numbers
    (Ba, Kiros & Hinton, 2016, eq. 3–4).
    """
    n = len(values)
    mu = sum(mean(v) for v in values) / n
    centred = [v - mu for v in values]
    variance = sum(mean(v * v) for v in centred) / n
    scale = 1 / sqrt(variance + eps)
    return [v * scale for v in centred]
