"""Masks of random numbers in layers: dropout of inputs, states and weights, and zoneout.

Shapes: T = time, B = batch, I = input size, H = hidden units.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

import gatewise as gw
from tests.layers import H, I, T, by_name, inputs, make, same

RANDOM = {
    "dropout": 0.3,
    "zoneout": 0.3,
    "recurrent_dropout": 0.2,
    "input_dropout": 0.2,
    "weight_dropout": 0.2,
}


@pytest.mark.parametrize("cell", ["lstm", "gru", "lstm-1997-blocks", "lstm-layernorm"])
def test_chunks_meet_the_masks_of_an_unbroken_run(cell: str, executor: str) -> None:
    layer = make(cell, executor, **RANDOM)
    x = inputs()
    whole, final = layer(x, seed=7)
    first, state = layer(x[:2], seed=7)
    second, state = layer(x[2:], state, seed=7, offset=2)
    same(torch.cat([first, second]), whole)
    same(tuple(by_name(layer, state).values()), tuple(by_name(layer, final).values()))
    shifted, _ = layer(x, seed=7, offset=1)
    assert not torch.allclose(shifted, whole)


@pytest.mark.parametrize("name", RANDOM)
def test_each_mask_repeats_with_its_seed(name: str, executor: str) -> None:
    layer = make("lstm", executor, **{name: 0.5})
    x = inputs()
    torch.manual_seed(1)
    first = layer(x)[0]
    second = layer(x)[0]
    torch.manual_seed(1)
    again = layer(x)[0]
    assert torch.equal(again, first)
    assert not torch.allclose(second, first)
    assert torch.equal(layer(x, seed=3)[0], layer(x, seed=3)[0])
    layer.eval()
    state = torch.get_rng_state()
    assert torch.equal(layer(x)[0], layer(x)[0])
    gw.explain(layer.train(), x)
    assert torch.equal(torch.get_rng_state(), state)  # neither evaluation nor explain draws


def test_masks_do_not_depend_on_the_executor() -> None:
    layer = make("lstm", "auto", **RANDOM, residual=True, layer_norm=True)
    x = inputs()
    fast = layer(x, seed=5)[0]
    layer.executor = "reference"
    same(layer(x, seed=5)[0], fast)


def test_layers_directions_and_kinds_have_masks_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from gatewise.layers import masks

    seen: list[tuple[int, int]] = []
    original = masks.uniform

    def spy(seed: int, stream: int, *rest: Any) -> torch.Tensor:
        seen.append((seed, stream))
        return original(seed, stream, *rest)

    monkeypatch.setattr(masks, "uniform", spy)
    layer = make("lstm", "reference", layers=3, bidirectional=True, **RANDOM)
    layer(inputs(), seed=9)
    # Inputs of layers, gaps between them; each direction's feedback and weights.
    assert len(seen) == 3 + 2 + 2 * 6
    assert len(set(seen)) == len(seen)


def test_input_dropout_of_one_leaves_no_input(executor: str) -> None:
    layer = make("lstm", executor, layers=1, input_dropout=1.0)
    x = inputs()
    same(layer(x)[0], layer(torch.zeros_like(x))[0])
    same(layer.eval()(x)[0], make_like(layer)(x)[0])


def make_like(layer: gw.Recurrent) -> gw.Recurrent:
    """The same cell and weights without any option."""
    plain = gw.Recurrent(layer.cell, I, H, layer.num_layers, dtype=torch.float64)
    plain.load_state_dict(layer.state_dict())
    return plain


def test_each_layer_s_input_can_be_dropped_at_a_rate_of_its_own(executor: str) -> None:
    layer = make("rnn", executor, layers=2, input_dropout=[0.0, 1.0])
    x = inputs()
    plain = make_like(layer)
    torch.nn.init.zeros_(plain.weight_ih_l1)
    same(layer(x)[0], plain(x)[0])
    assert make("rnn", executor, layers=2, input_dropout=[0.0, 0.0]).input_dropout == 0.0
    with pytest.raises(ValueError, match="input_dropout must have 2 numbers, one a layer"):
        make("rnn", executor, layers=2, input_dropout=[0.5])
    with pytest.raises(ValueError, match=r"input_dropout of layer 1 must be in \[0, 1\], got 2"):
        make("rnn", executor, layers=2, input_dropout=[0.5, 2])


@pytest.mark.parametrize("cell", ["lstm", "gru-reset-before", "lstm-1997-blocks"])
def test_weight_dropout_drops_weights_and_their_gradient(cell: str, executor: str) -> None:
    from gatewise.layers import masks

    layer = make(cell, executor, layers=1, weight_dropout=0.5)
    mask = masks.weight_mask(0.5, 3, masks.WEIGHTS, layer.weight_hh_l0)
    plain = make_like(layer)
    with torch.no_grad():
        plain.weight_hh_l0.mul_(mask)
    x = inputs()
    found, expected = layer(x, seed=3)[0], plain(x)[0]
    same(found, expected)
    found.square().sum().backward()
    expected.square().sum().backward()
    same(layer.weight_hh_l0.grad, plain.weight_hh_l0.grad * mask)
    same(layer.weight_ih_l0.grad, plain.weight_ih_l0.grad)
    assert torch.equal(layer.weight_hh_l0.grad == 0, mask == 0)
    same(layer.eval()(x)[0], make_like(layer)(x)[0])


def test_weight_dropout_needs_recurrent_weights() -> None:
    with pytest.raises(ValueError, match="weight_dropout drops recurrent weights, and MinGRU"):
        gw.Recurrent("mingru", I, H, weight_dropout=0.5)


def test_recurrent_dropout_of_one_leaves_no_recurrence(executor: str) -> None:
    layer = make("rnn", executor, layers=1, recurrent_dropout=1.0)
    x = inputs()
    plain = make_like(layer)
    torch.nn.init.zeros_(plain.weight_hh_l0)
    same(layer(x)[0], plain(x)[0])


def test_variational_masks_are_the_same_at_every_step(executor: str) -> None:
    layer = gw.Recurrent("rnn", H, H, recurrent_dropout=0.5, dtype=torch.float64, executor=executor)
    with torch.no_grad():  # h_t = tanh(x_t + mask · h_{t-1}): the mask can be read off
        for p in layer.parameters():
            p.zero_()
        layer.weight_ih_l0.copy_(torch.eye(H))
        layer.weight_hh_l0.copy_(torch.eye(H))
    x = torch.full((T, 50, H), 0.1, dtype=torch.float64)
    output, _ = layer(x, seed=2)
    mask = (output[1:].atanh() - x[1:]) / output[:-1]
    same(mask, mask[:1].expand_as(mask))
    values = mask[0].flatten()
    assert ((values.abs() < 1e-9) | ((values - 2).abs() < 1e-9)).all()  # 0 or 1/(1 - p)
    assert 0.3 < (values < 1).double().mean() < 0.7  # 200 draws: 0.5 ± 6 standard deviations


@pytest.mark.parametrize("training", [True, False])
def test_zoneout_of_one_keeps_the_state(training: bool, executor: str) -> None:
    layer = make("lstm", executor, layers=1, zoneout={"c": 1.0}).train(training)
    _, before = layer(inputs())
    start = {"h": torch.zeros_like(before.h), "c": torch.randn_like(before.c)}
    _, after = layer(inputs(), start)
    assert torch.equal(after.c, start["c"])
    assert not torch.equal(after.h, start["h"])


def test_zoneout_number_means_states_that_are_no_gates() -> None:
    assert make("lstm-1997", "reference", zoneout=0.1).zoneout == {"h": 0.1, "c": 0.1}
    assert make("lstm", "reference", zoneout={"c": 0.5, "h": 0.0}).zoneout == {"c": 0.5}
    assert make("lstm", "reference").zoneout == {}


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    from gatewise.layers.masks import dropout_mask

    mask = dropout_mask(0.3, 1, 2, range(20), torch.zeros(20, 50, 1), 30)
    assert mask.unique().tolist() == pytest.approx([0.0, 1 / 0.7], rel=1e-6)
    # 30000 draws: the mean's standard deviation is sqrt(0.3 / 0.7 / 30000) < 0.004.
    assert abs(mask.mean().item() - 1) < 0.02
