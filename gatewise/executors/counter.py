"""Random masks from a counter: the mask of (seed, stream, step, row, unit) is a pure function.

Philox 4x32-10 (Salmon et al., 2011, "Parallel random numbers: as easy as 1, 2, 3"). No state,
so masks do not depend on executor, chunking or number of threads.
"""

from __future__ import annotations

import operator
from typing import Any, SupportsIndex

import torch

SEEDS = 1 << 63  # torch, NumPy and the kernels take what is below

_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_LOW = 0xFFFFFFFF


def checked_seed(value: Any, name: str = "seed") -> int:
    """`value` as an int, where it is a seed: a whole number in 0…2^63 - 1, also NumPy's.

    Raises TypeError for what is no int (True is none), ValueError for one outside.

    >>> checked_seed(7)
    7
    """
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        raise TypeError(f"{name} must be an int, got {value!r}")
    value = operator.index(value)
    if not 0 <= value < SEEDS:
        raise ValueError(f"{name} must be in 0…2^63 - 1, got {value}")
    return value


def _product(factor: int, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """High and low 32 bits of factor · x for x in [0, 2^32), in int64 without overflow."""
    low_part = (x & 0xFFFF) * factor  # < 2^48
    high_part = (x >> 16) * factor + (low_part >> 16)  # < 2^49
    return high_part >> 16, ((high_part & 0xFFFF) << 16) | (low_part & 0xFFFF)


def philox(counter: tuple[torch.Tensor, ...], key: tuple[int, int]) -> tuple[torch.Tensor, ...]:
    """Four 32-bit words per counter; counter words are int64 tensors in [0, 2^32)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        h0, l0 = _product(_M0, c0)
        h1, l1 = _product(_M1, c2)
        c0, c1, c2, c3 = h1 ^ c1 ^ k0, l1, h0 ^ c3 ^ k1, l0
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    return c0, c1, c2, c3


def uniform(
    seed: int, stream: int, steps: range, rows: int, units: int, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Uniform numbers in [0, 1): float32 [steps, rows, units].

    Counter words: unit // 4, row, step, stream; the unit's remainder picks one of four words.
    The top 24 bits of the word make the number, so every float32 value is exact.
    """
    if torch.device(device).type == "cpu":
        from gatewise.executors.cpu.uniform import uniform as compiled  # which stands above this

        drawn = compiled(seed, stream, steps, rows, units)
        if drawn is not None:
            return drawn
    return on_tensors(seed, stream, steps, rows, units, device)


def on_tensors(
    seed: int, stream: int, steps: range, rows: int, units: int, device: torch.device | str
) -> torch.Tensor:
    """The definition of `uniform`, in PyTorch's operations: any device, no compiler."""
    quads = -(-units // 4)
    unit = torch.arange(quads, device=device).view(1, 1, -1)
    row = torch.arange(rows, device=device).view(1, -1, 1)
    step = torch.arange(steps.start, steps.stop, device=device).view(-1, 1, 1)
    words = philox(
        tuple(
            w.expand(len(steps), rows, quads)
            for w in (unit, row, step, torch.full_like(unit, stream))
        ),
        (seed & _LOW, (seed >> 32) & _LOW),
    )
    bits = torch.stack(words, -1).flatten(-2)[..., :units]
    return (bits >> 8).to(torch.float32) * 2.0**-24
