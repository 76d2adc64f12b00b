"""What the mathematics is: cells, functions, tracing, derivation. No time, no device."""

from gatewise.equations.cell import Cell
from gatewise.equations.derive import Program, StepPrograms, derive, edges
from gatewise.equations.layout import Layout, Weights
from gatewise.equations.local import LocalPrograms, derive_local
from gatewise.equations.trace import Accumulator, Trace, evaluate, trace

__all__ = [
    "Accumulator",
    "Cell",
    "Layout",
    "LocalPrograms",
    "Program",
    "StepPrograms",
    "Trace",
    "Weights",
    "derive",
    "derive_local",
    "edges",
    "evaluate",
    "trace",
]
