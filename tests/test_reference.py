"""The judge itself: every option against running the pieces by hand, and its derivatives."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gatewise.executors import Zoneout, reference
from gatewise.executors.counter import uniform
from tests.support import Problem, options, problem

CELLS = ["lstm", "gru", "gru-reset-before", "lstm-layernorm", "lstm-1997-blocks", "fgr"]


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    # The same products on other batch sizes: only the order of their sums may differ.
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


def part(p: Problem, steps: slice, row: int | None = None, **state: torch.Tensor) -> Problem:
    """Some steps of one row, or of all, from the given states or the problem's own."""
    rows = slice(None) if row is None else slice(row, row + 1)
    begun = {n: t[rows] for n, t in p.state.items()} | state
    return Problem(p.layout, p.x[steps, rows], begun, p.parameters)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_lengths_are_rows_run_alone(cell: str, reverse: bool) -> None:
    p = problem(cell, steps=6, batch=4)
    lengths = torch.tensor([6, 0, 3, 1])
    whole = reference.run(p.with_options(lengths=lengths, reverse=reverse, record=("h",)).request())
    for row, n in enumerate(lengths.tolist()):
        alone = part(p, slice(0, n), row).with_options(reverse=reverse)
        expected = reference.run(alone.request())
        close(whole.output[:n, row], expected.output[:, 0])
        close(whole.record["h"][:n, row], expected.output[:, 0])
        assert not whole.output[n:, row].any()
        assert not whole.record["h"][n:, row].any()
        for s, t in expected.state.items():
            close(whole.state[s][row], t[0])


@pytest.mark.parametrize("cell", CELLS)
def test_resets_start_again_from_zero(cell: str) -> None:
    p = problem(cell, steps=7, batch=2)
    resets = torch.zeros(7, 2, dtype=torch.bool)
    resets[3, 0] = resets[0, 1] = resets[5, 1] = True
    whole = reference.run(p.with_options(resets=resets).request())
    zero = {n: torch.zeros_like(t[:1]) for n, t in p.state.items()}
    pieces = {
        0: [part(p, slice(0, 3), 0), part(p, slice(3, 7), 0, **zero)],
        1: [part(p, slice(0, 5), 1, **zero), part(p, slice(5, 7), 1, **zero)],
    }
    for row, of_row in pieces.items():
        results = [reference.run(q.request()) for q in of_row]
        close(whole.output[:, row], torch.cat([r.output[:, 0] for r in results]))
        for s, t in results[-1].state.items():
            close(whole.state[s][row], t[0])


@pytest.mark.parametrize("cell", CELLS)
def test_reverse_is_the_flipped_sequence(cell: str) -> None:
    p = problem(cell)
    backwards = reference.run(p.with_options(reverse=True).request())
    flipped = reference.run(replace(p, x=p.x.flip(0)).request())
    close(backwards.output, flipped.output.flip(0))


@pytest.mark.parametrize("cell", ["lstm", "gru", "lstm-layernorm"])
def test_feedback_mask_scales_the_columns_of_u(cell: str) -> None:
    """For the step a mask on what U multiplies is a mask on U's columns, one row at a time."""
    p = options(problem(cell), "feedback_mask")
    mask = p.options["feedback_mask"]
    whole = reference.run(p.request())
    for row in range(3):
        u = p.parameters["weight_hh"] * mask[row]
        alone = replace(part(p, slice(None), row), parameters=p.parameters | {"weight_hh": u})
        close(whole.output[:, row], reference.run(alone.request()).output[:, 0])


@pytest.mark.parametrize("cell", CELLS)
def test_zoneout_in_training_is_a_choice_per_unit(cell: str) -> None:
    """Step by step: each unit of a state is the new one or the previous one, by its mask."""
    p = options(problem(cell), "zoneout")
    zoneout: Zoneout = p.options["zoneout"]
    whole = reference.run(p.with_options(record=p.layout.trace.states).request())
    # The states before each step, at full width: blocks keep one mask for each of their units.
    wide = {n: p.layout.expand_state(n, t) for n, t in p.state.items()}
    for t in range(len(p.x)):
        request = replace(part(p, slice(t, t + 1)).request(), state=wide)
        plain = reference.run(request)
        for k, (s, prob) in enumerate(zoneout.probability.items()):
            stream = zoneout.stream * len(p.layout.trace.states) + k
            numbers = uniform(zoneout.seed, stream, range(7 + t, 8 + t), 3, wide[s].shape[-1])[0]
            close(whole.record[s][t], torch.where(numbers < prob, wide[s], plain.state[s]))
        wide = {s: whole.record[s][t] for s in wide}


def test_zoneout_in_evaluation_is_the_expectation() -> None:
    p = problem("gru", steps=1)
    plain = reference.run(p.request()).output[0]
    zoneout = Zoneout({"h": 0.25}, training=False, seed=0, stream=0)
    mixed = reference.run(p.with_options(zoneout=zoneout).request()).output[0]
    close(mixed, 0.25 * p.state["h"] + 0.75 * plain)


@pytest.mark.parametrize(("probability", "frozen"), [(0.0, False), (1.0, True)])
def test_zoneout_at_its_ends(probability: float, frozen: bool) -> None:
    p = problem("lstm")
    zoneout = Zoneout({"h": probability, "c": probability}, training=True, seed=0, stream=0)
    got = reference.run(p.with_options(zoneout=zoneout).request())
    expected = p.state if frozen else reference.run(p.request()).state
    assert all(torch.equal(got.state[s], expected[s]) for s in expected)


@given(cut=st.integers(0, 9), names=st.sets(st.sampled_from(["resets", "zoneout", "record"])))
def test_chunks_equal_the_whole(cut: int, names: set[str]) -> None:
    p = options(problem("lstm", steps=9), *sorted(names))
    whole = reference.run(p.request())
    chunks, state = [], p.state
    for steps in (slice(0, cut), slice(cut, 9)):
        chosen = dict(p.options)
        if "resets" in chosen:
            chosen["resets"] = chosen["resets"][steps]
        if "zoneout" in chosen:
            chosen["zoneout"] = replace(chosen["zoneout"], offset=7 + steps.start)
        piece = part(p, steps, **state).with_options(**chosen)
        chunks.append(reference.run(piece.request()))
        state = chunks[-1].state
    close(torch.cat([c.output for c in chunks]), whole.output)
    for s in state:
        close(state[s], whole.state[s])
    for name in whole.record:
        close(torch.cat([c.record[name] for c in chunks]), whole.record[name])


def test_recorded_gates_obey_the_equations() -> None:
    p = options(problem("lstm"), "record")
    got = reference.run(p.request())
    r = got.record
    before = torch.cat([p.state["c"][None], r["c"][:-1]])
    close(r["c"], r["forget"] * before + r["input"] * r["candidate"])
    close(r["h"], r["output"] * r["c"].tanh())
    assert torch.equal(r["h"], got.output)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru", "lstm-layernorm", "lstm-1997-blocks"])
def test_first_and_second_derivatives(cell: str) -> None:
    p = problem(cell, steps=3, batch=2, inputs=2, hidden=3)
    leaves = [t.clone().requires_grad_() for t in p.leaves().values()]
    states = len(p.state)

    def f(*values: torch.Tensor) -> torch.Tensor:
        q = Problem(
            p.layout,
            values[0],
            dict(zip(p.state, values[1 : 1 + states], strict=True)),
            dict(zip(p.parameters, values[1 + states :], strict=True)),
        )
        return reference.run(q.request()).output

    # fast mode: one random direction per check instead of every entry, at default tolerances
    assert torch.autograd.gradcheck(f, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(f, leaves, fast_mode=True)
