"""Weights held in fewer bits: what numbers the products then see.

The parameters stay as they are; products read them rounded. What a rounded weight is, is defined
here, for every executor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from gatewise.executors.request import Request
from gatewise.executors.rerun import wants_gradient

HELD = ("full", "bf16", "int8")


def rounded(request: Request) -> Request:
    """The request with its matrices' numbers rounded as `request.held` says.

    W, U and the projection are rounded, biases and per-unit parameters are not. The gradient
    passes through unchanged: it is that by the rounded weights, given to the parameters.

    - "full": nothing is rounded.
    - "bf16": to the nearest bfloat16, 8 bits of mantissa (relative error up to 2⁻⁹).
    - "int8": to a multiple of 1/127 of the largest weight, which each row of W, and each row of
      U for each fed-back state, has for itself. For inference.
    """
    if request.held == "full":
        return request
    w = request.weights
    return replace(
        request,
        held="full",
        weights=replace(
            w,
            weight_ih=_straight(w.weight_ih, _ROUND[request.held]),
            weight_hh=_by_state(w.weight_hh, len(request.trace.feedback), _ROUND[request.held]),
            projection=w.projection
            if w.projection is None
            else _straight(w.projection, _ROUND[request.held]),
        ),
    )


def refuse_training(request: Request) -> None:
    """Raise ValueError where a gradient is asked for that `request.held` does not have."""
    if request.held == "int8" and wants_gradient(request):
        raise ValueError(
            "weights='int8' are for inference: call under torch.no_grad(), or train with "
            "weights='full' or 'bf16'"
        )


Round = Callable[[torch.Tensor], torch.Tensor]


def _straight(w: torch.Tensor, rounding: Round) -> torch.Tensor:
    """Rounded w, with the gradient of w; the difference is exact, so the sum is too."""
    return w + (rounding(w) - w).detach()


def _by_state(w: torch.Tensor, states: int, rounding: Round) -> torch.Tensor:
    """[..., F*H], each state's columns by themselves."""
    return torch.cat([_straight(p, rounding) for p in w.chunk(max(states, 1), -1)], -1)


def _bfloat(w: torch.Tensor) -> torch.Tensor:
    return w.to(torch.bfloat16).to(w.dtype)


def _bytes(w: torch.Tensor) -> torch.Tensor:
    if not w.shape[-1]:
        return w
    scale = w.abs().amax(-1, keepdim=True) / 127
    return torch.where(scale > 0, (w / scale).round(), 0.0) * scale


_ROUND: dict[str, Round] = {"bf16": _bfloat, "int8": _bytes}


def note(request: Request) -> str:
    """What is rounded, in words; empty where nothing is."""
    return "" if request.held == "full" else f"with {request.held} weights"
