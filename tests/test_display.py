"""Equations for people: the text and LaTeX of known cells, and all of them printable."""

from __future__ import annotations

import unicodedata

import pytest
import sympy

from gatewise.cells import REGISTRY
from gatewise.equations import derive, trace
from gatewise.equations.display import describe, latex, letters, pretty, program


def lines(name: str) -> list[str]:
    found = pretty(trace(REGISTRY[name].make()))
    return [unicodedata.normalize("NFD", line) for line in (*found.gates, *found.states)]


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


def test_lstm() -> None:
    assert lines("lstm") == [
        nfd("ĩₜ = W_i·xₜ + U_i·hₜ₋₁ + b_i"),
        nfd("f̃ₜ = W_f·xₜ + U_f·hₜ₋₁ + b_f"),
        nfd("g̃ₜ = W_g·xₜ + U_g·hₜ₋₁ + b_g"),
        nfd("õₜ = W_o·xₜ + U_o·hₜ₋₁ + b_o"),
        nfd("cₜ = cₜ₋₁·σ(f̃ₜ) + σ(ĩₜ)·tanh(g̃ₜ)"),
        nfd("hₜ = σ(õₜ)·tanh(cₜ)"),
    ]


def test_both_forms_of_the_gru() -> None:
    assert lines("gru")[-2:] == [
        nfd("ñʳₜ = U_n·hₜ₋₁ + b_nʳ"),
        nfd("hₜ = hₜ₋₁·σ(z̃ₜ) + (1 - σ(z̃ₜ))·tanh(ñʳₜ·σ(r̃ₜ) + ñₜ)"),
    ]
    assert lines("gru-reset-before")[2] == nfd("ñₜ = W_n·xₜ + U_n·(hₜ₋₁·σ(r̃ₜ)) + b_n")


def test_fed_back_gates_and_peepholes() -> None:
    assert lines("lstm-1997")[0] == nfd("ĩₜ = W_i·xₜ + U_i·[hₜ₋₁, iₜ₋₁, oₜ₋₁] + b_i")
    assert lines("lstm-peephole")[-1] == nfd("hₜ = σ(õₜ + cₜ·p_o)·tanh(cₜ)")


def test_latex_of_the_lstm() -> None:
    text = latex(trace(REGISTRY["lstm"].make()))
    assert r"h_{t} &= \sigma\left(\tilde{o}_{t}\right) \tanh\left(c_{t}\right)" in text
    assert r"\tilde{f}_{t} &= W_{f} \, x_{t} + U_{f} \, h_{t-1} + b_{f} \\" in text


@pytest.mark.parametrize("name", REGISTRY)
def test_every_cell_has_equations(name: str) -> None:
    traced = trace(REGISTRY[name].make())
    text, source = describe(traced), latex(traced)
    for state in traced.states:
        letter = letters(traced).get(state, state)
        assert f"\n{letter}ₜ = " in text
    assert "_prev" not in text + source  # every symbol has its notation
    assert "a_" not in pretty(traced).states[-1]
    assert source.count("{") == source.count("}")
    if traced.pointwise:
        derived = derive(traced).backward
        assert len(program(derived).splitlines()) == len(derived.body) + len(derived.outputs)


def test_the_lstm_s_state_equation_computes_the_state() -> None:
    """The printed line, read back by SymPy, is the traced expression."""
    traced = trace(REGISTRY["lstm"].make())
    right = lines("lstm")[-2].split(" = ")[1]
    plain = (
        right.replace("cₜ₋₁", "c_prev")
        .replace(nfd("f̃ₜ"), "a_forget")
        .replace(nfd("ĩₜ"), "a_input")
        .replace(nfd("g̃ₜ"), "a_candidate")
        .replace("σ", "Sigmoid")
        .replace("tanh", "Tanh")
        .replace("·", "*")
    )
    functions = {type(f).__name__: type(f) for f in traced.new_states["c"].atoms(sympy.Function)}
    symbols = {s.name: s for s in traced.new_states["c"].free_symbols}
    assert sympy.simplify(sympy.sympify(plain, functions | symbols) - traced.new_states["c"]) == 0
