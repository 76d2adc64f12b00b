"""Layers as PyTorch modules: copied, moved, compiled, transformed, trained in two processes.

Shapes: T = time, B = batch, I = input size, H = hidden units.
"""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.func import functional_call, grad, vmap

import gatewise as gw

T, B, I, H = 5, 4, 3, 4  # noqa: E741 - the field's name for the input size


def clone_by_pickle(layer: Any) -> Any:
    return pickle.loads(pickle.dumps(layer))


def clone_by_torch_save(layer: Any) -> Any:
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("clone", [clone_by_pickle, clone_by_torch_save, copy.deepcopy])
@pytest.mark.parametrize("cell", ["lstm", "gru", "lstm-1997-blocks", "lstm-peephole", "nig"])
def test_copies_are_whole_and_separate(cell: str, clone: Any) -> None:
    layer = gw.Recurrent(cell, I, H, 2, bidirectional=True, residual=True, layer_norm=True)
    x = torch.randn(T, B, I)
    expected = layer(x)[0]
    twin = clone(layer)
    torch.testing.assert_close(twin(x)[0], expected)
    with torch.no_grad():
        for p in twin.parameters():
            p.zero_()
    torch.testing.assert_close(layer(x)[0], expected)


def test_states_pickle_and_copy() -> None:
    _, state = gw.LSTM(I, H)(torch.randn(T, B, I))
    state = type(state)(*(s.detach() for s in state))
    for twin in (clone_by_pickle(state), copy.deepcopy(state)):
        assert type(twin) is type(state)
        assert torch.equal(twin.c, state.c)


def test_dtype_and_device_move(executor: str) -> None:
    layer = gw.LSTM(I, H, executor=executor)
    x = torch.randn(T, B, I)
    single = layer(x)[0]
    double = layer.double()(x.double())[0]
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=1e-6)
    half = layer.to(torch.bfloat16)(x.to(torch.bfloat16))[0]
    assert half.dtype == torch.bfloat16
    # bfloat16 keeps 8 bits: each rounding is up to 0.004 of values below 1, over T steps.
    torch.testing.assert_close(half.double(), double, rtol=0, atol=0.03)
    assert gw.LSTM(I, H, device="meta").weight_ih_l0.is_meta


def test_autocast_computes_in_the_parameters_dtype(executor: str) -> None:
    layer = gw.LSTM(I, H, 2, layer_norm=True, executor=executor)
    x, zeros = torch.randn(T, B, I), torch.zeros(2, B, H)
    expected = layer(x)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer(x)[0], expected)
        half = layer(x.bfloat16(), (zeros.bfloat16(), zeros))[0]
    assert half.dtype == torch.float32
    assert torch.equal(half, layer(x.bfloat16().float())[0])


def test_tied_and_parametrised_weights() -> None:
    first, second = gw.LSTM(H, H), gw.LSTM(H, H)
    second.weight_hh_l0 = first.weight_hh_l0
    x = torch.randn(T, B, H)
    (first(x)[0] + second(x)[0]).sum().backward()
    assert second.weight_hh_l0.grad is first.weight_hh_l0.grad

    layer = gw.LSTM(I, H)
    expected = layer(x[..., :I])[0]
    torch.nn.utils.parametrizations.weight_norm(layer, "weight_hh_l0")
    torch.testing.assert_close(layer(x[..., :I])[0], expected)
    flat = torch.nn.utils.parameters_to_vector(layer.parameters())
    torch.nn.utils.vector_to_parameters(flat * 0, layer.parameters())
    assert not layer.bias_ih_l0.any()


# Dynamo looks at .grad of the tensors it is given and hides torch's warning about that, which
# counts as an error here before it can.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiles_to_the_same_numbers(backend: str, executor: str) -> None:
    torch._dynamo.reset()
    model = torch.nn.ModuleDict(
        {"rnn": gw.LSTM(I, H, 2, dropout=0.5, executor=executor), "head": torch.nn.Linear(H, 2)}
    )

    def call(x: torch.Tensor, lengths: torch.Tensor) -> Any:
        output, state = model["rnn"](x * 2, lengths=lengths, seed=4)
        return model["head"](output), state.c

    x, lengths = torch.randn(T, B, I, requires_grad=True), torch.tensor([5, 1, 0, 3])
    expected = call(x, lengths)
    actual = torch.compile(call, backend=backend)(x, lengths)
    torch.testing.assert_close(actual, expected)
    slopes = [torch.autograd.grad(y[0].sum(), x)[0] for y in (expected, actual)]
    torch.testing.assert_close(*slopes)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", ["gru", "lstm-1997-blocks"])
def test_second_derivatives(cell: str, bidirectional: bool, executor: str) -> None:
    layer = gw.Recurrent(
        cell, 1, 2, bidirectional=bidirectional, dtype=torch.float64, executor=executor
    )
    names = [n for n, _ in layer.named_parameters()]
    values = [p.detach().requires_grad_() for p in layer.parameters()]
    x = torch.randn(2, 2, 1, dtype=torch.float64, requires_grad=True)

    def run(x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        own = dict(zip(names, parameters, strict=True))
        return functional_call(layer, own, (x,), {"lengths": [2, 1]})[0]

    assert torch.autograd.gradcheck(run, (x, *values))
    assert torch.autograd.gradgradcheck(run, (x, *values))


def test_functional_call_grad_and_vmap(executor: str) -> None:
    layer = gw.LSTM(I, H, 2, bidirectional=True, dtype=torch.float64, executor=executor)
    own = {n: p.detach() for n, p in layer.named_parameters()}
    x = torch.randn(B, T, I, dtype=torch.float64)

    def loss(parameters: dict[str, torch.Tensor], row: torch.Tensor) -> torch.Tensor:
        return functional_call(layer, parameters, (row,))[0].square().sum()

    each = vmap(grad(loss), in_dims=(None, 0))(own, x)
    for b in range(B):
        layer.zero_grad()
        layer(x[b])[0].square().sum().backward()
        for n, p in layer.named_parameters():
            torch.testing.assert_close(each[n][b], p.grad)
    outputs, states = vmap(layer)(x)
    expected, final = layer(x.transpose(0, 1))
    torch.testing.assert_close(outputs.transpose(0, 1), expected)
    torch.testing.assert_close(states.c.transpose(0, 1), final.c)


def _train(rank: int, folder: str) -> None:
    """One of two processes: its half of the batch, gradients averaged."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    model = torch.nn.parallel.DistributedDataParallel(_model())
    x = torch.load(f"{folder}/x.pt")
    output, _ = model(x[:, 2 * rank : 2 * rank + 2], lengths=[T, 2])
    output.square().sum().backward()
    if rank == 0:
        torch.save([p.grad for p in model.parameters()], f"{folder}/gradients.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def _model() -> gw.Recurrent:
    torch.manual_seed(0)
    return gw.LSTM(I, H, 2, bidirectional=True, dtype=torch.float64)


def test_data_parallel_in_two_processes(tmp_path: Path) -> None:
    x = torch.randn(T, B, I, dtype=torch.float64)
    torch.save(x, tmp_path / "x.pt")
    torch.multiprocessing.spawn(_train, (str(tmp_path),), nprocs=2)
    model = _model()
    model(x, lengths=[T, 2, T, 2])[0].square().sum().backward()
    gradients = torch.load(tmp_path / "gradients.pt")
    for (name, p), averaged in zip(model.named_parameters(), gradients, strict=True):
        torch.testing.assert_close(2 * averaged, p.grad, msg=lambda m, n=name: f"{n}: {m}")


class Leaky(gw.Cell):
    """A user's own cell: h_t = (1 - z) h_{t-1} + z tanh(candidate)."""

    gates = ("leak", "candidate")

    def step(self, gate: Any, state: Any) -> dict[str, Any]:
        z = gw.sigmoid(gate.leak)
        return {"h": (1 - z) * state.h + z * gw.tanh(gate.candidate)}


def test_an_own_cell_gets_everything(executor: str) -> None:
    layer = gw.Recurrent(Leaky, I, H, 2, bidirectional=True, executor=executor, dtype=torch.float64)
    assert list(layer.state_dict())[:3] == ["weight_ih_l0", "weight_hh_l0", "bias_l0"]
    x = torch.randn(T, B, I, dtype=torch.float64)
    output, h, records = layer(x, lengths=[1, 2, 3, 4], record=("leak",))
    assert output.shape == (T, B, 2 * H)
    assert h.shape == (4, B, H)
    assert (records["leak"][:, 0] > 0).all()
    torch.testing.assert_close(clone_by_pickle(layer)(x, lengths=[1, 2, 3, 4])[0], output)


def test_what_it_prints() -> None:
    layer = gw.Recurrent("gru", I, H, 2, zoneout=0.1, init="orthogonal")
    assert repr(layer) == (
        "Recurrent(GRU(), 3, 4, num_layers=2, zoneout={'h': 0.1}, init='orthogonal')"
    )
    assert repr(gw.LSTM(I, H, bias=False)) == "LSTM(3, 4, bias=False)"


# -- what a kernel must never be handed -----------------------------------------------------


@pytest.mark.parametrize("executor", ["auto", "reference"])
@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("weight_hh_l0", torch.zeros(20, 6), r"weight_hh must have shape \(20, 5\), got \(20, 6\)"),
        ("weight_hh_l0", torch.zeros(20, 5).double(), "weight_hh must be torch.float32 on cpu"),
        ("bias_ih_l0", torch.zeros(19), r"bias_ih must have shape \(20,\), got \(19,\)"),
        ("bias_hh_l0", torch.zeros(20).bfloat16(), "got torch.bfloat16 on cpu"),
    ],
)
def test_a_parameter_swapped_for_another_kind_is_refused(
    executor: str, name: str, wrong: torch.Tensor, message: str
) -> None:
    layer = gw.LSTM(3, 5, executor=executor)
    with pytest.raises(ValueError, match=message):
        functional_call(layer, {name: wrong}, (torch.zeros(4, 2, 3),))


def test_a_saved_state_loads_with_weights_only() -> None:
    _, state = gw.LSTM(3, 5)(torch.ones(4, 2, 3))
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    assert torch.equal(loaded.c, state.c)
