"""Tracing and derivation, against the step itself and torch's autograd."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import sympy
import torch

from gatewise import Cell, constant, mean, sigmoid, silu, tanh
from gatewise.cells import LSTM, LSTM1997, REGISTRY, PeepholeLSTM, get_cell
from gatewise.equations import Layout, Program, Trace, derive, evaluate, trace
from gatewise.equations.functions import (
    ELEMENTARY,
    Mean,
    centred_1,
    centred_2,
    hard_sigmoid,
    identity,
    normalise,
)
from gatewise.equations.trace import symbol

POINTWISE = [name for name in REGISTRY if trace(get_cell(name)).pointwise]
SHAPE = (3, 5)  # rows of a batch, units


def leaves(t: Trace) -> dict[str, torch.Tensor]:
    """Random float64 values for every symbol of a trace, each requiring a gradient."""
    names = [a.name for a in t.accumulators]
    names += [f"{s}_prev" for s in t.states] + [f"p_{p}" for p in t.parameters]
    return {n: torch.randn(SHAPE, dtype=torch.float64, requires_grad=True) for n in names}


def step(t: Trace, values: dict[str, Any]) -> dict[str, Any]:
    """The cell's own step on tensors; a late gate's product is given, whatever its source."""
    cell = t.cell

    def gate(g: str) -> Any:
        if g in cell.split:
            return SimpleNamespace(
                input=values.get(f"a_{g}_x", 0.0), recurrent=values.get(f"a_{g}_h", 0.0)
            )
        value = values.get(f"a_{g}", 0.0)
        return (lambda _: value) if g in cell.late else value

    result = cell.run_step(
        SimpleNamespace(**{g: gate(g) for g in cell.gates}),
        SimpleNamespace(**{s: values[f"{s}_prev"] for s in cell.states}),
        SimpleNamespace(**{p: values.get(f"p_{p}", 0.0) for p in cell.parameters}),
    )
    return {n: torch.as_tensor(v, dtype=torch.float64).expand(SHAPE) for n, v in result.items()}


def interpret(program: Program, values: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Run a program on tensors; it may read its declared inputs and nothing else."""
    known = {n: values[n] for n in program.inputs}
    for name, expr in program.body:
        assert name not in known, f"{name} is assigned twice"
        known[name] = evaluate(expr, known)
    return {
        n: torch.as_tensor(evaluate(e, known), dtype=torch.float64).expand(SHAPE)
        for n, e in program.outputs
    }


def assert_equal(actual: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", REGISTRY)
def test_traced_equations_are_the_step(name: str) -> None:
    t = trace(get_cell(name))
    values = leaves(t)
    expected = step(t, values)
    for signal, right in expected.items():
        got = evaluate(t.signals[signal], values)
        got = torch.as_tensor(got, dtype=torch.float64).expand(SHAPE)
        # Same operations up to the order of sums and products: a few roundings of 1.1e-16.
        assert_equal(got, right, 1e-14)
    assert set(t.states) <= set(t.new_states) <= set(t.signals)
    assert set(t.gates) <= set(t.signals)  # every gate can be recorded


def backward_inputs(
    t: Trace, values: dict[str, torch.Tensor], record: tuple[str, ...], zoneout: tuple[str, ...]
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], Any]:
    """What forward hands to backward: kept values, states, parameters. Not: pre-activations."""
    programs = derive(t, record, zoneout)
    outputs = interpret(programs.forward, values)
    kept = {n: v for n, v in values.items() if not n.startswith("a_")}
    kept |= {n: outputs[f"save_{n}"] for n in programs.saved}
    kept |= {n: outputs[f"new_{s}"] for n, s in programs.kept_in_state.items()}
    return kept, outputs, programs


@pytest.mark.parametrize("extras", [False, True], ids=["states", "recorded+zoneout"])
@pytest.mark.parametrize("name", POINTWISE)
def test_derived_backward_is_autograd(name: str, extras: bool) -> None:
    t = trace(get_cell(name))
    record = tuple(t.signals) if extras else ()
    zoneout = t.states if extras else ()
    values = leaves(t)
    keep = {f"keep_{s}": torch.rand(SHAPE, dtype=torch.float64) for s in zoneout}
    kept, outputs, programs = backward_inputs(t, values | keep, record, zoneout)

    right = step(t, values)
    right |= {s: evaluate(e, values) for s, e in t.signals.items() if s not in right}
    for s in zoneout:
        k = keep[f"keep_{s}"]
        right[s] = k * values[f"{s}_prev"] + (1 - k) * right[s]
    asked = {f"new_{s}": right[s] for s in t.states} | {f"rec_{r}": right[r] for r in record}
    assert {n for n in outputs if not n.startswith("save_")} == set(asked)
    loss = torch.zeros((), dtype=torch.float64)
    for n, value in asked.items():
        assert_equal(outputs[n], value, 1e-14)
        kept[f"d_{n}"] = torch.randn(SHAPE, dtype=torch.float64)
        loss = loss + (kept[f"d_{n}"] * value).sum()
    # Gradients of a leaf that does not matter are absent in autograd and 0 in the program.
    slopes = torch.autograd.grad(loss, list(values.values()), allow_unused=True)

    got = interpret(programs.backward, kept)
    assert set(got) == {f"g_{n}" for n in values}
    for (n, leaf), slope in zip(values.items(), slopes, strict=True):
        assert_equal(got[f"g_{n}"], torch.zeros_like(leaf) if slope is None else slope, 1e-12)


def test_lstm_keeps_its_four_gates_and_nothing_else() -> None:
    programs = derive(trace(LSTM()))
    assert set(programs.saved) == {"y_input", "y_forget", "y_candidate", "y_output"}
    functions = [e for _, e in programs.backward.body if e.is_Function]
    assert [type(f).__name__ for f in functions] == ["Tanh"]  # tanh(c), again


@pytest.mark.parametrize("name", POINTWISE)
def test_kept_values_are_all_read_by_backward(name: str) -> None:
    programs = derive(trace(get_cell(name)))
    exprs = [e for _, e in (*programs.backward.body, *programs.backward.outputs)]
    read = {s.name for e in exprs for s in e.free_symbols}
    assert {*programs.saved, *programs.kept_in_state} <= read
    assert len(programs.saved) <= len(trace(get_cell(name)).accumulators)


@pytest.mark.parametrize("name", sorted(set(REGISTRY) - set(POINTWISE)))
def test_cells_of_several_passes_have_no_single_program(name: str) -> None:
    with pytest.raises(ValueError, match="not one pointwise pass"):
        derive(trace(get_cell(name)))


def test_trace_is_made_once_per_cell() -> None:
    cell = LSTM()
    assert trace(cell) is trace(cell)


# -- functions -----------------------------------------------------------------------------

POSITIVE = {"log", "sqrt"}


@pytest.mark.parametrize("name", sorted(set(ELEMENTARY) - {"mean"}))
def test_derivative_of_an_elementary_function(name: str) -> None:
    f = ELEMENTARY[name]
    x = torch.linspace(0.1, 4, 40) if name in POSITIVE else torch.linspace(-4.03, 4.01, 40)
    x = x.double()
    a = sympy.Symbol("a", real=True)
    value = evaluate(f.symbol(a), {"a": x})
    torch.testing.assert_close(value, f(x), rtol=0, atol=0)
    step = 1e-5  # central difference: error step² f''' / 6, about 1e-9, and 1e-16 / step
    slope = (f(x + step) - f(x - step)) / (2 * step)
    got = evaluate(sympy.diff(f.symbol(a), a), {"a": x})
    assert_equal(torch.as_tensor(got), slope, 1e-7)
    assert f(0.7) == pytest.approx(f(torch.tensor(0.7, dtype=torch.float64)).item(), rel=1e-15)


COMPOSED = {
    "identity": (identity, lambda x: x),
    "silu": (silu, torch.nn.functional.silu),
    "hard_sigmoid": (hard_sigmoid, torch.nn.functional.hardsigmoid),
    "centred_1": (centred_1, lambda x: torch.tanh(x / 2)),
    "centred_2": (centred_2, lambda x: 2 * torch.tanh(x / 2)),
}


@pytest.mark.parametrize("name", COMPOSED)
def test_composed_functions(name: str) -> None:
    ours, independent = COMPOSED[name]
    x = torch.linspace(-5, 5, 41, dtype=torch.float64)
    assert_equal(ours(x), independent(x), 1e-14)
    a = sympy.Symbol("a", real=True)
    assert_equal(evaluate(ours(a), {"a": x}), ours(x), 1e-14)


def test_normalise_is_layer_norm() -> None:
    x = torch.randn(3, 20, dtype=torch.float64)
    ours = torch.cat(normalise(list(x.split(5, -1))), -1)
    assert_equal(ours, torch.nn.functional.layer_norm(x, (20,)), 1e-13)


def test_functions_refuse_what_they_cannot_take() -> None:
    with pytest.raises(TypeError, match="sigmoid takes a tensor, a number or a symbol, got str"):
        sigmoid("gate")
    with pytest.raises(NotImplementedError, match="no per-unit derivative"):
        sympy.diff(Mean(symbol("a")), symbol("a"))


# -- what an author writes wrongly ---------------------------------------------------------


def cell(**fields: Any) -> Cell:
    """A cell class made from its fields, instantiated."""
    fields = {"gates": ("g",), "step": lambda self, gate, state: {"h": tanh(gate.g)}} | fields
    return type("Made", (Cell,), fields)()


def step_returning(make: Any) -> dict[str, Any]:
    return {"step": lambda self, gate, state: make(gate, state)}


WRONG = {
    "missing state": (
        {"states": ("h", "c")}, ValueError, "must return every state, missing: c",
    ),
    "not a dict": (
        step_returning(lambda g, s: tanh(g.g)), TypeError, "must return a dict of states, got",
    ),
    "unknown feedback": ({"feedback": ("c",)}, ValueError, "feedback names c; allowed: h"),
    "unknown split": ({"split": ("x",)}, ValueError, "split names x; allowed: g"),
    "unknown biased": ({"biased": ("x",)}, ValueError, "biased names x; allowed: g"),
    "unknown keeps": ({"keeps": {"x": 1}}, ValueError, "keeps names x; allowed: g"),
    "split and late": ({"split": ("g",), "late": ("g",)}, ValueError, "split or late, not both"),
    "torch on symbols": (
        step_returning(lambda g, s: {"h": torch.tanh(g.g)}), TypeError, "cannot be traced.*tanh",
    ),
    "unknown gate": (
        step_returning(lambda g, s: {"h": g.forgotten}), TypeError, "cannot be traced",
    ),
    "a gate twice": ({"gates": ("g", "g")}, ValueError, "gates has a name twice"),
    "a state twice": ({"states": ("h", "h")}, ValueError, "states has a name twice"),
    "gates not a tuple": ({"gates": ["g"]}, TypeError, "gates must be a tuple of names"),
    "one string": ({"gates": "g"}, TypeError, "gates must be a tuple of names"),
    "no gate": ({"gates": ()}, ValueError, "gates must name at least one"),
    "not an identifier": ({"gates": ("g 1",)}, ValueError, "must be identifiers, got 'g 1'"),
    "no gate used": (
        step_returning(lambda g, s: {"h": 0.5 * s.h}), ValueError, "uses none of its gates",
    ),
    "block size": ({"block_size": 0}, ValueError, "block_size must be at least 1, got 0"),
    "biases": ({"biases": 3}, ValueError, "biases must be 1 or 2, got 3"),
    "foreign symbol": (
        step_returning(lambda g, s: {"h": g.g + sympy.Symbol("z")}),
        ValueError, r"symbols it was not given: \['z'\]",
    ),
    "late gate with two values": (
        {"late": ("g",), **step_returning(lambda g, s: {"h": g.g(s.h) + g.g(2 * s.h)})},
        ValueError, "late gate g is called with two values",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_errors_name_what_is_wrong(what: str) -> None:
    fields, error, message = WRONG[what]
    with pytest.raises(error, match=message):
        trace(cell(**fields))


def test_step_must_be_written() -> None:
    with pytest.raises(NotImplementedError, match="Empty must define step"):
        trace(type("Empty", (Cell,), {"gates": ("g",)})())


def test_hidden_size_must_fill_blocks() -> None:
    with pytest.raises(ValueError, match="multiple of the block size 2, got 5"):
        Layout(trace(LSTM1997(block_size=2)), 3, 5)


@pytest.mark.parametrize("name", ["gru", "gru-reset-before"])
def test_projection_needs_a_step_that_ignores_its_output(name: str) -> None:
    with pytest.raises(ValueError, match="proj_size needs a cell"):
        Layout(trace(get_cell(name)), 3, 5, proj_size=2)


# -- cells of one's own --------------------------------------------------------------------


def test_unused_gate_is_dropped() -> None:
    t = trace(cell(gates=("idle", "g")))
    assert t.gates == ("g",)
    assert Layout(t, 4, 3).shapes()["weight_ih"] == (3, 4)


def test_constant_gate_leaves_no_trace() -> None:
    t = trace(PeepholeLSTM(input=constant(1.0)))
    assert t.gates == ("forget", "candidate", "output")
    assert t.parameters == ("peephole_forget", "peephole_output")
    assert "input" not in {s.name for e in t.new_states.values() for s in e.free_symbols}


def test_user_cell_with_everything() -> None:
    """Split gate, parameter, two states fed back, an extra signal: traced and derived."""

    class Odd(Cell):
        gates = ("a", "b")
        states = ("h", "m")
        feedback = ("h", "m")
        split = ("b",)
        parameters = {"scale": 1.0}

        def step(self, gate: Any, state: Any, param: Any) -> dict[str, Any]:
            mix = sigmoid(gate.a) * gate.b.input + param.scale * gate.b.recurrent / 2
            m = 0.5 * state.m + silu(mix) ** 2
            return {"h": tanh(m - state.h), "m": m, "mix": mix}

    t = trace(Odd())
    assert t.feedback == ("h", "m")
    assert Layout(t, 4, 3).shapes() == {
        "weight_ih": (6, 4), "weight_hh": (6, 6), "bias": (6,), "scale": (3,),
    }  # fmt: skip
    values = leaves(t)
    kept, _, programs = backward_inputs(t, values, ("mix",), ())
    right = step(t, values)
    kept["d_new_h"], kept["d_new_m"], kept["d_rec_mix"] = torch.randn(3, *SHAPE).double()
    loss = sum((kept[f"d_{n}"] * right[n[4:]]).sum() for n in ("new_h", "new_m", "rec_mix"))
    slopes = torch.autograd.grad(loss, list(values.values()))
    got = interpret(programs.backward, kept)
    for n, slope in zip(values, slopes, strict=True):
        assert_equal(got[f"g_{n}"], slope, 1e-12)


def test_mean_over_units_is_not_pointwise() -> None:
    t = trace(cell(**step_returning(lambda g, s: {"h": tanh(g.g) - mean(s.h)})))
    assert not t.pointwise


def test_cell_prints_as_it_is_made() -> None:
    assert repr(LSTM(input=constant(1.0))).startswith("LSTM(input=constant(value=1.0), forget=")
