"""Contests against other libraries, each where it is installed (`pip install gatewise[bench]`).

Shapes: T = time, B = batch, I = input size, H = hidden units.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import nn

from gatewise.benchmark.case import Case, Contest, PeerMissingError, Results, Timed
from gatewise.benchmark.peers import executor_of, flops, input_of, our_layer, side

_PEEPHOLES = ("peephole_input", "peephole_forget", "peephole_output")


def _need(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise PeerMissingError(f"{name} is not installed") from error


def _ours(case: Case, like: nn.Module | None = None) -> tuple[Any, torch.Tensor, Timed, str]:
    layer, x = our_layer(case, like), input_of(case)
    return layer, x, side(case, layer, lambda x: layer(x)[0], x), executor_of(case, layer, x)


def onnxruntime(case: Case) -> Contest:
    """onnxruntime's LSTM operator, in a session with as many threads as torch has."""
    onnx, ort = _need("onnx"), _need("onnxruntime")
    layer, x, ours, executor = _ours(case, nn.LSTM(case.shape.I, case.shape.H))
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    # Its threads would go on spinning while ours are measured, on the same cores.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    model = _onnx_lstm(onnx, layer, case)
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feed = {"X": x.numpy()}

    def run() -> Any:
        return session.run(["Y"], feed)[0]  # [T, 1, B, H]

    def results() -> Results:
        return {"output": torch.from_numpy(run())[:, 0]}

    return Contest(ours, Timed(run, results), executor=executor, flops=flops(case))


def _onnx_lstm(onnx: Any, layer: nn.Module, case: Case) -> Any:
    """A model of one LSTM node; ONNX orders the gates input, output, forget, candidate."""
    h = case.shape.H
    weights = {n: p.detach() for n, p in layer.named_parameters()}

    def ordered(name: str) -> torch.Tensor:
        i, f, g, o = weights[name].split(h)
        return torch.cat([i, o, f, g])

    constants = {
        "W": ordered("weight_ih_l0"),
        "R": ordered("weight_hh_l0"),
        "b": torch.cat([ordered("bias_ih_l0"), ordered("bias_hh_l0")]),
    }
    helper, real = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("LSTM", ["X", *constants], ["Y"], hidden_size=h)],
        "lstm",
        [helper.make_tensor_value_info("X", real, list(case.shape[:3]))],
        [helper.make_tensor_value_info("Y", real, [case.shape.T, 1, case.shape.B, h])],
        [onnx.numpy_helper.from_array(t[None].numpy(), n) for n, t in constants.items()],
    )
    opset = helper.make_opsetid("", 14)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8)


def jax_scan(case: Case) -> Contest:
    """An LSTM as jax.lax.scan over its step, compiled by XLA, which takes every core.

    The input's products are formed for all steps at once, before the scan.
    """
    jax = _need("jax")
    layer, x, ours, executor = _ours(case, nn.LSTM(case.shape.I, case.shape.H))
    jnp, names = jax.numpy, [n for n, _ in layer.named_parameters()]

    def forward(x: Any, w: dict[str, Any]) -> Any:
        bias = w["bias_ih_l0"] + w["bias_hh_l0"]
        from_x = x @ w["weight_ih_l0"].T + bias

        def step(state: Any, a: Any) -> Any:
            h, c = state
            i, f, g, o = jnp.split(a + h @ w["weight_hh_l0"].T, 4, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        zero = jnp.zeros((case.shape.B, case.shape.H), x.dtype)
        return jax.lax.scan(step, (zero, zero), from_x)[1]

    def training(x: Any, w: dict[str, Any], upstream: Any) -> Any:
        if case.work == "training dx":
            output, pull = jax.vjp(lambda w, x: forward(x, w), w, x)
        else:
            output, pull = jax.vjp(lambda w: forward(x, w), w)
        return output, *pull(upstream)

    cpu = jax.devices("cpu")[0]
    weights = {n: jax.device_put(p.detach().numpy(), cpu) for n, p in layer.named_parameters()}
    given = [jax.device_put(x.numpy(), cpu), weights]
    if case.training:
        torch.manual_seed(2)  # the same gradient from above as `side` draws
        given.append(jax.device_put(torch.randn(*case.shape[:2], case.shape.H).numpy(), cpu))
    function = jax.jit(training if case.training else forward)

    def run() -> Any:
        return jax.block_until_ready(function(*given))

    def results() -> Results:
        if not case.training:
            return {"output": torch.tensor(run().tolist())}
        output, grad_w, *grad_x = run()
        found = {"output": output} | {f"grad {n}": grad_w[n] for n in names}
        found |= dict(zip(["grad x"], grad_x, strict=False))  # where it was asked for
        return {n: torch.tensor(t.tolist()) for n, t in found.items()}

    return Contest(ours, Timed(run, results), executor=executor, flops=flops(case))


def torchrecurrent(case: Case) -> Contest:
    """torchrecurrent.PeepholeLSTM, a loop over time in PyTorch."""
    library = _need("torchrecurrent")
    peer = library.PeepholeLSTM(case.shape.I, case.shape.H)
    layer, x, ours, executor = _ours(case)
    theirs = dict(peer.named_parameters())
    names = [n for n, _ in layer.named_parameters()]

    def as_ours(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Their numbers by our names: the peepholes of three gates are one vector there."""
        peepholes = dict(zip(_PEEPHOLES, found["cells.0.weight_ph"].chunk(3), strict=True))
        short = [n.removesuffix("_l0") for n in names]
        return {f"{n}_l0": peepholes[n] if n in peepholes else found[f"cells.0.{n}"] for n in short}

    layer.load_state_dict({n: t.detach() for n, t in as_ours(theirs).items()})
    timed = side(case, peer, lambda x: peer(x)[0], x)

    def results() -> Results:
        found = timed.results()
        named = {n: found[n] for n in ("output", "grad x") if n in found}
        if case.training:
            grads = {n.removeprefix("grad "): t for n, t in found.items()}
            named |= {f"grad {n}": t for n, t in as_ours(grads).items()}
        return named

    return Contest(ours, Timed(timed.work, results), executor=executor, flops=flops(case))
