"""The shipped cells against independent implementations and published numbers.

Shapes: T = time, B = batch, I = input size, H = hidden units, S = cells of a memory block.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch.nn.functional import layer_norm

from gatewise import Cell, Recurrent, constant, identity, relu, sigmoid, silu, tanh
from gatewise.cells import LSTM, LSTM1997, REGISTRY, RNN, CoupledLSTM, PeepholeLSTM, get_cell
from gatewise.equations import Layout, trace
from gatewise.executors import Result, reference, run
from tests.support import Problem, assert_close, named, problem, run_with_gradients

# Kernels where there are some, and the reference: both against the other implementation.
EXECUTORS = ("auto", "reference")


def outputs(p: Problem, executor: str = "reference") -> Result:
    with torch.no_grad():
        return run(p.request(), executor)


def result(output: torch.Tensor, **state: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"output": output, **{f"state.{n}": t for n, t in state.items()}}


# -- the paper's weight counts -------------------------------------------------------------

GATES, HIDDEN = ("input", "output"), ("input", "candidate", "output")


def count(cell: Cell, inputs: int, hidden: int) -> int:
    shapes = Layout(trace(cell), inputs, hidden).shapes()
    return sum(int(np.prod(s)) for s in shapes.values())


# id: blocks, cells of a block, inputs, outputs, gates with bias, bias on outputs, weights
TOPOLOGIES = {
    "1-1": (4, 1, 7, 7, GATES, False, 264),
    "1-2": (3, 2, 7, 7, GATES, False, 276),
    "1-3": (3, 2, 7, 7, GATES, False, 276),
    "1-4": (4, 1, 7, 7, GATES, False, 264),
    "1-5": (3, 2, 7, 7, GATES, False, 276),
    **{
        f"2c-{k}": (2, 1, p + 4, 2, (), False, weights)
        for k, (p, weights) in enumerate(
            [(50, 364), (100, 664), (200, 1264), (500, 3064), (1000, 6064),
             (500, 3064), (200, 1264), (100, 664), (50, 364)], 1,
        )
    },
    "3": (3, 1, 1, 1, HIDDEN, False, 102),
    "4": (2, 2, 2, 1, HIDDEN, True, 93),
    "5": (2, 2, 2, 1, HIDDEN, True, 93),
    "6a": (2, 2, 8, 4, HIDDEN, True, 156),
    "6b": (3, 2, 8, 8, HIDDEN, True, 308),
}  # fmt: skip


@pytest.mark.parametrize("experiment", TOPOLOGIES)
def test_weight_counts_of_the_1997_paper(experiment: str) -> None:
    blocks, size, inputs, outs, biased, output_bias, weights = TOPOLOGIES[experiment]
    cells = blocks * size
    hidden = count(LSTM1997(block_size=size, biased=biased), inputs, cells)
    assert hidden + outs * (cells + output_bias) == weights


def test_weight_count_of_experiment_2a() -> None:
    """One cell without recurrence; the outputs see the inputs as well as the cell."""
    cell = get_cell("lstm-1997-no-output-gate")
    assert count(cell, 101, 1) + 101 * (101 + 1) == 10_504


# -- LSTM-1997 -----------------------------------------------------------------------------


def test_forget_gate_of_one_is_the_1997_lstm() -> None:
    """Exactly: the same numbers in the same order, forward and backward."""
    p = problem(LSTM1997(candidate=tanh, squash=tanh, gate_feedback=False))
    modern = Layout(trace(LSTM(forget=constant(1.0))), 5, 7)
    weights = {n: p.parameters[n] for n in ("weight_ih", "weight_hh")}
    bias = p.parameters["bias"]
    q = Problem(
        modern, p.x, p.state, weights | {"bias_ih": bias, "bias_hh": torch.zeros_like(bias)}
    )
    old, old_slopes = run_with_gradients(p, reference.run)
    new, new_slopes = run_with_gradients(q, reference.run)
    new_slopes["bias"] = new_slopes.pop("bias_ih")
    del new_slopes["bias_hh"]
    for a, b in ((old, new), (old_slopes, new_slopes)):
        assert list(a) == list(b)
        assert all(torch.equal(a[n], b[n]) for n in a)


def logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def paper_1997(
    x: np.ndarray, w: dict[str, np.ndarray], blocks: int, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Section 4 and appendix A.1 of the paper, unit by unit, activations 0 at the start.

    x [T, I]; w holds, per kind of unit, a row for each unit over the sources
    (inputs, cell outputs, input gates, output gates, bias). Returns outputs and states [T, cells].
    """
    cells = blocks * size
    y_cell, y_in, y_out = np.zeros(cells), np.zeros(blocks), np.zeros(blocks)
    s = np.zeros(cells)
    ys, ss = [], []
    for x_t in x:
        source = np.concatenate([x_t, y_cell, y_in, y_out, [1.0]])
        new_in = np.array([logistic(w["in"][j] @ source) for j in range(blocks)])
        new_out = np.array([logistic(w["out"][j] @ source) for j in range(blocks)])
        new_cell = np.zeros(cells)
        for j in range(blocks):
            for v in range(j * size, (j + 1) * size):
                g = 4 * logistic(w["cell"][v] @ source) - 2
                s[v] = s[v] + new_in[j] * g
                new_cell[v] = new_out[j] * (2 * logistic(s[v]) - 1)
        y_cell, y_in, y_out = new_cell, new_in, new_out
        ys.append(y_cell)
        ss.append(s.copy())
    return np.stack(ys), np.stack(ss)


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize(("blocks", "size"), [(4, 1), (3, 2), (2, 3)])
def test_blocks_and_gate_feedback_against_the_paper(executor: str, blocks: int, size: int) -> None:
    p = problem(LSTM1997(block_size=size), batch=1, hidden=blocks * size)
    p = Problem(
        p.layout, p.x, {n: torch.zeros_like(t) for n, t in p.state.items()}, p.parameters
    ).with_options(record=("c",))
    w = p.parameters
    rows = torch.cat([w["weight_ih"], w["weight_hh"], w["bias"][:, None]], 1)
    parts = rows.split([blocks, blocks * size, blocks])
    by_kind = {n: t.numpy() for n, t in zip(("in", "cell", "out"), parts, strict=True)}
    ys, ss = paper_1997(p.x[:, 0].numpy(), by_kind, blocks, size)
    got = outputs(p, executor)
    # float64 in another order of summation
    np.testing.assert_allclose(got.output[:, 0].numpy(), ys, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(got.record["c"][:, 0].numpy(), ss, rtol=1e-12, atol=1e-13)


def test_carousel_keeps_its_state_exactly() -> None:
    """With the input gate shut (a bias of -1000 gives exactly 0) nothing leaks in 1000 steps."""
    p = problem("lstm-1997", steps=1000)
    bias = p.parameters["bias"].clone()
    bias[: p.layout.hidden_size] = -1000.0
    shut = Problem(p.layout, p.x, p.state, p.parameters | {"bias": bias})
    assert torch.equal(outputs(shut, "auto").state["c"], p.state["c"])


@pytest.mark.parametrize(("name", "factor"), [("cec-0.9", 0.9), ("cec-1.1", 1.1)])
def test_broken_carousel_decays_or_grows(name: str, factor: float) -> None:
    p = problem(name, steps=20)
    bias = p.parameters["bias"].clone()
    bias[: p.layout.hidden_size] = -1000.0
    leaky = Problem(p.layout, p.x, p.state, p.parameters | {"bias": bias})
    expected = p.state["c"] * factor**20
    torch.testing.assert_close(outputs(leaky).state["c"], expected, rtol=1e-13, atol=0)


# -- torch and onnxruntime -----------------------------------------------------------------


def torch_module(module: torch.nn.RNNBase, p: Problem) -> torch.nn.RNNBase:
    """torch's module with the problem's parameters."""
    return_names = {n: f"{n}_l0" for n in p.parameters}
    module.double().load_state_dict({return_names[n]: t for n, t in p.parameters.items()})
    return module


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("proj_size", [0, 3])
def test_lstm_is_torchs(executor: str, proj_size: int) -> None:
    p = problem("lstm", proj_size=proj_size)
    module = torch_module(torch.nn.LSTM(5, 7, proj_size=proj_size), p)
    y, (h, c) = module(p.x, (p.state["h"][None], p.state["c"][None]))
    assert_close(named(outputs(p, executor)), result(y, h=h[0], c=c[0]), 1e-13)


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("rnn", lambda: torch.nn.RNN(5, 7)),
        ("rnn-relu", lambda: torch.nn.RNN(5, 7, nonlinearity="relu")),
        ("gru", lambda: torch.nn.GRU(5, 7)),
    ],
)
def test_rnn_and_gru_are_torchs(
    executor: str, name: str, module: Callable[[], torch.nn.RNNBase]
) -> None:
    p = problem(name)
    y, h = torch_module(module(), p)(p.x, p.state["h"][None])
    assert_close(named(outputs(p, executor)), result(y, h=h[0]), 1e-13)


def test_logistic_rnn_is_the_tanh_one_rescaled() -> None:
    """σ(a) = (1 + tanh(a/2)) / 2, so h = (1 + r)/2 with a tanh network r of other weights."""
    p = problem("rnn-logistic")
    w = p.parameters
    u = w["weight_hh"]
    twin = {
        "weight_ih": w["weight_ih"] / 2,
        "weight_hh": u / 4,
        "bias_ih": w["bias_ih"] / 2 + u.sum(1) / 4,
        "bias_hh": w["bias_hh"] / 2,
    }
    q = Problem(Layout(trace(RNN()), 5, 7), p.x, {"h": 2 * p.state["h"] - 1}, twin)
    torch.testing.assert_close(outputs(p).output, (1 + outputs(q).output) / 2)


def onnx_run(kind: str, p: Problem, order: tuple[str, ...], **attributes: Any) -> Any:
    """ONNX's LSTM or GRU in onnxruntime, in float32; gates in the order ONNX wants."""
    t = p.layout.trace
    hidden = p.layout.hidden_size

    def rows(name: str) -> np.ndarray:
        parts = dict(zip(t.gates, p.parameters[name].split(hidden), strict=True))
        return torch.cat([parts[g] for g in order]).numpy()

    def bias(name: str) -> np.ndarray:
        return rows(name) if name in p.parameters else np.zeros(len(order) * hidden)

    feeds = {
        "X": p.x.numpy(),
        "W": rows("weight_ih")[None],
        "R": rows("weight_hh")[None],
        "B": np.concatenate([bias("bias_ih"), bias("bias_hh")])[None],
        "sequence_lens": None,
        "initial_h": p.state["h"].numpy()[None],
    }
    if kind == "LSTM":
        feeds["initial_c"] = p.state["c"].numpy()[None]
        peepholes = [p.parameters.get(f"peephole_{g}") for g in ("input", "output", "forget")]
        if peepholes[0] is not None:
            feeds["P"] = torch.cat(peepholes).numpy()[None]
    feeds = {n: None if a is None else a.astype(np.float32) for n, a in feeds.items()}
    results = ["Y", "Y_h", "Y_c"] if kind == "LSTM" else ["Y", "Y_h"]
    node = onnx.helper.make_node(
        kind, [n if a is not None else "" for n, a in feeds.items()], results,
        hidden_size=hidden, **attributes,
    )  # fmt: skip
    kinds = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [node], "cell",
        [onnx.helper.make_tensor_value_info(n, kinds, a.shape)
         for n, a in feeds.items() if a is not None],
        [onnx.helper.make_tensor_value_info(n, kinds, None) for n in results],
    )  # fmt: skip
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 14)], ir_version=8
    )
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    got = session.run(None, {n: a for n, a in feeds.items() if a is not None})
    y, *states = [torch.from_numpy(a[:, 0] if k == 0 else a[0]) for k, a in enumerate(got)]
    return result(y, **dict(zip(("h", "c"), states, strict=False)))


# onnxruntime computes in float32 with its own approximations of exp and tanh, good to a few
# units of the last place (1e-7), over nine steps.
ONNX_TOLERANCE = 3e-6


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize(("name", "after"), [("gru", 1), ("gru-reset-before", 0)])
def test_gru_forms_are_onnxs(executor: str, name: str, after: int) -> None:
    p = problem(name)
    expected = onnx_run("GRU", p, ("update", "reset", "new"), linear_before_reset=after)
    assert_close(named(outputs(p, executor)), expected, ONNX_TOLERANCE)


def test_gru_forms_differ() -> None:
    p = problem("gru")
    q = Problem(Layout(trace(get_cell("gru-reset-before")), 5, 7), p.x, p.state, p.parameters)
    assert (outputs(p).output - outputs(q).output).abs().max() > 0.01


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("name", ["lstm", "lstm-peephole"])
def test_lstm_with_and_without_peepholes_is_onnxs(executor: str, name: str) -> None:
    p = problem(name)
    expected = onnx_run("LSTM", p, ("input", "output", "forget", "candidate"))
    assert_close(named(outputs(p, executor)), expected, ONNX_TOLERANCE)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_coupled_lstm_is_onnxs(executor: str) -> None:
    """ONNX couples the gates by an attribute and leaves the forget gate's weights unread."""
    p = problem("lstm-coupled")
    expected = onnx_run("LSTM", p, ("input", "output", "input", "candidate"), input_forget=1)
    assert_close(named(outputs(p, executor)), expected, ONNX_TOLERANCE)


# -- cells nobody else ships ---------------------------------------------------------------


def unroll(
    p: Problem, step: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], tuple]
) -> dict[str, torch.Tensor]:
    """A loop over an LSTM-like step(x_t, h, c) -> h, c."""
    h, c = p.state["h"], p.state["c"]
    ys = []
    for x_t in p.x:
        h, c = step(x_t, h, c)
        ys.append(h)
    return result(torch.stack(ys), h=h, c=c)


def test_layer_normalised_lstm_against_torchs_layer_norm() -> None:
    p = problem("lstm-layernorm")
    w, names = p.parameters, ("input", "forget", "candidate", "output")
    gain_x = torch.cat([w[f"gain_x_{g}"] for g in names])
    gain_h = torch.cat([w[f"gain_h_{g}"] for g in names])
    bias = torch.cat([w[f"bias_{g}"] for g in names])

    def step(x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> tuple:
        a = layer_norm(h @ w["weight_hh"].T, (28,), gain_h) + layer_norm(
            x @ w["weight_ih"].T, (28,), gain_x, bias
        )
        i, f, g, o = a.chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * layer_norm(c, (7,), w["gain_c"], w["bias_c"]).tanh(), c

    assert_close(named(outputs(p)), unroll(p, step), 1e-12)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_silu_candidate(executor: str) -> None:
    p = problem(LSTM(candidate=silu))
    w = p.parameters

    def step(x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> tuple:
        a = x @ w["weight_ih"].T + w["bias_ih"] + h @ w["weight_hh"].T + w["bias_hh"]
        i, f, g, o = a.chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * torch.nn.functional.silu(g)
        return o.sigmoid() * c.tanh(), c

    assert_close(named(outputs(p, executor)), unroll(p, step), 1e-13)


# -- ablations -----------------------------------------------------------------------------

# registry name: gates left, peepholes left
ABLATIONS = {
    "nig": (("forget", "candidate", "output"), ("forget", "output")),
    "nfg": (("input", "candidate", "output"), ("input", "output")),
    "nog": (("input", "forget", "candidate"), ("input", "forget")),
    "niaf": (("input", "forget", "candidate", "output"), ("input", "forget", "output")),
    "noaf": (("input", "forget", "candidate", "output"), ("input", "forget", "output")),
    "lstm-1997-nig": (("candidate", "output"), ()),
    "lstm-1997-nog": (("input", "candidate"), ()),
    "cec": (("candidate",), ()),
    "lstm-coupled": (("input", "candidate", "output"), ()),
}


@pytest.mark.parametrize("name", ABLATIONS)
def test_ablation_removes_the_weights(name: str) -> None:
    gates, peepholes = ABLATIONS[name]
    t = trace(get_cell(name))
    assert t.gates == gates
    assert t.parameters == tuple(f"peephole_{g}" for g in peepholes)
    shapes = Layout(t, 5, 7).shapes()
    assert shapes["weight_ih"] == (7 * len(gates), 5)
    assert shapes["weight_hh"] == (7 * len(gates), 7 * len(t.feedback))
    biases = [s for n, s in shapes.items() if n in ("bias", "bias_ih", "bias_hh")]
    assert set(biases) == {(7 * len(gates),)}


@pytest.mark.parametrize(
    ("ablated", "gate", "bias"),
    [("input", "input", 1000.0), ("forget", "forget", 1000.0), ("output", "output", 1000.0)],
)
def test_ablated_gate_is_a_gate_that_stays_open(ablated: str, gate: str, bias: float) -> None:
    """A gate held open by its bias (σ(1000) is 1 exactly) computes what its removal does."""
    full = problem(PeepholeLSTM())
    rows = {g: slice(7 * k, 7 * k + 7) for k, g in enumerate(full.layout.trace.gates)}
    b = full.parameters["bias_ih"].clone()
    b[rows[gate]] = bias
    opened = Problem(full.layout, full.x, full.state, full.parameters | {"bias_ih": b})
    layout = Layout(trace(PeepholeLSTM(**{ablated: constant(1.0)})), 5, 7)
    kept = torch.cat([torch.arange(28)[rows[g]] for g in layout.trace.gates])
    fewer = {
        n: t[kept] if n.startswith(("weight", "bias")) else t
        for n, t in full.parameters.items()
        if n in layout.shapes()
    }
    removed = Problem(layout, full.x, full.state, fewer)
    assert_close(named(outputs(removed)), named(outputs(opened)), 1e-14)


def test_full_gate_recurrence_feeds_the_gates_back() -> None:
    t = trace(get_cell("fgr"))
    assert t.feedback == ("h", "input", "forget", "output")
    assert Layout(t, 5, 7).shapes()["weight_hh"] == (28, 28)


# -- the registry --------------------------------------------------------------------------


@pytest.mark.parametrize("name", REGISTRY)
def test_registry_entry_is_documented(name: str) -> None:
    cell = get_cell(name)
    assert REGISTRY[name].summary
    assert cell.source
    assert any(year in cell.source for year in map(str, range(1980, 2030)))
    assert type(cell).__doc__
    assert get_cell(cell) is cell
    assert repr(get_cell(type(cell)))


def test_lookup_of_a_cell(tmp_path: Any) -> None:
    assert isinstance(get_cell("lstm-coupled"), CoupledLSTM)
    assert get_cell("rnn-relu").options() == {"nonlinearity": relu}
    assert get_cell("noaf").options()["squash"] is identity
    with pytest.raises(ValueError, match=r"cell 'lstn' is not known.*lstm-peephole"):
        get_cell("lstn")
    with pytest.raises(TypeError, match="must be a name, a Cell or a Cell class, got 3"):
        get_cell(3)  # type: ignore[arg-type]
    file = tmp_path / "mine.py"
    file.write_text(
        "from gatewise import Cell, tanh\n"
        "class Mine(Cell):\n"
        "    gates = ('g',)\n"
        "    def step(self, gate, state):\n"
        "        return {'h': tanh(gate.g)}\n"
    )
    assert type(get_cell(f"{file}:Mine")).__name__ == "Mine"
    with pytest.raises(ValueError, match="no cell class Other; it has: Mine"):
        get_cell(f"{file}:Other")
    with pytest.raises(FileNotFoundError, match="no cell file"):
        get_cell(f"{tmp_path}/none.py:Mine")


def test_functions_pickle_by_name() -> None:
    import pickle

    cell = pickle.loads(pickle.dumps(PeepholeLSTM(output=constant(1.0), candidate=sigmoid)))
    assert cell.candidate is sigmoid
    assert cell.output == constant(1.0)


def test_a_layer_with_a_cell_from_a_file_pickles_and_copies(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from gatewise import Cell, tanh\n"
        "class Mine(Cell):\n"
        "    gates = ('a',)\n"
        "    def step(self, gate, state):\n"
        "        return {'h': tanh(gate.a)}\n"
    )
    layer = Recurrent(f"{file}:Mine", 3, 5)
    x = torch.ones(4, 2, 3)
    loaded = pickle.loads(pickle.dumps(layer))
    assert torch.equal(loaded(x)[0], layer(x)[0])
    file.unlink()
    assert torch.equal(copy.deepcopy(layer)(x)[0], layer(x)[0])
