"""Fused C kernels, derived from a cell's equations, compiled on first use."""

from __future__ import annotations

import time

import torch

from gatewise.equations.trace import Trace
from gatewise.executors.cpu import generate
from gatewise.executors.cpu.kernel import Kernel, build
from gatewise.executors.cpu.launch import (
    beside,
    note,
    obstacles,
    run,
    run_together,
    same_kernel,
)

__all__ = [
    "beside",
    "note",
    "obstacles",
    "prepare",
    "run",
    "run_together",
    "same_kernel",
    "source",
]


def source(trace: Trace, dtype: torch.dtype = torch.float32, training: bool = True) -> str:
    """The complete C source of a cell's kernel.

    Raises ValueError for a cell that has no kernel.
    """
    return generate.source(generate.KernelSpec(trace, dtype, training))


def prepare(trace: Trace, dtype: torch.dtype = torch.float32, training: bool = True) -> float:
    """Derive, compile (or find in the cache) and load a kernel; the seconds it took.

    Raises ValueError for a cell without a kernel, NoCompilerError without a compiler.
    """
    start = time.perf_counter()
    made: Kernel = build(generate.KernelSpec(trace, dtype, training))
    assert made.lanes
    return time.perf_counter() - start
