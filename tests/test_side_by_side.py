"""Both directions of a layer in one call of the kernel, side by side or in turn."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest
import torch

import gatewise as gw
from gatewise.executors.cpu import share, toolchain
from tests.forking import assert_a_forked_child_computes

pytestmark = pytest.mark.skipif(not toolchain.ladder(), reason="this machine has no C compiler")

T, B, I = 7, 5, 6  # noqa: E741
LENGTHS = torch.tensor([7, 0, 3, 1, 7])
RESETS = torch.rand(T, B, generator=torch.Generator().manual_seed(5)) < 0.3
EVERYTHING = {"zoneout": 0.2, "recurrent_dropout": 0.3, "proj_size": 4}

Named = dict[str, torch.Tensor]


@pytest.fixture(autouse=True)
def eager_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """However little work there is, it is shared, and side by side for any number of rows."""
    monkeypatch.setattr(share, "_SIDE_BELOW", 1000)
    monkeypatch.setattr(share, "_PARALLEL_FROM", 1)
    monkeypatch.setattr(share, "_SPLIT_FROM", 1)


@pytest.fixture
def in_turn(monkeypatch: pytest.MonkeyPatch) -> Any:
    """From its call on, one direction after the other."""
    return lambda: monkeypatch.setattr(share, "in_turn", lambda work: "the test asks for it")


def make(cell: Any = "lstm", hidden: int = 16, **options: Any) -> gw.Recurrent:
    torch.manual_seed(1)
    return gw.Recurrent(cell, I, hidden, bidirectional=True, **options)


def twin(layer: gw.Recurrent) -> gw.Recurrent:
    """The same layer on the reference, in float64."""
    options = {n: getattr(layer, n) for n in ("zoneout", "recurrent_dropout", "proj_size")}
    other = make(layer.cell, layer.hidden_size, executor="reference", **options)
    other.load_state_dict(layer.state_dict())
    return other.double()


def results(layer: gw.Recurrent, x: torch.Tensor, **call: Any) -> tuple[Named, Named]:
    """What a call gives, and every gradient, by name."""
    layer.zero_grad()
    dtype = next(layer.parameters()).dtype
    given = x.to(dtype, copy=True).requires_grad_()
    sizes = [layer.output_size if s == "h" else layer.hidden_size for s in layer.cell.states]
    draw = torch.Generator().manual_seed(2)
    state = {
        s: torch.randn(2, x.shape[1], n, generator=draw).to(dtype).requires_grad_()
        for s, n in zip(layer.cell.states, sizes, strict=True)
    }
    output, final, *records = layer(given, state, **call)
    finals = final if isinstance(final, tuple) else (final,)
    found = {"output": output, **dict(zip(layer.cell.states, finals, strict=True))}
    found |= records[0] if records else {}
    losses = [((k + 1.0) * t.square()).sum() for k, t in enumerate(found.values())]
    torch.stack(losses).sum().backward()
    slopes = {f"d_{n}": t.grad for n, t in {"x": given, **state}.items()}
    slopes |= {f"d_{n}": p.grad for n, p in layer.named_parameters()}
    return found, {n: t for n, t in slopes.items() if t is not None}


def assert_close(found: Named, wanted: Named, most: float) -> None:
    assert found.keys() == wanted.keys()
    for name, want in wanted.items():
        error = (found[name].double() - want.double()).norm()
        assert error <= most * want.double().norm(), name


@pytest.mark.parametrize("threads", [2, 4])
@pytest.mark.parametrize(
    ("cell", "hidden", "options", "call"),
    [
        ("lstm", 16, {}, {}),
        ("lstm", 21, {}, {"lengths": LENGTHS}),
        ("lstm", 48, {}, {"lengths": LENGTHS, "resets": RESETS}),
        ("lstm", 16, EVERYTHING, {"lengths": LENGTHS, "resets": RESETS, "record": ("c",)}),
        ("gru", 32, {}, {"resets": RESETS}),
        ("lstm-layernorm", 16, {}, {"lengths": LENGTHS}),
    ],
    ids=["plain", "odd", "masks", "everything", "gru", "phases"],
)
def test_side_by_side_is_in_turn_is_the_reference(
    cell: str, hidden: int, options: dict, call: dict, threads: int, in_turn: Any
) -> None:
    torch.set_num_threads(threads)
    layer, x = make(cell, hidden, **options), torch.randn(T, B, I)
    call = {"seed": 3} | call
    assert "beside the other direction" in str(gw.explain(layer, x, **call))
    found, slopes = results(layer, x, **call)
    loose = 30.0 if cell == "lstm-layernorm" else 1.0
    expected, expected_slopes = results(twin(layer), x, **call)
    assert_close(found, expected, 2e-6 * loose)
    assert_close(slopes, expected_slopes, 1e-5 * loose)
    in_turn()
    assert "in turn with the other direction: the test" in str(gw.explain(layer, x, **call))
    again, slopes_again = results(layer, x, **call)
    assert all(torch.equal(found[n], t) for n, t in again.items())
    assert_close(slopes, slopes_again, 1e-5 * loose)


@pytest.mark.parametrize("threads", [2, 4])
@pytest.mark.parametrize("weights", ["full", "bf16", "int8"])
def test_inference_of_one_row(weights: str, threads: int, in_turn: Any) -> None:
    """Threads of a crew share the units; the same bits however they do."""
    torch.set_num_threads(threads)
    layer, x = make(hidden=64, weights=weights), torch.randn(40, 1, I)
    with torch.no_grad():
        side, state = layer(x)
        in_turn()
        turn, other = layer(x)
        torch.set_num_threads(1)
        alone, _ = layer(x)
    assert torch.equal(side, turn)
    assert torch.equal(side, alone)
    assert torch.equal(state.c, other.c)


def test_a_stack_reads_what_both_directions_wrote() -> None:
    torch.set_num_threads(2)
    torch.manual_seed(1)
    layer = gw.LSTM(I, 16, 3, bidirectional=True, batch_first=True)
    other = torch.nn.LSTM(I, 16, 3, bidirectional=True, batch_first=True)
    other.load_state_dict(layer.state_dict())
    x = torch.randn(B, T, I)
    torch.testing.assert_close(layer(x)[0], other(x)[0], rtol=1e-4, atol=1e-5)


def test_gradients_of_some(in_turn: Any) -> None:
    """Of one direction only, of a state only, twice through one graph."""
    torch.set_num_threads(2)
    layer, x = make(), torch.randn(T, B, I)
    frozen = make()
    for name, p in frozen.named_parameters():
        p.requires_grad_("reverse" not in name)
    want = results(layer, x)[1]
    got = results(frozen, x)[1]
    assert {n for n in want if "reverse" not in n} == {*got}
    assert_close(got, {n: want[n] for n in got}, 1e-6)
    for name in ("output", "h", "c"):
        output, (h, c) = layer(x)
        chosen = {"output": output[..., 16:], "h": h[0], "c": c[1]}[name].sum()
        once = torch.autograd.grad(chosen, [*layer.parameters()], retain_graph=True)
        twice = torch.autograd.grad(chosen, [*layer.parameters()])
        assert all(torch.equal(a, b) for a, b in zip(once, twice, strict=True))
        by_name = dict(zip((n for n, _ in layer.named_parameters()), once, strict=True))
        silent = by_name["weight_hh_l0" if name != "h" else "weight_hh_l0_reverse"]
        assert not silent.any()


def test_the_gradient_of_a_gradient() -> None:
    torch.set_num_threads(2)
    layer, x = make(), torch.randn(T, B, I)

    def second(one: gw.Recurrent) -> torch.Tensor:
        given = x.to(next(one.parameters()).dtype, copy=True).requires_grad_()
        [slope] = torch.autograd.grad(one(given)[0].square().sum(), given, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), given)[0]

    assert_close({"d_x": second(layer)}, {"d_x": second(twin(layer))}, 1e-5)


def test_an_output_changed_in_place_is_refused() -> None:
    torch.set_num_threads(2)
    output, _ = make()(torch.randn(T, B, I))
    with torch.no_grad():
        output.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_what_is_said_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(T, B, I)
    torch.set_num_threads(1)
    assert "in turn with the other direction: there is one thread" in str(gw.explain(make(), x))
    torch.set_num_threads(3)
    assert "direction: 3 threads are not shared evenly" in str(gw.explain(make(), x))
    torch.set_num_threads(2)
    others: list[dict[str, Any]] = [{"executor": "reference"}, {"checkpoint": 2}]
    for options in others:
        assert "other direction" not in str(gw.explain(make(**options), x))
    monkeypatch.undo()
    many = torch.randn(200, 32, I)
    assert "direction: there are rows enough" in str(gw.explain(make(hidden=64), many))
    assert "beside the other direction" in str(gw.explain(make(hidden=64), many[:, :3]))


def test_replicas_have_the_bits_of_each_alone() -> None:
    torch.set_num_threads(2)
    nets = gw.replicate(lambda: gw.LSTM(I, 16, bidirectional=True), range(3))
    x = torch.randn(T, B, I)
    output, _ = nets(x)
    output.square().sum().backward()
    for k in range(3):
        one = gw.replica(nets, k)
        own = one(x)[0]
        own.square().sum().backward()
        assert torch.equal(own, output[k])
        for name, p in one.named_parameters():
            whole = dict(nets.named_parameters())[name].grad
            assert p.grad is not None
            assert whole is not None
            assert torch.equal(p.grad, whole[k]), name


def test_many_python_threads_at_once() -> None:
    layer, xs = make(), torch.randn(6, 30, 9, I)
    want = [layer(x)[0].detach() for x in xs]
    got: list[torch.Tensor | None] = [None] * len(xs)

    def work(k: int) -> None:
        torch.set_num_threads(2 + k % 3)
        for _ in range(5):
            got[k] = layer(xs[k])[0].detach()

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(xs))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all(b is not None and torch.equal(a, b) for a, b in zip(want, got, strict=True))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_computes_too() -> None:
    torch.set_num_threads(4)
    layer, x = make(executor="cpu"), torch.randn(30, 1, I)
    assert_a_forked_child_computes(lambda: layer(x)[0])
