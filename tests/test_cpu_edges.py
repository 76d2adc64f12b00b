"""The compiled kernel in unusual company: strange strides, forks, threads, transforms, tracing."""

from __future__ import annotations

import os
import threading
import warnings
from typing import Any

import pytest
import torch

import gatewise as gw
from gatewise.equations import Cell
from gatewise.equations.functions import sigmoid as gate_sigmoid
from gatewise.equations.functions import tanh as gate_tanh
from gatewise.executors.cpu import toolchain
from tests.forking import assert_a_forked_child_computes

pytestmark = pytest.mark.skipif(not toolchain.ladder(), reason="this machine has no C compiler")


@pytest.fixture
def layer() -> gw.LSTM:
    return gw.LSTM(6, 20, executor="cpu")


def pair(layer: gw.Recurrent) -> gw.Recurrent:
    """The same layer on the reference."""
    twin = gw.LSTM(6, 20, executor="reference")
    twin.load_state_dict(layer.state_dict())
    return twin


def assert_same(layer: gw.Recurrent, x: torch.Tensor) -> None:
    got, want = layer(x), pair(layer)(x)
    torch.testing.assert_close(got[0], want[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(got[1].c, want[1].c, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.randn(7, 5, 6),
        lambda: torch.randn(5, 7, 6).transpose(0, 1),
        lambda: torch.randn(6, 7, 5).permute(1, 2, 0),
        lambda: torch.randn(7, 1, 6).expand(7, 5, 6),
        lambda: torch.randn(1, 5, 6).expand(7, 5, 6),
        lambda: torch.randn(14, 10, 12)[::2, ::2, ::2],
        lambda: torch.randn(7, 5, 12)[..., 6:],
        lambda: torch.randn(7, 5, 6).flip(0),
        lambda: torch.randn(7 * 5 * 6 + 1)[1:].view(7, 5, 6),  # not aligned to a vector
    ],
)
def test_any_strides(layer: gw.LSTM, make) -> None:
    assert_same(layer, make())


def test_inference_mode_and_tensors_made_in_it(layer: gw.LSTM) -> None:
    with torch.inference_mode():
        x = torch.randn(7, 5, 6)
        output, _ = layer(x)
        stepper = layer.stream(5)
        assert torch.equal(torch.stack([stepper(x_t) for x_t in x]), output)
    assert_same(layer, x.clone())


def test_backward_twice_gives_the_same_gradient(layer: gw.LSTM) -> None:
    x = torch.randn(7, 5, 6)
    loss = layer(x)[0].square().sum()
    loss.backward(retain_graph=True)
    first = [p.grad.clone() for p in layer.parameters()]
    layer.zero_grad()
    loss.backward()
    assert all(torch.equal(a, p.grad) for a, p in zip(first, layer.parameters(), strict=True))


def test_a_changed_output_or_input_is_noticed(layer: gw.LSTM) -> None:
    x = torch.randn(7, 5, 6)
    output, _ = layer(x)
    with torch.no_grad():
        output.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()
    output, _ = layer(x)
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_gradients_of_gradients_are_the_references(layer: gw.LSTM) -> None:
    layer = layer.double()
    twin = pair(layer).double()
    twin.load_state_dict(layer.state_dict())
    x = torch.randn(4, 3, 6, dtype=torch.float64, requires_grad=True)

    def penalty(m: gw.Recurrent) -> list[torch.Tensor]:
        (d_x,) = torch.autograd.grad(m(x)[0].tanh().sum(), x, create_graph=True)
        return list(torch.autograd.grad(d_x.square().sum(), list(m.parameters())))

    for a, b in zip(penalty(layer), penalty(twin), strict=True):
        assert (a - b).norm() <= 1e-12 * b.norm()


def test_transforms_of_torch_func_take_the_reference() -> None:
    layer = gw.LSTM(6, 20)
    x = torch.randn(3, 7, 5, 6)
    batched = torch.func.vmap(lambda one: layer(one)[0])(x)
    torch.testing.assert_close(batched, torch.stack([layer(one)[0] for one in x]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own forward mode uses its deprecated jit
        _, tangent = torch.func.jvp(lambda one: layer(one)[0], (x[0],), (torch.ones_like(x[0]),))
    assert tangent.abs().sum() > 0
    strict = gw.LSTM(6, 20, strict=True)
    with pytest.raises(gw.SlowPathError, match=r"torch\.func"):
        torch.func.vmap(lambda one: strict(one)[0])(x)


def test_tracing_does_not_freeze_one_inputs_result() -> None:
    layer = gw.LSTM(6, 20)
    x, other = torch.randn(2, 7, 5, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that tracing is deprecated, and of loops
        traced = torch.jit.trace(layer, (x,), check_trace=False)
        torch.testing.assert_close(traced(other)[0], layer(other)[0], rtol=1e-5, atol=1e-6)


def test_nan_stays_in_its_row(layer: gw.LSTM) -> None:
    x = torch.randn(7, 5, 6)
    x[3, 2, 0] = float("nan")
    output, state = layer(x)
    bad = output.isnan().any(-1)
    assert bad[3:, 2].all()
    assert not bad[:3].any()
    assert not bad[:, [0, 1, 3, 4]].any()
    assert state.c[0, 2].isnan().any()


def test_extreme_values_saturate(layer: gw.LSTM) -> None:
    for size in (1e4, 1e30, float("inf")):
        output, _ = layer(torch.full((3, 2, 6), size))
        assert not output.isinf().any()
    assert_same(layer, torch.full((3, 2, 6), 1e4))


class Squashed(Cell):
    """h = f(x): what a kernel makes of one function."""

    gates = ("a",)
    states = ("h",)
    feedback = ()

    def __init__(self, f: Any) -> None:
        self.f = f

    def step(self, gate: Any, state: Any) -> dict[str, Any]:
        return {"h": self.f(gate.a)}


@pytest.mark.parametrize(
    ("f", "from_", "units"), [(gate_sigmoid, -10, 3), (gate_sigmoid, -87, 6), (gate_tanh, -20, 3)]
)
def test_functions_are_as_accurate_as_promised(f: Any, from_: float, units: int) -> None:
    """In units of the last place, over the whole range, beside float64."""
    x = torch.cat([torch.linspace(from_, 90, 300_000), torch.logspace(-7, 1, 9_000)])
    layer = gw.Recurrent(Squashed(f), 1, 1, executor="cpu")
    with torch.no_grad():
        for p in layer.parameters():
            p.zero_()
        layer.weight_ih_l0.fill_(1.0)
        found = layer(x.view(1, -1, 1))[0].flatten()
    exact = {gate_sigmoid: torch.sigmoid, gate_tanh: torch.tanh}[f](x.double())
    nearest = exact.float()
    spacing = torch.nextafter(nearest.abs(), torch.tensor(2.0)) - nearest.abs()
    assert ((found.double() - exact).abs() <= units * spacing.double()).all()


def test_many_python_threads_at_once(layer: gw.LSTM) -> None:
    xs = torch.randn(8, 50, 40, 6)
    want = [layer(x)[0].detach() for x in xs]
    got: list[torch.Tensor | None] = [None] * 8

    def work(k: int) -> None:
        torch.set_num_threads(2)
        for _ in range(5):
            got[k] = layer(xs[k])[0].detach()

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all(torch.equal(a, b) for a, b in zip(want, got, strict=True))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_computes_too() -> None:
    layer = gw.LSTM(6, 16, executor="cpu")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        # Enough work for two of the kernel's threads, too little for two of torch's: those
        # hang after a fork.
        x = torch.randn(30, 32, 6)
        assert_a_forked_child_computes(lambda: layer(x)[0])
    finally:
        torch.set_num_threads(before)


def test_repeated_runs_are_equal_to_the_bit(layer: gw.LSTM) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        x = torch.randn(60, 48, 6)
        results = []
        for _ in range(3):
            layer.zero_grad()
            output, _ = layer(x)
            output.square().sum().backward()
            results.append([output.detach(), *(p.grad.clone() for p in layer.parameters())])
        for again in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(results[0], again, strict=True))
    finally:
        torch.set_num_threads(before)


def test_large_batches_are_cut_into_pieces_the_stack_holds(layer: gw.LSTM) -> None:
    assert_same(layer, torch.randn(2, 1000, 6))


def test_meta_and_fake_tensors_get_shapes() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        output, _ = gw.LSTM(6, 20)(torch.empty(7, 5, 6))
    assert output.shape == (7, 5, 20)
    output, _ = gw.LSTM(6, 20, device="meta")(torch.empty(7, 5, 6, device="meta"))
    assert output.shape == (7, 5, 20)


def test_frozen_parameters_and_inputs_get_no_gradient(layer: gw.LSTM) -> None:
    layer.weight_hh_l0.requires_grad_(False)
    x = torch.randn(7, 5, 6)
    layer(x)[0].sum().backward()
    assert layer.weight_hh_l0.grad is None
    assert layer.weight_ih_l0.grad is not None


@pytest.mark.parametrize(
    ("steps", "batch", "inputs", "hidden", "lengths"),
    [
        (40, 1, 32, 128, None),  # threads split the units
        (40, 1, 32, 128, [0]),
        (40, 2, 32, 128, [40, 0]),  # threads split the rows, and one has nothing to do
        (6, 5, 200, 250, None),  # weight gradients after the sweep
        (6, 5, 200, 250, [6, 0, 3, 1, 6]),
    ],
)
def test_nothing_is_read_before_it_is_written(
    steps: int, batch: int, inputs: int, hidden: int, lengths: list[int] | None
) -> None:
    layer = gw.LSTM(inputs, hidden, executor="cpu")
    twin = gw.LSTM(inputs, hidden, executor="reference")
    twin.load_state_dict(layer.state_dict())
    x = torch.randn(steps, batch, inputs)
    found = []
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True, warn_only=True)  # fills new memory with NaN
    try:
        for one in (layer, twin):
            given = x.clone().requires_grad_()
            one(given, lengths=lengths)[0].square().sum().backward()
            found.append([given.grad, *(p.grad for p in one.parameters())])
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(threads)
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4 * float(want.abs().max()))
