"""LSTM, GRU and RNN against torch.nn's, over the whole grid of their arguments.

Shapes: T = time, B = batch, I = input size, H = hidden units.
"""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence

import gatewise as gw

T, B, I, H = 5, 3, 3, 4  # noqa: E741 - the field's name for the input size
# Two float64 computations of the same sums in another order: a few roundings of 1e-16 each.
CLOSE = {"rtol": 1e-10, "atol": 1e-12}

KINDS = {
    "lstm": ("LSTM", {}),
    "lstm-projected": ("LSTM", {"proj_size": 2}),
    "gru": ("GRU", {}),
    "rnn-tanh": ("RNN", {"nonlinearity": "tanh"}),
    "rnn-relu": ("RNN", {"nonlinearity": "relu"}),
}
GRID = [
    {"num_layers": n, "bias": b, "batch_first": f, "bidirectional": d}
    for n, b, f, d in itertools.product((1, 2), (True, False), (False, True), (False, True))
]
FORMS = ("batched", "unbatched", "packed sorted", "packed unsorted")


def pair(kind: str, executor: str, **options: Any) -> tuple[torch.nn.Module, gw.Recurrent]:
    """torch's layer and ours with the same weights, in float64."""
    name, own = KINDS[kind]
    options = {"dtype": torch.float64} | own | options
    theirs = getattr(torch.nn, name)(I, H, **options)
    ours = getattr(gw, name)(I, H, executor=executor, **options)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, ours


def given_as(form: str, x: torch.Tensor, batch_first: bool) -> Any:
    """x [T, B, I] in another form."""
    if form == "unbatched":
        return x[:, 0]
    if batch_first:
        x = x.transpose(0, 1)
    if form == "batched":
        return x
    lengths = [5, 3, 2] if form == "packed sorted" else [2, 5, 1]
    return pack_padded_sequence(x, lengths, batch_first, enforce_sorted="un" not in form)


def everything(layer: Any, form: str, x: torch.Tensor, states: Any) -> dict[str, torch.Tensor]:
    """Outputs, final states and every gradient of one call, by name."""
    x = x.clone().requires_grad_()
    states = [s.clone().requires_grad_() for s in states]
    hx = tuple(states) if len(states) == 2 else states[0] if states else None
    output, final = layer(given_as(form, x, layer.batch_first), hx)
    found = {"output": output.data if isinstance(output, PackedSequence) else output}
    if isinstance(output, PackedSequence):
        found |= {"batch_sizes": output.batch_sizes}
        if output.sorted_indices is not None:
            found |= {"sorted": output.sorted_indices, "unsorted": output.unsorted_indices}
    final = final if isinstance(final, tuple) else (final,)
    found |= {f"final {k}": s for k, s in enumerate(final)}
    weigh = torch.Generator().manual_seed(1)
    loss = sum(
        (t * torch.rand(t.shape, generator=weigh, dtype=t.dtype)).sum()
        for t in (found["output"], *final)
    )
    parameters = dict(layer.named_parameters())
    leaves = {"input": x, **{f"state {k}": s for k, s in enumerate(states)}, **parameters}
    slopes = torch.autograd.grad(loss, list(leaves.values()))
    return found | {f"gradient by {n}": g for n, g in zip(leaves, slopes, strict=True)}


@pytest.mark.parametrize("options", GRID, ids=lambda o: "-".join(str(int(v)) for v in o.values()))
@pytest.mark.parametrize("kind", KINDS)
def test_equals_torch(kind: str, options: dict[str, Any], executor: str) -> None:
    theirs, ours = pair(kind, executor, **options)
    x = torch.randn(T, B, I, dtype=torch.float64)
    many = options["num_layers"] * (1 + options["bidirectional"])
    for form, with_state in itertools.product(FORMS, (False, True)):
        sizes = []
        if with_state:
            sizes = [theirs.proj_size or H] + [H] * ("lstm" in kind)
        rows = () if form == "unbatched" else (B,)
        states = [torch.randn(many, *rows, n, dtype=torch.float64) for n in sizes]
        expected = everything(theirs, form, x, states)
        actual = everything(ours, form, x, states)
        assert actual.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(
                actual[name], value, **CLOSE, msg=lambda m, n=name, f=form: f"{f}, {n}: {m}"
            )


@pytest.mark.parametrize("options", GRID[::3], ids=lambda o: "-".join(map(str, o.values())))
@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_weights_and_state_dict(kind: str, options: dict[str, Any]) -> None:
    name, own = KINDS[kind]
    torch.manual_seed(3)
    theirs = getattr(torch.nn, name)(I, H, **own, **options)
    torch.manual_seed(3)
    ours = getattr(gw, name)(I, H, **own, **options)
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    for n, t in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[n], t)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    for group, other in zip(ours.all_weights, theirs.all_weights, strict=True):
        assert [w.shape for w in group] == [w.shape for w in other]


def test_a_whole_models_checkpoint_loads_both_ways() -> None:
    class Model(torch.nn.Module):
        def __init__(self, library: Any) -> None:
            super().__init__()
            self.embed = torch.nn.Embedding(7, I)
            self.rnn = library.LSTM(I, H, 2, bidirectional=True)
            self.head = torch.nn.Linear(2 * H, 7)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.head(self.rnn(self.embed(tokens))[0])

    theirs, ours = Model(torch.nn), Model(gw)
    tokens = torch.randint(0, 7, (T, B))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    torch.testing.assert_close(ours(tokens), theirs(tokens))
    again = Model(torch.nn)
    again.load_state_dict(ours.state_dict(), strict=True)
    torch.testing.assert_close(again(tokens), theirs(tokens))


@pytest.mark.parametrize("kind", KINDS)
def test_attributes_are_torchs(kind: str) -> None:
    theirs, ours = pair(kind, "reference", num_layers=2, dropout=0.5, bidirectional=True)
    for name in [
        "input_size",
        "hidden_size",
        "num_layers",
        "bias",
        "batch_first",
        "dropout",
        "bidirectional",
        "proj_size",
        "mode",
    ]:
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.flatten_parameters() is None
    assert theirs.extra_repr() in ours.extra_repr()


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn-tanh"])
def test_positional_arguments_are_torchs(kind: str) -> None:
    name = KINDS[kind][0]
    options = (2, "relu", False, True, 0.5, True) if name == "RNN" else (2, False, True, 0.5, True)
    theirs = getattr(torch.nn, name)(I, H, *options)
    ours = getattr(gw, name)(I, H, *options)
    assert ours.mode == theirs.mode
    assert ours.bias is theirs.bias is False
    assert ours.dropout == theirs.dropout == 0.5
    assert ours.state_dict().keys() == theirs.state_dict().keys()


@given(
    steps=st.integers(1, 6),
    batch=st.integers(1, 5),
    inputs=st.integers(1, 9),
    hidden=st.integers(1, 35),
    layers=st.integers(1, 3),
    bidirectional=st.booleans(),
    data=st.data(),
)
def test_any_shape_equals_torch(
    steps: int,
    batch: int,
    inputs: int,
    hidden: int,
    layers: int,
    bidirectional: bool,
    data: st.DataObject,
) -> None:
    theirs = torch.nn.LSTM(inputs, hidden, layers, bidirectional=bidirectional, dtype=torch.float64)
    ours = gw.LSTM(inputs, hidden, layers, bidirectional=bidirectional, dtype=torch.float64)
    ours.load_state_dict(theirs.state_dict())
    lengths = data.draw(st.lists(st.integers(1, steps), min_size=batch, max_size=batch))
    rows = [torch.randn(n, inputs, dtype=torch.float64) for n in lengths]
    packed = pack_sequence(rows, enforce_sorted=False)
    expected, (h, c) = theirs(packed)
    actual, state = ours(packed)
    torch.testing.assert_close(actual.data, expected.data, **CLOSE)
    torch.testing.assert_close(state.h, h, **CLOSE)
    torch.testing.assert_close(state.c, c, **CLOSE)
    padded = torch.nn.utils.rnn.pad_sequence(rows)
    output, state = ours(padded, lengths=lengths)
    whole, _ = torch.nn.utils.rnn.pad_packed_sequence(expected)
    torch.testing.assert_close(output, whole, **CLOSE)
    torch.testing.assert_close(state.c, c, **CLOSE)


def test_dropout_of_one_is_allowed_as_in_torch() -> None:
    theirs, ours = pair("lstm", "reference", num_layers=2, dropout=1.0)
    x = torch.randn(T, B, I, dtype=torch.float64)
    torch.testing.assert_close(ours(x)[0], theirs(x)[0], **CLOSE)
    torch.testing.assert_close(ours.eval()(x)[0], theirs.eval()(x)[0], **CLOSE)


def test_hx_is_another_name_of_state() -> None:
    theirs, ours = pair("lstm", "reference")
    x = torch.randn(T, B, I, dtype=torch.float64)
    hx = (torch.randn(1, B, H, dtype=torch.float64), torch.randn(1, B, H, dtype=torch.float64))
    torch.testing.assert_close(ours(x, hx=hx)[0], theirs(x, hx=hx)[0], **CLOSE)


BAD_ARGUMENTS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"hidden_size": -3}, ValueError, "hidden_size must be positive, got -3"),
    ({"hidden_size": True}, TypeError, "hidden_size must be an int, got True"),
    ({"input_size": 0}, ValueError, "input_size must be positive, got 0"),
    ({"input_size": 2.0}, TypeError, r"input_size must be an int, got 2\.0"),
    ({"num_layers": 0}, ValueError, "num_layers must be positive, got 0"),
    ({"bias": 1}, TypeError, "bias must be True or False, got 1"),
    ({"batch_first": None}, TypeError, "batch_first must be True or False"),
    ({"bidirectional": "yes"}, TypeError, "bidirectional must be True or False"),
    ({"dropout": 1.5, "num_layers": 2}, ValueError, r"dropout must be in \[0, 1\], got 1\.5"),
    ({"dropout": True, "num_layers": 2}, ValueError, r"dropout must be a number in \[0, 1\]"),
    ({"dropout": float("nan")}, ValueError, r"dropout must be in \[0, 1\], got nan"),
    ({"proj_size": -1}, ValueError, "proj_size must be zero .* or positive, got -1"),
    ({"proj_size": H}, ValueError, "proj_size must be smaller than hidden_size 4, got 4"),
    ({"dtype": torch.int64}, TypeError, "dtype must be a floating-point"),
    ({"executor": "gpu9"}, ValueError, "executor must be one of auto, cpu, scan, reference"),
    ({"strict": 1}, TypeError, "strict must be True or False"),
    ({"zoneout": -0.1}, ValueError, r"zoneout must be in \[0, 1\], got -0\.1"),
    ({"zoneout": {"x": 0.1}}, ValueError, "zoneout must name states of h, c, got x"),
    ({"recurrent_dropout": 2}, ValueError, "recurrent_dropout must be in"),
    ({"input_dropout": "a"}, ValueError, "input_dropout must be a number in"),
    ({"init": "magic"}, ValueError, "init must be one of torch, forget_bias"),
    ({"init": 3}, TypeError, "init must be|'int' object"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD_ARGUMENTS)
def test_bad_constructor_arguments(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        gw.LSTM(**({"input_size": I, "hidden_size": H} | options))


@pytest.mark.parametrize("name", ["GRU", "RNN"])
def test_projection_is_refused_where_torch_refuses_it(name: str) -> None:
    with pytest.raises(ValueError, match="proj_size is an argument of LSTM"):
        getattr(gw, name)(I, H, proj_size=2)


def test_nonlinearity_is_checked() -> None:
    with pytest.raises(ValueError, match="nonlinearity must be one of tanh, relu, got 'elu'"):
        gw.RNN(I, H, nonlinearity="elu")


def test_dropout_with_one_layer_warns_as_torch_does() -> None:
    with pytest.warns(UserWarning, match="non-zero dropout expects") as ours:
        gw.LSTM(I, H, dropout=0.5)
    with pytest.warns(UserWarning, match="non-zero dropout expects") as theirs:
        torch.nn.LSTM(I, H, dropout=0.5)
    assert str(ours[0].message) == str(theirs[0].message)
    assert ours[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gw.LSTM(I, H, 2, dropout=0.5)


x = torch.zeros(T, B, I)
zeros = torch.zeros(1, B, H)
BAD_CALLS: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    ([1.0], {}, TypeError, "input must be a tensor or a PackedSequence, got list"),
    (torch.zeros(T), {}, gw.ShapeError, "input must have 3 dimensions"),
    (torch.zeros(T, B, 9), {}, gw.ShapeError, "input must have input_size 3"),
    (x.double(), {}, ValueError, "input must have the dtype of the parameters, torch.float32"),
    (x.long(), {}, ValueError, "got torch.int64"),
    (x.to("meta"), {}, ValueError, "input must be on cpu"),
    (x, {"state": zeros}, TypeError, r"state must be a tuple of 2 tensors \(h, c\)"),
    (x, {"state": (zeros,)}, ValueError, r"state must hold 2 tensors \(h, c\), got 1"),
    (x, {"state": (zeros, 3)}, TypeError, "state c must be a tensor, got int"),
    (x, {"state": 3}, TypeError, "state must be a tensor, a tuple or a dict"),
    (x, {"state": {"d": zeros}}, ValueError, "state must name only h, c, got d"),
    (x, {"state": (zeros, zeros[0])}, gw.ShapeError, r"state c must have shape \(1, 3, 4\)"),
    (x[:, 0], {"state": (zeros, zeros)}, gw.ShapeError, r"state h must have shape \(1, 4\)"),
    (x, {"state": (zeros.double(), zeros)}, ValueError, "state h must have dtype torch.float32"),
    (x, {"lengths": [1, 2]}, gw.ShapeError, r"lengths must have shape \(3,\), got \(2,\)"),
    (x, {"lengths": [1, 2, 6]}, ValueError, "lengths must be in 0…5 .*, got 6"),
    (x, {"lengths": [-1, 2, 5]}, ValueError, "lengths must be in 0…5 .*, got -1"),
    (x, {"lengths": [1.0, 2.0, 3.0]}, TypeError, "lengths must be integers"),
    (x, {"lengths": [True, True, False]}, TypeError, "lengths must be integers"),
    (x[:, 0], {"lengths": [5]}, ValueError, "lengths must be None for unbatched"),
    (pack_sequence([x[:, 0]]), {"lengths": [5]}, ValueError, "lengths must be None for a Packed"),
    (x, {"resets": torch.zeros(B, T, dtype=torch.bool)}, gw.ShapeError, "resets must have shape"),
    (x, {"resets": torch.zeros(T, B)}, TypeError, "resets must be a bool tensor, got torch.float"),
    (x, {"resets": [[False]]}, TypeError, "resets must be a bool tensor, got list"),
    (x, {"record": ("gate",)}, ValueError, "record must name signals of h, c.*, got 'gate'"),
    (x, {"seed": 1.5}, TypeError, r"seed must be an int, got 1\.5"),
    (x, {"offset": -1}, ValueError, "offset must be zero or positive, got -1"),
    (x, {"offset": 1.0}, TypeError, "offset must be an int"),
]


@pytest.mark.parametrize(("given_input", "options", "error", "message"), BAD_CALLS)
def test_bad_calls(
    given_input: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    layer = gw.LSTM(I, H, executor="reference")
    with pytest.raises(error, match=message):
        layer(given_input, **options)
    with pytest.raises(error, match=message):
        gw.explain(layer, given_input, **options)


def test_wrong_shapes_are_what_torch_raises_too() -> None:
    for library in (torch.nn, gw):
        with pytest.raises(RuntimeError):
            library.LSTM(I, H)(torch.zeros(T, B, 9))
        with pytest.raises(RuntimeError):
            library.LSTM(I, H)(x, (zeros[0], zeros[0]))


# -- arguments that contradict themselves or cannot be read ---------------------------------


def test_a_state_given_twice_is_refused() -> None:
    state = (torch.zeros(1, 2, 5), torch.zeros(1, 2, 5))
    with pytest.raises(TypeError, match="state or hx"):
        gw.LSTM(3, 5)(torch.zeros(4, 2, 3), state, hx=state)


@pytest.mark.parametrize("lengths", ["ab", [None, 1], [[1], [2, 3]]])
def test_lengths_that_are_no_integers_are_refused(lengths: Any) -> None:
    with pytest.raises(TypeError, match="lengths must be integers, got"):
        gw.LSTM(3, 5)(torch.zeros(4, 2, 3), lengths=lengths)


def test_an_offset_too_large_to_count_from_is_refused() -> None:
    with pytest.raises(ValueError, match="offset must be below"):
        gw.LSTM(3, 5, zoneout=0.1)(torch.zeros(4, 2, 3), offset=2**63)


def test_an_init_of_a_wrong_type_is_refused() -> None:
    with pytest.raises(TypeError, match="init must be a name, a function or a list"):
        gw.LSTM(3, 5, init=1)  # type: ignore[arg-type]


@pytest.mark.parametrize(("rows", "sizes"), [(9, [2, 2, 1, 1]), (3, [2, 2]), (3, [1, 2]), (0, [])])
def test_a_packed_sequence_that_does_not_add_up_is_refused(rows: int, sizes: list[int]) -> None:
    packed = PackedSequence(torch.zeros(rows, 3), torch.tensor(sizes, dtype=torch.int64))
    with pytest.raises(ValueError, match="input must"):
        gw.LSTM(3, 5)(packed)
