"""What the mathematics is: cells, functions, tracing, derivation. No time, no device."""

from gatewise.equations.cell import Cell
from gatewise.equations.derive import Program, StepPrograms, derive
from gatewise.equations.layout import Layout, Weights
from gatewise.equations.trace import Accumulator, Trace, evaluate, trace

__all__ = [
    "Accumulator",
    "Cell",
    "Layout",
    "Program",
    "StepPrograms",
    "Trace",
    "Weights",
    "derive",
    "evaluate",
    "trace",
]
