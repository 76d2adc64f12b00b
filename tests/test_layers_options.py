"""What layers do beyond torch.nn's: every cell, lengths, resets, records, masks, initialisation.

Shapes: T = time, B = batch, I = input size, H = hidden units, L = layers, D = directions.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import gatewise as gw
from gatewise.equations import trace
from tests.layers import EACH, B, H, I, T, by_name, inputs, make, random_state, same

# -- ragged and cut sequences ----------------------------------------------------------------


@EACH
def test_lengths_equal_rows_alone(cell: str, executor: str) -> None:
    layer = make(cell, executor, bidirectional=True)
    x, state = inputs(), random_state(layer)
    lengths = [3, 0, T, 1]
    for b, n in enumerate(lengths):
        x[n:, b] = math.nan  # whatever fills a step that does not exist is not read
    output, final = layer(x, state, lengths=lengths)
    for b, n in enumerate(lengths):
        row, alone = layer(x[:n, b : b + 1], {k: s[:, b : b + 1] for k, s in state.items()})
        same(output[:n, b : b + 1], row)
        assert not output[n:, b].any()
        for name, s in by_name(layer, final).items():
            same(s[:, b : b + 1], by_name(layer, alone)[name])
    output.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in layer.parameters())


def run_pieces(
    layer: gw.Recurrent, x: torch.Tensor, state: dict[str, torch.Tensor], starts: list[int]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """One row [n, 1, I], each piece on its own: what resets at `starts` must equal.

    The forward direction carries `state` into the first piece unless that begins with a reset;
    the backward direction carries it into the last.
    """
    cuts = sorted({0, *starts})
    ends = [*cuts[1:], len(x)]
    forward = torch.arange(len(next(iter(state.values())))) % layer.num_directions == 0
    forward = forward[:, None, None]
    outputs, finals = [], {}
    for begin, end in zip(cuts, ends, strict=True):
        keep_forward = begin == 0 and 0 not in starts
        keep_backward = end == len(x)
        keep = (forward & keep_forward) | (~forward & keep_backward)
        output, final = layer(x[begin:end], {n: s * keep for n, s in state.items()})
        outputs.append(output)
        for name, s in by_name(layer, final).items():
            first = finals.get(name, s)  # the backward direction ends in the first piece
            finals[name] = torch.where(forward, s, first)
    return torch.cat(outputs), finals


@pytest.mark.parametrize("bidirectional", [False, True])
@EACH
def test_resets_equal_pieces_alone(cell: str, bidirectional: bool, executor: str) -> None:
    layer = make(cell, executor, bidirectional=bidirectional)
    x, state = inputs(), random_state(layer)
    lengths = [T, 4, T, 1]
    resets = torch.rand(T, B) < 0.4
    resets[0, 0], resets[4, 1] = True, True  # the first step; the first that does not exist
    output, final = layer(x, state, lengths=lengths, resets=resets)
    for b, n in enumerate(lengths):
        starts = [t for t in range(n) if resets[t, b]]
        own = {k: s[:, b : b + 1] for k, s in state.items()}
        row, alone = run_pieces(layer, x[:n, b : b + 1], own, starts)
        same(output[:n, b : b + 1], row)
        for name, s in by_name(layer, final).items():
            same(s[:, b : b + 1], alone[name])


@given(
    steps=st.integers(0, 5),
    batch=st.integers(0, 4),
    cell=st.sampled_from(["lstm", "gru", "lstm-1997-blocks", "lstm-peephole"]),
    bidirectional=st.booleans(),
    data=st.data(),
)
def test_any_lengths_and_resets(
    steps: int, batch: int, cell: str, bidirectional: bool, data: st.DataObject
) -> None:
    layer = make(cell, "auto", layers=1, bidirectional=bidirectional)
    x = torch.randn(steps, batch, I, dtype=torch.float64)
    lengths = data.draw(st.lists(st.integers(0, steps), min_size=batch, max_size=batch))
    marks = data.draw(st.lists(st.booleans(), min_size=steps * batch, max_size=steps * batch))
    resets = torch.tensor(marks, dtype=torch.bool).view(steps, batch)
    state = random_state(layer, batch)
    output, final = layer(x, state, lengths=lengths, resets=resets)
    for b, n in enumerate(lengths):
        own = {k: s[:, b : b + 1] for k, s in state.items()}
        if n == 0:
            for name, s in by_name(layer, final).items():
                same(s[:, b : b + 1], own[name])
            continue
        starts = [t for t in range(n) if resets[t, b]]
        row, alone = run_pieces(layer, x[:n, b : b + 1], own, starts)
        same(output[:n, b : b + 1], row)
        for name, s in by_name(layer, final).items():
            same(s[:, b : b + 1], alone[name])


@pytest.mark.parametrize("cell", ["lstm", "gru", "lstm-1997-blocks"])
def test_batch_first_and_unbatched_forms_agree(cell: str, executor: str) -> None:
    layer = make(cell, executor, bidirectional=True)
    x, state = inputs(), random_state(layer)
    resets, lengths = torch.rand(T, B) < 0.3, torch.tensor([6, 2, 0, 5])
    names = tuple(trace(layer.cell).signals)
    output, final, records = layer(x, state, lengths=lengths, resets=resets, record=names)
    layer.batch_first = True
    turned, final_2, records_2 = layer(
        x.transpose(0, 1), state, lengths=lengths, resets=resets.T, record=names
    )
    same(turned.transpose(0, 1), output)
    same(tuple(by_name(layer, final_2).values()), tuple(by_name(layer, final).values()))
    for name in names:
        same(records_2[name].transpose(1, 2), records[name])
    alone, final_1, records_1 = layer(
        x[:, 0], {n: s[:, 0] for n, s in state.items()}, resets=resets[:, 0], record=names
    )
    same(alone, output[:, 0])
    for name, s in by_name(layer, final_1).items():
        same(s, by_name(layer, final)[name][:, 0])
    for name in names:
        same(records_1[name], records[name][:, :, 0])


@pytest.mark.parametrize("shape", [(0, B), (T, 0), (0, 0)])
@pytest.mark.parametrize("cell", ["lstm", "gru", "lstm-1997-blocks", "lstm-layernorm"])
def test_no_steps_and_no_rows(cell: str, shape: tuple[int, int], executor: str) -> None:
    layer = make(cell, executor, bidirectional=True)
    state = random_state(layer, shape[1])
    x = torch.zeros(*shape, I, dtype=torch.float64)
    output, final, records = layer(x, state, record=("h",))
    assert output.shape == (*shape, 2 * H)
    assert records["h"].shape == (4, *shape, H)
    if shape[0] == 0:
        for name, s in by_name(layer, final).items():
            assert torch.equal(s, state[name])


def test_nan_stays_in_its_row(executor: str) -> None:
    layer = make("lstm", executor)
    x = inputs()
    clean, _ = layer(x)
    x[2, 1] = math.nan
    output, _ = layer(x)
    assert output[2:, 1].isnan().all()
    same(output[:2, 1], clean[:2, 1])
    rest = [0, 2, 3]
    same(output[:, rest], clean[:, rest])


# -- states ----------------------------------------------------------------------------------


@EACH
def test_chunks_with_carried_state_equal_one_run(cell: str, executor: str) -> None:
    layer = make(cell, executor)
    x = inputs()
    whole, final = layer(x)
    first, state = layer(x[:2])
    second, state = layer(x[2:], state)
    same(torch.cat([first, second]), whole)
    same(tuple(by_name(layer, state).values()), tuple(by_name(layer, final).values()))


def test_states_have_names(executor: str) -> None:
    layer = make("lstm-1997", executor)
    output, state = layer(inputs())
    assert state._fields == ("h", "c", "input", "output")
    h, c, *_ = state
    assert h is state.h
    assert c is state.c
    again, _ = layer(inputs(), {"c": state.c, "h": state.h})  # what is left out is zero
    assert again.shape == output.shape
    only_c = {"c": state.c}
    zero = torch.zeros_like
    x = inputs()
    same(layer(x, only_c)[0], layer(x, (zero(h), c, zero(state.input), zero(state.output)))[0])


def test_blocks_share_a_gate_state(executor: str) -> None:
    layer = make("lstm-1997-blocks", executor, layers=1)
    _, state, records = layer(inputs(), record=("input", "c"))
    assert state.input.shape == (1, B, H // 2)
    assert records["input"].shape == (1, T, B, H // 2)
    assert records["c"].shape == (1, T, B, H)
    same(records["input"][:, -1], state.input)


# -- records ---------------------------------------------------------------------------------


@EACH
def test_recorded_states_are_the_states(cell: str, executor: str) -> None:
    layer = make(cell, executor)
    names = tuple(trace(layer.cell).signals)
    x, lengths = inputs(), [T, 3, 0, 1]
    output, final, records = layer(x, lengths=lengths, record=names)
    same(output, layer(x, lengths=lengths)[0])
    same(records["h"][-1], output)
    assert set(records) == set(names)
    for b, n in enumerate(lengths):
        for name, r in records.items():
            assert not r[:, n:, b].any(), name
        for name, s in by_name(layer, final).items():
            if n:
                same(records[name][:, n - 1, b], s[:, b])


def test_recorded_gates_satisfy_the_equations(executor: str) -> None:
    layer = make("lstm", executor, layers=1)
    _, _, r = layer(inputs(), record=("input", "forget", "candidate", "output", "c", "h"))
    before = torch.cat([torch.zeros_like(r["c"][:, :1]), r["c"][:, :-1]], 1)
    same(r["c"], r["forget"] * before + r["input"] * r["candidate"])
    same(r["h"], r["output"] * r["c"].tanh())


def test_one_record_may_be_named_by_a_string() -> None:
    layer = make("gru", "reference", layers=1)
    assert set(layer(inputs(), record="update")[2]) == {"update"}


# -- between layers --------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [None, [T, 2, 0, 5]])
@pytest.mark.parametrize("cell", ["lstm", "gru-reset-before"])
def test_residual_and_layer_norm_are_layers_by_hand(
    cell: str, lengths: list[int] | None, executor: str
) -> None:
    stack = make(cell, executor, layers=3, bidirectional=True, residual=True, layer_norm=True)
    for norm in stack.norms:
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    x = inputs()
    live = torch.arange(T)[:, None] < torch.tensor(lengths or [T] * B)
    y = x
    for k in range(3):
        single = gw.Recurrent(cell, y.shape[-1], H, bidirectional=True, dtype=torch.float64)
        own = {n: p for n, p in stack.state_dict().items() if f"_l{k}" in n}
        single.load_state_dict({n.replace(f"_l{k}", "_l0"): p for n, p in own.items()})
        below = stack.norms[k - 1](y) if k else y
        y = single(below, lengths=lengths)[0] + (below if k else 0)
        y = y * live.unsqueeze(-1)
    same(stack(x, lengths=lengths)[0], y)


# -- initialisation --------------------------------------------------------------------------


def bias_sum(layer: gw.Recurrent, gate: str) -> torch.Tensor:
    d = next(iter(layer.directions))
    rows, tensors = d.layout.bias_slice(gate), layer.weights_of(d)
    assert rows is not None
    return tensors["bias_ih"][rows] + tensors["bias_hh"][rows]


@pytest.mark.parametrize(("name", "value"), [("forget_bias", 1.0), ("forget_bias(2.5)", 2.5)])
def test_forget_bias(name: str, value: float) -> None:
    assert (bias_sum(gw.LSTM(I, H, init=name), "forget") == value).all()
    assert (bias_sum(gw.GRU(I, H, init=name), "update") == value).all()
    assert not (bias_sum(gw.LSTM(I, H, init=name), "input") == value).any()
    normal = gw.Recurrent("lstm-layernorm", I, H, init=name)
    assert (normal.bias_forget_l0 == value).all()


def test_chrono() -> None:
    layer = gw.LSTM(I, 500, init="chrono(100)")
    forget, keep = bias_sum(layer, "forget"), bias_sum(layer, "input")
    assert torch.equal(forget, -keep)
    assert forget.min() >= 0
    assert forget.max() <= math.log(99)
    # u ~ U[1, 99]: mean 50, standard deviation of the mean 28.3 / sqrt(500) = 1.3
    assert abs(forget.exp().mean() - 50) < 7
    blocks = gw.Recurrent("lstm-1997-blocks", I, H, init="chrono(10)")
    assert (blocks.bias_l0[: H // 2] <= 0).all()


def test_orthogonal_blocks() -> None:
    layer = gw.Recurrent("gru", I, H, 2, bidirectional=True, init=["uniform(0.1)", "orthogonal"])
    for group in layer.all_weights:
        for block in group[1].split(H):
            torch.testing.assert_close(block @ block.T, torch.eye(H))
        assert group[0].abs().max() <= 0.1


def test_uniform_reaches_its_bound() -> None:
    layer = gw.LSTM(30, 30, init="uniform(0.2)")
    w = torch.cat([p.flatten() for p in layer.parameters()])
    assert 0.199 < w.max() <= 0.2
    assert -0.2 <= w.min() < -0.199


def test_initialisations_are_functions_too() -> None:
    layer = gw.LSTM(I, H)
    gw.init.forget_bias(layer, 3.0)
    assert (bias_sum(layer, "forget") == 3).all()
    layer = gw.LSTM(I, H, init=lambda made: gw.init.chrono(made, 20))
    assert (bias_sum(layer, "forget") >= 0).all()
    layer.reset_parameters()
    assert (bias_sum(layer, "forget") >= 0).all()


@pytest.mark.parametrize(
    ("cell", "options", "message"),
    [
        ("rnn", {"init": "forget_bias"}, "needs a gate that keeps memory and has a bias; RNN"),
        ("lstm-1997", {"init": "forget_bias"}, "LSTM1997 has none"),
        ("rnn", {"init": "chrono(9)"}, "RNN has none"),
        ("lstm", {"init": "chrono(9)", "bias": False}, "LSTM with bias=False has none"),
        ("lstm", {"init": "chrono"}, "needs the longest time span"),
        ("lstm", {"init": "chrono(1)"}, "longest must be at least 2 steps"),
        ("lstm", {"init": "uniform(-1)"}, "bound must be zero or positive"),
        ("lstm", {"init": "uniform(a)"}, "takes one number, got 'a'"),
        ("lstm", {"init": "torch(1)"}, "takes no number"),
        ("lstm", {"init": ["orthogonal", "nothing"]}, "init must be one of"),
        ("lstm-1997-no-output-gate", {"init": "orthogonal"}, "needs recurrent weights"),
    ],
)
def test_initialisations_that_do_not_fit(cell: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gw.Recurrent(cell, I, H, **options)


# -- which executor --------------------------------------------------------------------------


def test_explain_names_every_part() -> None:
    layer = make("lstm", "reference", bidirectional=True)
    found = gw.explain(layer, inputs(), record=("c",), lengths=[1, 2, 3, 4])
    assert [name for name, _ in found.parts] == [
        "layer 0",
        "layer 0 reverse",
        "layer 1",
        "layer 1 reverse",
    ]
    assert found.executor == "reference"
    assert "executor='reference' was asked for" in str(found)
    assert found.reasons == ("executor='reference' was asked for",)


def test_strict_refuses_the_reference() -> None:
    layer = make("lstm", "reference", strict=True)
    with pytest.raises(gw.SlowPathError, match="strict=True refuses"):
        layer(inputs())
    assert gw.explain(layer, inputs()).executor == "reference"


def test_explain_is_right(executor: str) -> None:
    layer = make("lstm", executor)
    assert gw.explain(layer, inputs()).executor == ("reference" if executor != "auto" else "cpu")


def test_explain_wants_a_layer() -> None:
    with pytest.raises(TypeError, match="layer must be a gatewise layer, got LSTM"):
        gw.explain(torch.nn.LSTM(I, H), inputs())  # type: ignore[arg-type]
