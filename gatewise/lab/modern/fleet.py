"""Networks that learn side by side: all their numbers in one matrix, their layers in one call.

Shapes: N = networks, P = numbers of one of them, T = time, B = batch, I = input size,
H = hidden units, O = outputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import pad

from gatewise.lab.modern.network import Network, whole
from gatewise.layers import Recurrent, join
from gatewise.learning import BPTT, HDetach


@dataclass(frozen=True)
class Part:
    """Some networks of a fleet, whose recurrent layers run in one call where `layer` is given."""

    nets: Sequence[Network]
    layer: Recurrent | None = None
    rows: torch.Tensor | None = None  # [N, P]: theirs; a row begins with the layer's numbers

    def __call__(
        self,
        xs: Sequence[torch.Tensor],
        lengths: Sequence[torch.Tensor],
        rules: Sequence[BPTT | HDetach],
    ) -> list[torch.Tensor]:
        """Every network's outputs for its own x [T, B, I], T each its own, and lengths [B]."""
        if self.layer is None:
            each = zip(self.nets, xs, lengths, rules, strict=True)
            return [net(x, n, rule) for net, x, n, rule in each]
        steps = max(map(len, xs))
        x = torch.stack([pad(x, (0, 0, 0, 0, 0, steps - len(x))) for x in xs])  # [N, T, B, I]
        call = {"lengths": torch.stack(list(lengths))}
        seen, state = functional_call(self.layer, self._weights(), (x,), call)
        last = (state if isinstance(state, torch.Tensor) else state[0])[:, -1]  # [N, B, H]
        found = zip(self.nets, seen.unbind(), last.unbind(), xs, strict=True)
        return [net.answer(s[: len(x)], h) for net, s, h, x in found]

    def _weights(self) -> dict[str, torch.Tensor]:
        """The layer's parameters [N, ...], as parts of the rows."""
        assert self.layer is not None and self.rows is not None
        named = dict(self.layer.named_parameters())
        sizes = [p[0].numel() for p in named.values()]
        parts = self.rows.split([*sizes, self.rows.shape[1] - sum(sizes)], 1)
        return {n: part.view(p.shape) for (n, p), part in zip(named.items(), parts, strict=False)}


class Fleet:
    """Networks of one shape, each of which learns what it learns alone, to the bit.

    Their numbers are the rows of one matrix, and every parameter, gradient and moment of a network
    is a window on a row: one step of the optimiser moves all of them. To go on with fewer, make
    another fleet of those; the others stay as they are.

    Args:
        nets: N networks of one shape.
        betas: Adam's.
        together: how many recurrent layers one call of the kernel runs.
    """

    def __init__(self, nets: Sequence[Network], betas: tuple[float, float], together: int) -> None:
        self.rows = nn.Parameter(torch.stack([_row(n.parameters()) for n in nets]))  # [N, P]
        self.grads = torch.stack([_row(map(_gradient, n.parameters())) for n in nets])
        self.moments = torch.stack([n.moments for n in nets], 1)  # [2, N, P]
        self.adam = torch.optim.Adam([self.rows], betas=betas, fused=True)
        self.rows.grad, rows = self.grads, self.rows.detach()
        for k, net in enumerate(nets):
            _look(net, rows[k], self.grads[k])
            net.moments = self.moments[:, k]
        self.parts: list[Part] = []
        for first in range(0, len(nets), together):
            some = slice(first, first + together)
            self.parts.append(_part(nets[some], rows[some], self.grads[some], together))

    def step(self, number: int, rate: float, clip: float) -> None:
        """Adam's step `number` of every network, along a gradient no longer than `clip`."""
        norm = torch.linalg.vector_norm(self.grads, dim=1, keepdim=True)
        self.grads *= (clip / (norm + 1e-6)).clamp(max=1)
        [group] = self.adam.param_groups
        group["lr"] = rate
        self.adam.state[self.rows] = {
            "step": torch.tensor(float(number - 1)),
            "exp_avg": self.moments[0],
            "exp_avg_sq": self.moments[1],
        }
        self.adam.step()
        self.grads.zero_()


def _part(nets: Sequence[Network], rows: torch.Tensor, grads: torch.Tensor, together: int) -> Part:
    if together == 1:
        return Part(nets)
    leaf = nn.Parameter(rows)  # the same numbers
    leaf.grad = grads
    return Part(nets, join([n.layer for n in nets if isinstance(n.layer, Recurrent)]), leaf)


def _gradient(p: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(p) if p.grad is None else p.grad


def _row(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    """Their numbers, and zeros to the size of a row."""
    flat = torch.cat([t.detach().flatten() for t in tensors])
    return pad(flat, (0, whole(len(flat)) - len(flat)))


def _look(net: Network, row: torch.Tensor, grad: torch.Tensor) -> None:
    """Make the network's parameters and their gradients windows on [P]."""
    first = 0
    for p in net.parameters():
        span = slice(first, first + p.numel())
        p.data, p.grad = row[span].view(p.shape), grad[span].view(p.shape)
        first = span.stop
