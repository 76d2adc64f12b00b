"""A causal Transformer as the control: the same input, output and call as a recurrent layer.

T = steps, B = batch, I = input size, H = width, A = heads, D = H/A numbers of a head, S = steps
read before.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

_BASE = 10_000.0  # of the rotary wavelengths


class Cache(NamedTuple):
    """What one layer keeps of the steps it has read; it grows with them."""

    keys: torch.Tensor  # [B, A, S, D]
    values: torch.Tensor  # [B, A, S, D]


class Transformer(nn.Module):
    """Causal self-attention in pre-norm residual blocks, with rotary positions.

    x ← x + attention(norm(x)),  x ← x + W₂ gelu(W₁ norm(x)), and a last norm.

    Args:
        input_size: I, numbers per step of the input.
        hidden_size: H, numbers per step inside and of the output.
        num_layers: blocks.
        heads: A; H must be an even multiple of it.
        expansion: width of W₁'s result, in H.

    Raises:
        ValueError: a size below 1, or H no even multiple of `heads`.

    Sources: Vaswani et al., Attention is all you need, 2017; pre-norm, Xiong et al., 2020; rotary
    positions, Su et al., 2021.

    >>> import torch
    >>> net = Transformer(3, 8, heads=2)
    >>> output, state = net(torch.zeros(7, 2, 3))
    >>> output.shape, state[0].keys.shape
    (torch.Size([7, 2, 8]), torch.Size([2, 2, 7, 4]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 2,
        heads: int = 4,
        expansion: int = 4,
    ) -> None:
        super().__init__()
        sizes = {
            "input_size": input_size,
            "hidden_size": hidden_size,
            "num_layers": num_layers,
            "heads": heads,
            "expansion": expansion,
        }
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"{name} must be positive, got {value}")
        if hidden_size % (2 * heads):
            raise ValueError(
                f"hidden_size must be an even multiple of heads = {heads}, got {hidden_size}"
            )
        self.input_size, self.output_size = input_size, hidden_size
        self.embed = nn.Linear(input_size, hidden_size)
        self.blocks = nn.ModuleList(
            _Block(hidden_size, heads, expansion) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(hidden_size)

    def forward(
        self, input: torch.Tensor, state: tuple[Cache, ...] | None = None
    ) -> tuple[torch.Tensor, tuple[Cache, ...]]:
        """Outputs [T, B, H] for `input` [T, B, I] read after `state`, and the state after it."""
        x = self.embed(input.transpose(0, 1))
        after: list[Cache] = []
        for k, block in enumerate(self.blocks):
            x, cache = block(x, None if state is None else state[k])
            after.append(cache)
        return self.norm(x).transpose(0, 1), tuple(after)


class _Block(nn.Module):
    def __init__(self, hidden_size: int, heads: int, expansion: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(hidden_size)
        self.project = nn.Linear(hidden_size, 3 * hidden_size)
        self.join = nn.Linear(hidden_size, hidden_size)
        self.feed = nn.Sequential(
            nn.LayerNorm(hidden_size),
            nn.Linear(hidden_size, expansion * hidden_size),
            nn.GELU(),
            nn.Linear(expansion * hidden_size, hidden_size),
        )

    def forward(self, x: torch.Tensor, before: Cache | None) -> tuple[torch.Tensor, Cache]:
        """x [B, T, H] with attention to the steps before, and what those after may attend to."""
        projected = self.project(self.norm_attention(x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = projected.permute(2, 0, 3, 1, 4)  # each [B, A, T, D]
        read = 0 if before is None else before.keys.shape[2]
        query, key = rotate(query, read), rotate(key, read)
        if before is not None:
            key, value = torch.cat([before.keys, key], 2), torch.cat([before.values, value], 2)
        steps = x.shape[1]
        mask = torch.ones(steps, read + steps, dtype=torch.bool, device=x.device).tril(read)
        seen = scaled_dot_product_attention(
            query, key, value, attn_mask=mask if read else None, is_causal=not read
        )
        x = x + self.join(seen.transpose(1, 2).flatten(2))
        return x + self.feed(x), Cache(key, value)


def rotate(x: torch.Tensor, first: int = 0) -> torch.Tensor:
    """Rotary positions: pair k of step t is turned by the angle t · 10000^(-2k/D).

    Args:
        x: [B, A, T, D], D even; number k of the first half and of the second make a pair.
        first: the position of x's first step.
    """
    half = x.shape[-1] // 2
    speed = _BASE ** -(torch.arange(half, device=x.device, dtype=x.dtype) / half)
    time = torch.arange(first, first + x.shape[2], device=x.device, dtype=x.dtype)
    angle = torch.outer(time, speed)  # [T, D/2]
    cos, sin = angle.cos(), angle.sin()
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)
