"""The scan over time against the float64 reference, by name; which cells it is for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import sympy
import torch
from hypothesis import given
from hypothesis import strategies as st

import gatewise as gw
from gatewise import Cell, sigmoid, tanh
from gatewise.cells import REGISTRY, get_cell
from gatewise.equations import trace
from gatewise.executors import Request, choose, cpu, reference, scan
from gatewise.executors import run as run_on
from tests.support import (
    FORWARD,
    GRADIENT,
    assert_close,
    options,
    problem,
    run_with_gradients,
)

# The third, of task 2a, is a carousel whose gates see the inputs only.
SCANNED = ["lstm-1997-no-output-gate", "mingru", "minlstm"]
OPTIONS = [
    (),
    ("lengths",),
    ("resets",),
    ("reverse", "resets", "lengths"),
    ("record", "lengths", "resets", "reverse"),
    ("zoneout", "resets", "record"),
    ("zoneout-eval", "lengths", "reverse"),
]


class Slow(Cell):
    """c scanned; h computed from it at every step; a second carousel of its own."""

    gates = ("keep", "new", "out")
    states = ("h", "c", "m")
    feedback = ()
    parameters = {"peephole": 0.5}
    split = ("new",)

    def step(self, gate: Any, state: Any, param: Any) -> dict[str, Any]:
        c = sigmoid(gate.keep) * state.c + tanh(gate.new.input * gate.new.recurrent)
        m = state.m + param.peephole * gate.out
        return {"h": sigmoid(gate.out + param.peephole * c) * tanh(c), "c": c, "m": m}


def on_scan(request: Request) -> Any:
    return run_on(request, "scan")


@pytest.mark.parametrize("chosen", OPTIONS, ids="+".join)
@pytest.mark.parametrize("steps", [9, 70])
@pytest.mark.parametrize("cell", [*SCANNED, Slow()], ids=str)
def test_equals_the_reference(cell: Any, steps: int, chosen: tuple[str, ...]) -> None:
    p = options(problem(cell, steps), *chosen)
    if "zoneout" in p.options:
        scanned = dict.fromkeys(scan.affine(p.layout.trace), 0.2)
        p = p.with_options(zoneout=replace(p.options["zoneout"], probability=scanned))
    expected, slopes = run_with_gradients(p, reference.run)
    for dtype in (torch.float64, torch.float32):
        actual, gradients = run_with_gradients(p.cast(dtype), on_scan)
        assert {t.dtype for t in actual.values()} == {dtype}
        assert_close(actual, expected, FORWARD[dtype])
        assert_close(gradients, slopes, GRADIENT[dtype], "gradient by ")


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (4, 3, 0, 7), (0, 3, 5, 7), (9, 0, 5, 7)])
@pytest.mark.parametrize("cell", [*SCANNED, Slow()], ids=str)
def test_shapes(cell: Any, shape: tuple[int, int, int, int]) -> None:
    p = problem(cell, *shape, seed=3)
    expected, slopes = run_with_gradients(p, reference.run)
    actual, gradients = run_with_gradients(p, on_scan)
    assert_close(actual, expected, FORWARD[torch.float64])
    assert_close(gradients, slopes, GRADIENT[torch.float64], "gradient by ")


@given(steps=st.integers(1, 700), seed=st.integers(0, 9))
def test_scan_is_the_recurrence(steps: int, seed: int) -> None:
    """Below, at and beyond whole pieces and levels of pieces (16, 32, 256, 512)."""
    draw = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, steps, 2, generator=draw, dtype=torch.float64)
    a[torch.rand(steps, generator=draw) < 0.1] = 0.0
    s = first = torch.randn(2, generator=draw, dtype=torch.float64)
    expected = torch.stack([s := a[t] * s + b[t] for t in range(steps)])
    torch.testing.assert_close(scan.scan(a, b, first), expected, rtol=1e-9, atol=1e-12)


# torch's own forward mode compiles its formulas by what it has itself declared obsolete.
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_derivatives_of_every_kind() -> None:
    draw = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 37, 2, generator=draw, dtype=torch.float64) / 2
    inputs = tuple(t.requires_grad_() for t in (a, b, torch.ones(2, dtype=torch.float64)))
    assert torch.autograd.gradcheck(scan.scan, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(scan.scan, inputs)
    rows = torch.func.vmap(torch.func.grad(lambda f: scan.scan(a, b, f).square().sum()))
    found = rows(torch.eye(2, dtype=torch.float64))
    one = torch.func.grad(lambda f: scan.scan(a, b, f).square().sum())(torch.eye(2).double()[1])
    torch.testing.assert_close(found[1], one)


def test_coefficients_come_from_the_equations() -> None:
    [(a, b)] = scan.affine(trace(get_cell("mingru"))).values()
    past = sympy.Symbol("h_prev", real=True)
    whole = trace(get_cell("mingru")).new_states["h"]
    assert sympy.simplify(a * past + b - whole) == 0
    assert past not in a.free_symbols | b.free_symbols


def test_only_cells_whose_gates_do_not_see_the_state() -> None:
    found = [name for name in REGISTRY if scan.affine(trace(get_cell(name)))]
    assert found == SCANNED
    request = problem("elstm").request()
    with pytest.raises(ValueError, match=r"executor='scan' cannot run this: .* ELSTM see"):
        choose(request, "scan")
    with pytest.raises(ValueError, match="time cannot be scanned"):
        scan.run(request)
    zoned = options(problem("lstm-1997-no-output-gate"), "zoneout").request()
    assert scan.obstacles(zoned) == ["the scan has no zoneout of h"]


class Coupled(Slow):
    """m reads the past of c."""

    def step(self, gate: Any, state: Any, param: Any) -> dict[str, Any]:
        return super().step(gate, state, param) | {"m": state.m + state.c}


class Squared(Slow):
    """m is not affine in its past."""

    def step(self, gate: Any, state: Any, param: Any) -> dict[str, Any]:
        return super().step(gate, state, param) | {"m": state.m * state.m}


@pytest.mark.parametrize("cell", [Coupled(), Squared()], ids=str)
def test_other_forms_are_refused(cell: Cell) -> None:
    assert scan.affine(trace(cell)) == {}


def test_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no kernel runs, the scan does, and the reasons are the kernel's; strict allows it."""
    monkeypatch.setattr(cpu, "obstacles", lambda request: ["no kernel here"])
    layer = gw.Recurrent("mingru", 3, 4, strict=True)
    x = torch.randn(5, 2, 3)
    told = gw.explain(layer, x)
    assert (told.executor, told.reasons) == ("scan", ("no kernel here",))
    asked = gw.Recurrent("mingru", 3, 4, executor="scan")
    asked.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x)[0], asked(x)[0])
    assert gw.explain(gw.LSTM(3, 4), x).executor == "reference"
    assert gw.explain(gw.Recurrent("mingru", 3, 4).bfloat16(), x.bfloat16()).executor == "reference"
