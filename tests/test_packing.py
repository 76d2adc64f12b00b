"""Packed weights are kept from call to call, and never outlive the numbers they were made of."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable

import pytest
import torch

import gatewise as gw
from gatewise.executors.cpu import packing


@pytest.fixture(autouse=True)
def compiled(executor: str) -> None:
    if executor == "reference":
        pytest.skip("needs a C compiler")


def flip_signs(w: torch.Tensor) -> None:
    w.data.neg_()


def by_numpy(w: torch.Tensor) -> None:
    w.detach().numpy()[-1, -1] += 1


def in_place(w: torch.Tensor) -> None:
    with torch.no_grad():
        w[0, 0] = 7


def swapped(w: torch.Tensor) -> None:
    w.data = torch.randn_like(w)


def two_exchanged(w: torch.Tensor) -> None:
    w.data[[0, 1]] = w.data[[1, 0]]


@pytest.mark.parametrize("change", [flip_signs, by_numpy, in_place, swapped, two_exchanged])
@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l0"])
def test_a_change_by_any_route_is_seen(name: str, change: Callable[[torch.Tensor], None]) -> None:
    layer, x = gw.LSTM(16, 16), torch.randn(3, 2, 16)
    with torch.no_grad():
        layer(x)
        change(getattr(layer, name))
        assert torch.equal(layer(x)[0], copy.deepcopy(layer)(x)[0])


def test_an_unchanged_layer_packs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    packs, pack = [], packing.pack
    monkeypatch.setattr(packing, "pack", lambda *given: packs.append(1) or pack(*given))
    layer, x = gw.LSTM(4, 5, num_layers=2), torch.randn(3, 2, 4)
    with torch.no_grad():
        for _ in range(3):
            layer(x)
    assert len(packs) == 2  # layers


def test_a_graph_keeps_the_weights_it_ran_with() -> None:
    layer, x = gw.LSTM(4, 5), torch.randn(6, 2, 4)
    other = copy.deepcopy(layer)
    first = layer(x)[0].sum()
    layer.weight_hh_l0.data.mul_(2.0)  # behind autograd's back
    layer(x)[0].sum()  # packs the new weights while the first graph still needs the old
    other(x)[0].sum().backward()
    first.backward()
    for one, two in zip(layer.parameters(), other.parameters(), strict=True):
        assert torch.equal(one.grad, two.grad)


def test_what_was_packed_goes_with_the_layer() -> None:
    layer = gw.LSTM(4, 5)
    gc.collect()
    before = len(packing._kept)
    with torch.no_grad():
        layer(torch.randn(3, 2, 4))
    assert len(packing._kept) == before + 1
    del layer
    gc.collect()
    assert len(packing._kept) == before


def test_the_fingerprint_depends_on_every_word_and_on_order() -> None:
    words = torch.arange(67, dtype=torch.int32)  # one full block of 64, and a rest
    found = {packing.fingerprint([words])}
    for k in range(67):
        changed = words.clone()
        changed[k] ^= -(2**31)
        found.add(packing.fingerprint([changed]))
    halves = [words[:30], words[30:]]
    found |= {packing.fingerprint(halves), packing.fingerprint(halves[::-1])}
    assert len(found) == 1 + 67 + 2
