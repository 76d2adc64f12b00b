"""The causal Transformer: what may depend on what, and its cache."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from gatewise.models.transformer import Transformer, rotate


@pytest.fixture
def net() -> Transformer:
    torch.manual_seed(0)
    return Transformer(3, 8, num_layers=2, heads=2).double()


def test_no_step_sees_a_later_one(net: Transformer) -> None:
    x = torch.randn(6, 2, 3, dtype=torch.float64, requires_grad=True)
    output, _ = net(x)
    for t in range(6):
        (grad,) = torch.autograd.grad(output[t, 0].square().sum(), x, retain_graph=True)
        reached = grad.abs().sum(-1)
        assert (reached[: t + 1, 0] > 0).all() and not reached[t + 1 :].any()
        assert not reached[:, 1].any()


@pytest.mark.parametrize("pieces", [[1] * 7, [3, 4], [6, 1]])
def test_reading_on_is_reading_the_whole(net: Transformer, pieces: list[int]) -> None:
    x = torch.randn(7, 2, 3, dtype=torch.float64)
    whole, last = net(x)
    state: Any = None
    parts = []
    for piece in x.split(pieces):
        output, state = net(piece, state)
        parts.append(output)
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(state, last, strict=True):
        torch.testing.assert_close(ours.keys, theirs.keys, rtol=1e-12, atol=1e-12)


def test_one_block_is_its_equations(net: Transformer) -> None:
    x = torch.randn(1, 5, 8, dtype=torch.float64)
    block: Any = net.blocks[0]
    q, k, v = (block.norm_attention(x) @ block.project.weight.T + block.project.bias).split(8, -1)
    heads = []
    for h in (slice(0, 4), slice(4, 8)):
        query, key = (rotate(t[:, None, :, h])[:, 0] for t in (q, k))
        heads.append(scaled_dot_product_attention(query, key, v[..., h], is_causal=True))
    expected = x + block.join(torch.cat(heads, -1))
    expected = expected + block.feed(expected)
    torch.testing.assert_close(block(x, None)[0], expected, rtol=1e-12, atol=1e-12)


def test_rotary_products_depend_on_distance_alone() -> None:
    q, k = torch.randn(2, 1, 1, 1, 6, dtype=torch.float64)
    near = (rotate(q, 9) * rotate(k, 4)).sum()
    torch.testing.assert_close((rotate(q, 105) * rotate(k, 100)).sum(), near)
    assert not torch.isclose((rotate(q, 9) * rotate(k, 5)).sum(), near)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 8), "input_size must be positive, got 0"),
        ((3, 12), "hidden_size must be an even multiple of heads = 4, got 12"),
    ],
)
def test_errors_name_what_is_wrong(arguments: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Transformer(*arguments)
