"""What an executor is asked to do, and what it gives back.

Shapes: T = time, B = batch, I = input size, H = hidden units, R = fed-back values. Time first.
With N replicas every tensor has N in front; see `replicas`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from gatewise.equations.layout import Weights
from gatewise.equations.trace import Trace


@dataclass(frozen=True)
class Zoneout:
    """Random preservation of states (Krueger et al., 2016).

    Training: s_t = s_{t-1} where the mask is set (probability p), else the new s_t.
    Evaluation: s_t = p s_{t-1} + (1 - p) s_t.
    """

    probability: dict[str, float]  # state -> p
    training: bool
    seed: int | tuple[int, ...]  # one for each replica, where there are replicas
    stream: int  # which layer and direction: masks of different streams are independent
    offset: int = 0  # the stream's first step; a carried chunk continues the count


@dataclass(frozen=True)
class Request:
    """Run one direction of one layer over a whole sequence."""

    trace: Trace
    weights: Weights
    x: torch.Tensor  # [T, B, I]; anything, even NaN, at steps that do not exist
    state: dict[str, torch.Tensor]  # name -> [B, H] (the output state [B, P] if projected)
    reverse: bool = False
    lengths: torch.Tensor | None = None  # [B] int64, 0…T: steps t >= length do not exist
    resets: torch.Tensor | None = None  # [T, B] bool: state zeroed before step t (as it runs)
    record: tuple[str, ...] = ()  # names in trace.signals, wanted at every step
    feedback_mask: torch.Tensor | None = None  # [B, R]: scales what U multiplies, all steps
    zoneout: Zoneout | None = None
    cut: frozenset[str] = frozenset()  # edges (equations.edges) that carry no gradient
    cut_steps: torch.Tensor | None = None  # [T, B] bool: where the cut applies; None: everywhere
    held: str = "full"  # how products read W and U; see executors/rounding.py
    checkpoint: int = 0  # steps per chunk that backward runs again; 0: everything is kept

    @property
    def replicas(self) -> int:
        """N, or 0 where there is no leading N."""
        return len(self.x) if self.x.dim() == 4 else 0


def live_steps(request: Request) -> torch.Tensor | None:
    """Which steps exist, [T, B] bool; None: all."""
    x, lengths = request.x, request.lengths
    if lengths is None:
        return None
    return torch.arange(len(x), device=x.device)[:, None] < lengths.to(x.device)


def blank_input(request: Request) -> Request:
    """The same with zeros for whatever stands at steps that do not exist."""
    live = live_steps(request)
    if live is None:
        return request
    return replace(request, x=torch.where(live.unsqueeze(-1), request.x, 0.0))


@dataclass(frozen=True)
class Result:
    """Outputs at every step and the states after the last one."""

    output: torch.Tensor  # [T, B, H or P]; zero at steps past a row's length
    state: dict[str, torch.Tensor]  # name -> [B, H]: after the row's last step
    record: dict[str, torch.Tensor] = field(default_factory=dict)  # name -> [T, B, H]
