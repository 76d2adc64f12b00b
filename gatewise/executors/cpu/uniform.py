"""Random numbers from a counter, in C: those of executors/counter.py, some 60 times sooner."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import torch

from gatewise.executors.cpu import toolchain
from gatewise.executors.cpu.generate import c_text
from gatewise.executors.cpu.kernel import invoke

_PARALLEL_FROM = 100_000  # numbers; some 0.1 ms


@functools.cache
def _function() -> Any:
    """The compiled function; None without a compiler."""
    parts = ["#define REAL_BITS 32", *map(c_text, ("vector.h", "philox.h", "uniform.c"))]
    text = "\n".join(parts)
    try:
        found = toolchain.library("uniform " + text, lambda: text).gw_uniform
    except toolchain.NoCompilerError:
        return None
    found.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    found.restype = None
    return found


def uniform(seed: int, stream: int, steps: range, rows: int, units: int) -> torch.Tensor | None:
    """float32 [steps, rows, units]; None where it must be computed on tensors."""
    out = torch.empty(len(steps), rows, units)
    function = _function()
    if function is None or type(out) is not torch.Tensor:  # a mode of torch makes its own tensors
        return None
    threads = torch.get_num_threads() if out.numel() >= _PARALLEL_FROM else 1
    signed = (seed & (1 << 64) - 1) - ((seed & 1 << 63) << 1)
    invoke(function, [threads, rows, units, len(steps), steps.start, stream, signed], [out])
    return out
