"""Weights held in fewer bits: what numbers the products then see.

The parameters stay as they are; products read them rounded. What a rounded weight is, is defined
here, for every executor.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from gatewise.executors.request import Request

HELD = ("full", "bf16")


def rounded(request: Request) -> Request:
    """The request with its matrices' numbers rounded as `request.held` says.

    W, U and the projection are rounded, biases and per-unit parameters are not. The gradient
    passes through unchanged: it is that by the rounded weights, given to the parameters.

    - "full": nothing is rounded.
    - "bf16": to the nearest bfloat16, 8 bits of mantissa (relative error up to 2⁻⁹).
    """
    if request.held == "full":
        return request
    w = request.weights
    return replace(
        request,
        held="full",
        weights=replace(
            w,
            weight_ih=_round(w.weight_ih),
            weight_hh=_round(w.weight_hh),
            projection=None if w.projection is None else _round(w.projection),
        ),
    )


def _round(w: torch.Tensor) -> torch.Tensor:
    """bfloat16 numbers in the dtype of w; the difference is exact, so the sum is too."""
    return w + (w.to(torch.bfloat16).to(w.dtype) - w).detach()


def note(request: Request) -> str:
    """What is rounded, in words; empty where nothing is."""
    return "" if request.held == "full" else f"with {request.held} weights"
