"""Random masks of a stack: pure functions of (seed, kind, layer, step, row, unit).

Shapes: T = time, B = batch, N = units.
"""

from __future__ import annotations

import torch

from gatewise.executors.counter import uniform

# Streams of one seed. Zoneout counts its own from 0 (layer, direction and state), so the kinds
# start far above it; a layer or direction is added to its kind's first stream.
BETWEEN_LAYERS = 1 << 28
LAYER_INPUT = 2 << 28
RECURRENT = 3 << 28
WEIGHTS = 4 << 28


Seed = int | tuple[int, ...]  # one for all rows, or one for each replica


def fresh_seed() -> int:
    """A seed from torch's default generator: torch.manual_seed repeats it."""
    return int(torch.randint(0, 2**62, ()).item())


def weight_mask(p: float, seed: Seed, stream: int, weight: torch.Tensor) -> torch.Tensor:
    """`dropout_mask` for the entries of a matrix [R, N], or of each replica's [replicas, R, N]."""
    rows = weight.unsqueeze(-3)  # a mask of one step, the rows in place of a batch's
    return dropout_mask(p, seed, stream, range(1), rows, weight.shape[-1]).squeeze(-3)


def dropout_mask(
    p: float, seed: Seed, stream: int, steps: range, x: torch.Tensor, units: int
) -> torch.Tensor:
    """0 with probability p, else 1/(1-p): [len(steps), B, N], dtype and device of x [T, B, _].

    With a seed for each replica, x [replicas, T, B, _], the masks are stacked.
    """
    if isinstance(seed, tuple):
        rows = zip(seed, x, strict=True)
        return torch.stack([dropout_mask(p, own, stream, steps, r, units) for own, r in rows])
    rows = x.shape[1]
    if p == 1.0:
        return x.new_zeros(len(steps), rows, units)
    kept = uniform(seed, stream, steps, rows, units, x.device) >= p
    return kept.to(x.dtype) * (1.0 / (1.0 - p))
