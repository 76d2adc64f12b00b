"""Independent networks of one shape in one request: every tensor has N of them in front.

x [N, T, B, I], weights [N, ...], states [N, B, H], lengths [N, B], resets [N, T, B]. The C kernel
runs all of them in one call; other executors run them in turn, through `in_turn`.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch

from gatewise.equations.layout import Weights
from gatewise.executors.request import Request, Result
from gatewise.executors.rerun import Execute


def in_turn(execute: Execute, request: Request) -> Result:
    """Run each replica's request on `execute`; their results side by side."""
    results = [execute(r) for r in separate(request)]
    return Result(
        torch.stack([r.output for r in results]),
        {s: torch.stack([r.state[s] for r in results]) for s in request.state},
        {n: torch.stack([r.record[n] for r in results]) for n in request.record},
    )


def separate(request: Request) -> list[Request]:
    """One ordinary request per replica, on views."""
    return [_one(request, k) for k in range(len(request.x))]


def _one(request: Request, k: int) -> Request:
    def pick(value: Any) -> Any:
        if isinstance(value, dict):
            return {n: pick(v) for n, v in value.items()}
        return value[k] if isinstance(value, torch.Tensor) else value

    changed = {
        f.name: pick(v)
        for f in fields(request)
        if isinstance(v := getattr(request, f.name), torch.Tensor | dict)
    }
    zoneout, w = request.zoneout, request.weights
    if zoneout is not None:
        assert isinstance(zoneout.seed, tuple)
        changed["zoneout"] = replace(zoneout, seed=zoneout.seed[k])
    weights = Weights(**{f.name: pick(getattr(w, f.name)) for f in fields(w)})
    return replace(request, weights=weights, **changed)
