"""A causal Transformer as the control: the same input, output and call as a recurrent layer.

T = steps, B = batch, I = input size, H = width, A = heads, D = H/A numbers of a head, S = steps
read before and still within reach, W = window.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

_BASE = 10_000.0  # of the rotary wavelengths


class Cache(NamedTuple):
    """What one layer keeps of the steps it has read; it grows with them, up to the window."""

    keys: torch.Tensor  # [B, A, S, D], rotated to their positions
    values: torch.Tensor  # [B, A, S, D]
    read: int  # steps so far: the position of the next one


class Transformer(nn.Module):
    """Causal self-attention in pre-norm residual blocks, with rotary positions.

    x ← x + attention(norm(x)),  x ← x + W₂ gelu(W₁ norm(x)), and a last norm.

    Args:
        input_size: I, numbers per step of the input.
        hidden_size: H, numbers per step inside and of the output.
        num_layers: blocks.
        heads: A; H must be an even multiple of it.
        expansion: width of W₁'s result, in H.
        window: W, how many steps a step sees, itself the last of them; None: all. Information
            then comes from at most L (W - 1) steps before.
        dropout: on the input, and on what attention and W₂ add.

    Raises:
        ValueError: a size below 1, or H no even multiple of `heads`.

    Sources: Vaswani et al., Attention is all you need, 2017; pre-norm, Xiong et al., 2020; rotary
    positions, Su et al., 2021; sliding window, Beltagy et al., 2020.

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
        window: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        sizes = {
            "input_size": input_size,
            "hidden_size": hidden_size,
            "num_layers": num_layers,
            "heads": heads,
            "expansion": expansion,
            **({} if window is None else {"window": window}),
        }
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"{name} must be positive, got {value}")
        if hidden_size % (2 * heads):
            raise ValueError(
                f"hidden_size must be an even multiple of heads = {heads}, got {hidden_size}"
            )
        self.input_size, self.output_size, self.window = input_size, hidden_size, window
        self.embed = nn.Linear(input_size, hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(hidden_size, heads, expansion, dropout) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(hidden_size)

    def forward(
        self, input: torch.Tensor, state: tuple[Cache, ...] | None = None
    ) -> tuple[torch.Tensor, tuple[Cache, ...]]:
        """Outputs [T, B, H] for `input` [T, B, I] read after `state`, and the state after it."""
        x = self.dropout(self.embed(input.transpose(0, 1)))
        after: list[Cache] = []
        for k, block in enumerate(self.blocks):
            x, cache = block(x, None if state is None else state[k], self.window)
            after.append(cache)
        return self.norm(x).transpose(0, 1), tuple(after)


class Block(nn.Module):
    """Attention, then two linear maps with a gelu between; both add to what came in."""

    def __init__(
        self, hidden_size: int, heads: int, expansion: int = 4, dropout: float = 0.0
    ) -> None:
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
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: torch.Tensor, before: Cache | None = None, window: int | None = None
    ) -> tuple[torch.Tensor, Cache]:
        """x [B, T, H] with attention to the steps before, and what those after may attend to."""
        read = 0 if before is None else before.read
        turn = turning(read, x.shape[1], x.shape[2] // self.heads).to(x)
        query, key, value = self.heads_of(x, turn)
        if before is not None:
            key, value = torch.cat([before.keys, key], 2), torch.cat([before.values, value], 2)
        steps, seen = x.shape[1], key.shape[2]
        masked = seen > steps or (window is not None and seen > window)
        mask = visible(steps, seen, window).to(x.device) if masked else None
        attended = scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=not masked
        )
        kept = slice(first_kept(seen, window), None)
        after = Cache(key[:, :, kept], value[:, :, kept], read + steps)
        return self.finish(x, attended), after

    def heads_of(
        self, x: torch.Tensor, turn: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries and keys, rotated by `turn`, and values, each [B, A, T, D]."""
        projected = self.project(self.norm_attention(x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = projected.permute(2, 0, 3, 1, 4)
        return _turned(query, turn), _turned(key, turn), value

    def finish(self, x: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        """The block's output [B, T, H], from its input and what its heads read [B, A, T, D]."""
        x = x + self.dropout(self.join(attended.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.feed(x))


def visible(steps: int, seen: int, window: int | None) -> torch.Tensor:
    """Bool [T, S + T]: may each of the last `steps` of `seen` steps attend to that one?"""
    query = torch.arange(seen - steps, seen)[:, None]
    key = torch.arange(seen)
    near = key <= query
    return near if window is None else near & (key > query - window)


def first_kept(seen: int, window: int | None) -> int:
    """The first of `seen` steps that the next one still sees."""
    return 0 if window is None else max(0, seen - (window - 1))


def rotate(x: torch.Tensor, first: int = 0) -> torch.Tensor:
    """Rotary positions: pair k of step t is turned by the angle t · 10000^(-2k/D).

    Args:
        x: [B, A, T, D], D even; number k of the first half and of the second make a pair.
        first: the position of x's first step.
    """
    return _turned(x, turning(first, x.shape[2], x.shape[3]).to(x))


def turning(first: int, steps: int, size: int) -> torch.Tensor:
    """Cosines and sines [2, T, D/2] of the angles of `steps` positions, float64, D = `size`."""
    half = size // 2
    speed = _BASE ** -(torch.arange(half, dtype=torch.float64) / half)
    angle = torch.outer(torch.arange(first, first + steps, dtype=torch.float64), speed)
    return torch.stack([angle.cos(), angle.sin()])


def _turned(x: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    (a, b), (cos, sin) = x.chunk(2, -1), turn
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)
