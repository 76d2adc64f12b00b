"""Weights held in fewer bits: against the float64 reference with the same rounded weights."""

from __future__ import annotations

import os
import re
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch

import gatewise as gw
from gatewise.cells import REGISTRY
from gatewise.equations import trace
from gatewise.executors import cpu, reference, run
from gatewise.executors.cpu import generate, toolchain
from gatewise.executors.cpu import kernel as kernels
from gatewise.executors.rounding import rounded
from tests.support import (
    FORWARD,
    GRADIENT,
    assert_close,
    looseness,
    named,
    options,
    problem,
    run_with_gradients,
)

pytestmark = pytest.mark.skipif(not toolchain.ladder(), reason="this machine has no C compiler")

# Rounding what the rows hold to 8 bits of mantissa: 2^-9 at most each, about 1e-3 in the norm,
# through a few steps (ARCHITECTURE.md, numerics contract).
OUTPUT, SLOPE = 4e-3, 1e-2
BYTES = 3e-5  # rows of int8 products have 16 bits: 2^-16 of the largest number
# Cells that differ most: plain, split gate, blocks with gate feedback, per-unit parameters, a
# mean over units, a late product, no recurrent matrix.
CELLS = [
    "lstm",
    "gru",
    "lstm-1997-blocks",
    "lstm-peephole",
    "lstm-layernorm",
    "gru-reset-before",
    "mingru",
]
NARROW = {"x86_64": ["-march=haswell", "-march=x86-64"], "AMD64": ["-march=haswell"]}
SOME = ("lengths", "resets", "reverse", "feedback_mask")


def chosen_for(cell: str, *names: str) -> tuple[str, ...]:
    """The named options, less the one that a late product's kernel does not take."""
    return tuple(n for n in names if cell != "gru-reset-before" or n != "feedback_mask")


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    ("shape", "names"), [((9, 3, 5, 7), SOME), ((6, 17, 40, 33), ()), ((5, 1, 3, 64), ())]
)
def test_bf16_keeps_its_contract(cell: str, shape: tuple, names: tuple) -> None:
    p = options(problem(cell, *shape), *chosen_for(cell, *names)).with_options(held="bf16")
    assert cpu.obstacles(p.cast(torch.float32).request()) == []
    expected, slopes = run_with_gradients(p, reference.run)
    actual, gradients = run_with_gradients(p.cast(torch.float32), run)
    loose = 1 + looseness(p) / 10
    assert_close(actual, expected, OUTPUT * loose)
    assert_close(gradients, slopes, SLOPE * loose, "gradient by ")
    full, _ = run_with_gradients(p.with_options(held="full"), reference.run)
    with pytest.raises(AssertionError, match="output: error"):  # rounding there is
        assert_close(actual, full, 10 * FORWARD[torch.float32])


@pytest.mark.parametrize("flag", NARROW.get(os.uname().machine, []))
@pytest.mark.parametrize("cell", ["lstm", "lstm-1997-blocks", "gru-reset-before"])
def test_widened_bf16_weights_keep_the_contract_of_float32(
    flag: str, cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without bf16 products only weights are rounded: what is left is float32's own error."""
    monkeypatch.setattr(toolchain, "_native_flags", lambda: (flag,))
    monkeypatch.setattr(kernels, "_kernels", {})
    p = options(problem(cell, 7, 5, 5, 33), *chosen_for(cell, *SOME)).with_options(held="bf16")
    expected, slopes = run_with_gradients(p, reference.run)
    actual, gradients = run_with_gradients(p.cast(torch.float32), run)
    assert_close(actual, expected, FORWARD[torch.float32] * looseness(p))
    assert_close(gradients, slopes, GRADIENT[torch.float32] * looseness(p), "gradient by ")
    assert "widened to float32" in cpu.note(p.cast(torch.float32).request())


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    ("shape", "names"), [((9, 3, 5, 7), SOME), ((6, 17, 40, 33), ()), ((5, 1, 3, 64), ())]
)
def test_int8_keeps_its_contract(cell: str, shape: tuple, names: tuple) -> None:
    p = options(problem(cell, *shape), *chosen_for(cell, *names)).with_options(held="int8")
    with torch.no_grad():
        request = p.cast(torch.float32).request()
        assert cpu.obstacles(request) == []
        actual = named(run(request))
        expected = named(reference.run(p.request()))
        full = named(reference.run(p.with_options(held="full").request()))
    assert_close(actual, expected, BYTES * (1 + looseness(p) / 10))
    with pytest.raises(AssertionError, match="output: error"):  # rounding there is
        assert_close(actual, full, 10 * BYTES)


@pytest.mark.parametrize("flag", NARROW.get(os.uname().machine, []))
def test_widened_int8_weights_keep_the_contract_of_float32(
    flag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolchain, "_native_flags", lambda: (flag,))
    monkeypatch.setattr(kernels, "_kernels", {})
    for cell in ("lstm", "gru-reset-before"):
        p = options(problem(cell, 7, 5, 5, 33), *chosen_for(cell, *SOME)).with_options(held="int8")
        with torch.no_grad():
            request = p.cast(torch.float32).request()
            assert_close(
                named(run(request)), named(reference.run(p.request())), FORWARD[torch.float32]
            )
            assert "widened to float32" in cpu.note(request)


def test_int8_weights_are_multiples_of_a_scale_for_each_row() -> None:
    p = problem("lstm-1997", hidden=6).with_options(held="int8")  # several fed-back states
    request = p.request()
    got = rounded(request).weights
    given_parts = [request.weights.weight_ih, *request.weights.weight_hh.split(6, 1)]
    for given, held in zip(given_parts, [got.weight_ih, *got.weight_hh.split(6, 1)], strict=True):
        scale = given.abs().amax(1, keepdim=True) / 127
        assert ((held - given).abs() <= scale * 0.5000001).all()
        assert ((held / scale).round() * scale - held).abs().max() < 1e-12
        assert not torch.equal(held, given)


def test_int8_rows_that_are_not_finite_stay_so_and_others_do_not_notice() -> None:
    layer, x = gw.LSTM(5, 20, weights="int8"), torch.randn(4, 3, 5)
    broken = x.clone()
    broken[2, 1, 3] = float("nan")
    broken[1, 2, 0] = float("inf")
    with torch.no_grad():
        good, bad = layer(x)[0], layer(broken)[0]
        slow = deepcopy(layer)
        slow.executor = "reference"
        saturated = slow(broken)[0][1:, 2]
        layer.get_parameter("weight_hh_l0").zero_()  # a row of nothing but zeros has a scale too
        assert layer(torch.zeros_like(x))[0].isfinite().all()
    assert bad[2:, 1].isnan().all()
    # Bytes have no scale for an infinite row. Where rows stay numbers, gates saturate as ever.
    assert bad[1:, 2].isnan().all() or torch.allclose(bad[1:, 2], saturated, atol=1e-5)
    assert torch.equal(bad[:, 0], good[:, 0])


def test_int8_weights_refuse_to_train() -> None:
    layer = gw.LSTM(3, 4, weights="int8")
    with pytest.raises(ValueError, match=r"weights='int8' are for inference: call under torch"):
        layer(torch.zeros(2, 1, 3))
    layer.requires_grad_(False)
    assert layer(torch.zeros(2, 1, 3))[0].shape == (2, 1, 4)


@pytest.mark.parametrize("held", ["bf16", "int8"])
@pytest.mark.parametrize("cell", ["lstm", "gru-reset-before"])
def test_arm64_compiles(cell: str, held: str, tmp_path: Path) -> None:
    pytest.importorskip("ziglang")
    spec = generate.KernelSpec(trace(gw.get_cell(cell)), torch.float32, held == "bf16", held=held)
    (tmp_path / "kernel.c").write_text(generate.source(spec))
    zig = toolchain.Compiler(
        (sys.executable, "-m", "ziglang", "cc"), ("-target", "aarch64-linux-gnu")
    )
    assert zig.compile(tmp_path / "kernel.c", tmp_path / "kernel.so") is None


@pytest.mark.parametrize("cell", REGISTRY)
def test_the_reference_rounds_matrices_and_passes_the_gradient_on(cell: str) -> None:
    p = problem(cell)
    rounded = {n: t.bfloat16().double() if t.dim() == 2 else t for n, t in p.parameters.items()}
    by_hand = type(p)(p.layout, p.x, p.state, rounded)
    expected = run_with_gradients(by_hand, reference.run)
    actual = run_with_gradients(p.with_options(held="bf16"), reference.run)
    for a, b in zip(actual, expected, strict=True):
        assert all(torch.equal(a[n], b[n]) for n in b)


def test_a_layer_s_parameters_stay_what_they_are_and_learn() -> None:
    plain, held = gw.LSTM(4, 16), gw.LSTM(4, 16, weights="bf16", num_layers=1)
    held.load_state_dict(plain.state_dict())
    assert all(p.dtype == torch.float32 for p in held.parameters())
    x, target = torch.randn(12, 8, 4), torch.randn(12, 8, 16)
    optimiser = torch.optim.Adam(held.parameters(), 3e-2)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = (held(x)[0] - target).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert "weights='bf16'" in repr(held)


@pytest.mark.parametrize("held", ["bf16", "int8"])
@torch.no_grad()
def test_a_stream_equals_the_sequence_to_the_bit(held: str) -> None:
    layer, x = gw.LSTM(5, 33, num_layers=2, weights=held), torch.randn(6, 3, 5)
    stepper = layer.stream(3)
    assert stepper.obstacles == []
    steps = torch.stack([stepper(x_t) for x_t in x])
    assert torch.equal(steps, layer(x)[0])


def test_explain_says_what_the_weights_are() -> None:
    x = torch.zeros(2, 1, 3)
    told = str(gw.explain(gw.LSTM(3, 4, weights="bf16"), x))
    assert re.match(r"layer 0: runs on cpu with bf16 weights(, widened to float32.*)?$", told)
    slow = gw.explain(gw.LSTM(3, 4, weights="bf16", dtype=torch.float64), x.double())
    assert slow.executor == "reference"
    assert slow.reasons == ("the C kernel holds bf16 weights of float32, not of torch.float64",)
    assert "with bf16 weights: " in str(slow)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="weights must be one of full, bf16, int8, got 'bf15'"):
        gw.LSTM(3, 4, weights="bf15")
