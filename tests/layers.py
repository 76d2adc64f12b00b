"""Layers for the tests of their options, and comparisons of what they give.

Shapes: T = time, B = batch, I = input size, H = hidden units.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

import gatewise as gw
from gatewise.cells import REGISTRY
from gatewise.equations import trace

T, B, I, H = 6, 4, 3, 4  # noqa: E741 - the field's name for the input size
# The same float64 sums in batches of other sizes: a few roundings of 1e-16 each.
CLOSE = {"rtol": 1e-10, "atol": 1e-12}

# What a stack adds is the same for every cell, and the conformance tests compare every kernel
# with the reference: here a few stand for the kernels.
EACH = pytest.mark.parametrize(
    ("cell", "executor"),
    [(name, "reference") for name in REGISTRY]
    + [(name, "cpu") for name in ("lstm", "gru", "lstm-1997-blocks", "fgr")],
    indirect=["executor"],
)


def make(cell: str, executor: str, layers: int = 2, **options: Any) -> gw.Recurrent:
    layer = gw.Recurrent(cell, I, H, layers, executor=executor, dtype=torch.float64, **options)
    for name, p in layer.named_parameters():  # peepholes and gains away from 0 and 1
        if not name.startswith(("weight", "bias_ih", "bias_hh")):
            p.data += 0.3 * torch.randn_like(p)
    return layer


def inputs(batch: int = B) -> torch.Tensor:
    return torch.randn(T, batch, I, dtype=torch.float64)


def random_state(layer: gw.Recurrent, batch: int = B) -> dict[str, torch.Tensor]:
    """A random state of each of the layer's states, by name."""
    _, state = layer(torch.zeros(0, batch, I, dtype=torch.float64))
    names = trace(layer.cell).states
    state = state if isinstance(state, tuple) else (state,)
    return {n: torch.randn_like(s) for n, s in zip(names, state, strict=True)}


def by_name(layer: gw.Recurrent, state: Any) -> dict[str, torch.Tensor]:
    names = trace(layer.cell).states
    return dict(zip(names, state if isinstance(state, tuple) else (state,), strict=True))


def same(actual: Any, expected: Any) -> None:
    torch.testing.assert_close(actual, expected, **CLOSE)
