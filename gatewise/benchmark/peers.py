"""Contests against torch.nn and against the cell as a Python loop, with equal weights.

Shapes: T = time, B = batch, I = input size, H = hidden units.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from gatewise.benchmark import context
from gatewise.benchmark.case import Case, Contest, Results, Timed
from gatewise.cells import get_cell
from gatewise.equations import trace
from gatewise.layers import Recurrent, explain, join
from gatewise.models import LanguageModel, LanguageModelConfig

Call = Callable[[torch.Tensor], torch.Tensor]
_NAMED = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
_RESET = 0.02  # probability per step and row: pieces of 50 steps on average
_CHECKED_STEPS = 16  # of a stream
_BYTES = {"full": 4, "bf16": 2, "int8": 1}  # a weight


def our_layer(case: Case, like: nn.Module | None = None, **options: Any) -> Recurrent:
    """Our layer for a case, with the weights of `like`."""
    torch.manual_seed(0)
    layer = Recurrent(case.cell, case.shape.I, case.shape.H, weights=case.held, **options)
    if like is not None:
        layer.load_state_dict(like.state_dict())
    return layer


def input_of(case: Case) -> torch.Tensor:
    """x [T, B, I], of several networks [N, T, B, I]; the same at every call."""
    torch.manual_seed(1)
    front = (case.networks,) if case.networks > 1 else ()
    return torch.randn(*front, *case.shape[:3])


def side(case: Case, module: nn.Module, call: Call, x: torch.Tensor) -> Timed:
    """`call`, forward only or with the gradients of `module`'s parameters.

    "training" has data for input, as a network's first layer; the input of "training dx" wants
    its gradient too, as in a stack, where it belongs to the layer below.
    """
    if not case.training:

        def forward() -> torch.Tensor:
            with torch.no_grad():
                return call(x)

        return Timed(forward, lambda: {"output": forward()})

    x = x.clone().requires_grad_(case.work == "training dx")
    with torch.no_grad():
        shape = call(x).shape
    torch.manual_seed(2)
    upstream = torch.randn(shape[-3:]).expand(shape).contiguous()  # the same for every network

    def training() -> torch.Tensor:
        module.zero_grad(set_to_none=True)
        x.grad = None
        output = call(x)
        output.backward(upstream)
        return output

    def results() -> Results:
        found: dict[str, torch.Tensor | None] = {"output": training().detach(), "grad x": x.grad}
        found |= {f"grad {n}": p.grad for n, p in module.named_parameters()}
        return {n: t.clone() for n, t in found.items() if t is not None}

    return Timed(training, results)


def flops(case: Case, directions: int = 1) -> float:
    """Additions and multiplications in the products of one call.

    Training has three per weight: one forward, one for its gradient, and one for the gradient of
    what it was multiplied with, where that is wanted.
    """
    traced = trace(get_cell(case.cell))
    t, b, i, h = case.shape
    of_x, of_h = {"training": (2, 3), "training dx": (3, 3)}.get(case.work, (1, 1))
    fed = h * len(traced.feedback)
    width = sum(of_x * a.from_input * i + of_h * a.from_feedback * fed for a in traced.accumulators)
    return 2.0 * t * b * h * width * directions


def executor_of(case: Case, layer: Recurrent, x: torch.Tensor, **call: Any) -> str:
    """Which executor of ours does the work."""
    with torch.set_grad_enabled(case.training):
        return explain(layer, x, **call).executor


def _contest(case: Case, layer: Recurrent, peer: nn.Module, theirs: Call, **call: Any) -> Contest:
    x = input_of(case)
    return Contest(
        side(case, layer, lambda x: layer(x, **call)[0], x),
        side(case, peer, theirs, x),
        executor=executor_of(case, layer, x, **call),
        flops=flops(case, layer.num_directions),
    )


def whole_layer(case: Case) -> Contest:
    """torch.nn's layer of the same name."""
    peer = _NAMED[case.cell](case.shape.I, case.shape.H)
    return _contest(case, our_layer(case, peer), peer, lambda x: peer(x)[0])


def both_directions(case: Case) -> Contest:
    """torch.nn's layer of the same name, bidirectional."""
    peer = _NAMED[case.cell](case.shape.I, case.shape.H, bidirectional=True)
    return _contest(case, our_layer(case, peer, bidirectional=True), peer, lambda x: peer(x)[0])


def loop(case: Case) -> Contest:
    """The cell's own `step` on tensors, a Python loop over time: our reference executor."""
    peer = our_layer(case, executor="reference")
    return _contest(case, our_layer(case, peer), peer, lambda x: peer(x)[0])


def full_weights(case: Case) -> Contest:
    """The same layer with the weights as they are; results differ by what the case rounds."""
    peer = our_layer(replace(case, held="full"))
    if case.work == "step":
        return _stream_contest(case, peer.state_dict(), peer.stream(case.shape.B))
    return _contest(case, our_layer(case, peer), peer, lambda x: peer(x)[0])


def in_turn(case: Case) -> Contest:
    """torch.nn's layers of the same name one after another; ours are one layer of replicas.

    torch.func.vmap, which runs one module on stacked weights, refuses nn.LSTM, nn.GRU and nn.RNN:
    their operators have no batching rule.
    """
    make, shape = _NAMED[case.cell], case.shape
    return _in_turn(case, [make(shape.I, shape.H) for _ in range(case.networks)])


def own_in_turn(case: Case) -> Contest:
    """Our own layers one after another: what it brings to run them in one call."""
    return _in_turn(case, [our_layer(case) for _ in range(case.networks)])


def _in_turn(case: Case, peers: Sequence[nn.Module]) -> Contest:
    layer, xs = join([our_layer(case, peer) for peer in peers]), input_of(case)
    pairs = zip(peers, xs, strict=True)
    each = [side(case, peer, lambda x, own=peer: own(x)[0], x) for peer, x in pairs]

    def work() -> None:
        for one in each:
            one.work()

    def results() -> Results:
        found = [one.results() for one in each]
        return {n: torch.stack([f[n] for f in found]) for n in found[0]}

    return Contest(
        side(case, layer, lambda x: layer(x)[0], xs),
        Timed(work, results),
        executor=executor_of(case, layer, xs),
        flops=case.networks * flops(case),
    )


def ragged(case: Case) -> Contest:
    """Rows of unequal length: packed there, `lengths=` here; padded tensors in and out."""
    peer = nn.LSTM(case.shape.I, case.shape.H)
    torch.manual_seed(3)
    lengths = torch.randint(1, case.shape.T + 1, (case.shape.B,))
    lengths[0] = case.shape.T

    def packed(x: torch.Tensor) -> torch.Tensor:
        output, _ = peer(pack_padded_sequence(x, lengths, enforce_sorted=False))
        return pad_packed_sequence(output, total_length=case.shape.T)[0]

    return _contest(case, our_layer(case, peer), peer, packed, lengths=lengths)


def resets(case: Case) -> Contest:
    """Rows that begin anew inside the sequence: nn.LSTM runs from one reset to the next."""
    peer = nn.LSTM(case.shape.I, case.shape.H)
    torch.manual_seed(3)
    marked = torch.rand(case.shape[:2]) < _RESET
    starts = [0, *(t for t in range(1, case.shape.T) if bool(marked[t].any()))]
    ends = [*starts[1:], case.shape.T]

    def split(x: torch.Tensor) -> torch.Tensor:
        state = tuple(x.new_zeros(1, case.shape.B, case.shape.H) for _ in range(2))
        parts = []
        for start, end in zip(starts, ends, strict=True):
            kept = (~marked[start]).to(x.dtype).view(1, -1, 1)
            output, state = peer(x[start:end], tuple(s * kept for s in state))
            parts.append(output)
        return torch.cat(parts)

    return _contest(case, our_layer(case, peer), peer, split, resets=marked)


def _stream_contest(case: Case, weights: dict[str, torch.Tensor], theirs: Call) -> Contest:
    """One step at a time; `theirs` keeps its own state and starts from zero."""
    _, batch, inputs, hidden = case.shape
    layer = our_layer(case)
    layer.load_state_dict(weights)
    stepper = layer.stream(batch)
    torch.manual_seed(1)
    xs = torch.randn(_CHECKED_STEPS, batch, inputs)
    x = xs[0]

    def outputs(step: Call) -> Results:
        with torch.no_grad():
            return {"output": torch.stack([step(x_t).reshape(batch, hidden) for x_t in xs])}

    def step_theirs() -> None:
        with torch.no_grad():
            theirs(x)

    numbers = sum(p.numel() for p in layer.parameters())
    return Contest(
        Timed(lambda: stepper(x), lambda: outputs(stepper)),
        Timed(step_theirs, lambda: outputs(theirs)),
        unit="us",
        executor="reference" if stepper.obstacles else "cpu",
        flops=flops(case),
        bytes=numbers * _BYTES[case.held],
    )


def layer_step(case: Case) -> Contest:
    """torch.nn.LSTM called with one step, its state carried from call to call."""
    peer = nn.LSTM(case.shape.I, case.shape.H)
    held: list[Any] = [None]

    def step(x: torch.Tensor) -> torch.Tensor:
        output, held[0] = peer(x.unsqueeze(0), held[0])
        return output

    return _stream_contest(case, peer.state_dict(), step)


def cell_step(case: Case) -> Contest:
    """torch.nn.LSTMCell, its state carried from call to call."""
    peer = nn.LSTMCell(case.shape.I, case.shape.H)
    held: list[Any] = [None]

    def step(x: torch.Tensor) -> torch.Tensor:
        held[0] = peer(x, held[0])
        return held[0][0]

    weights = {f"{n}_l0": t for n, t in peer.state_dict().items()}
    return _stream_contest(case, weights, step)


def token_step(case: Case) -> Contest:
    """A whole language model, token by token: torch.nn's embedding, LSTM and linear head."""
    shape, symbols = case.shape, case.options["symbols"]
    torch.manual_seed(0)
    config = LanguageModelConfig(symbols, case.cell, shape.I, shape.H, num_layers=1)
    model = LanguageModel(config).eval()
    stepper = model.stream()
    peer, held = nn.LSTM(shape.I, shape.H), []
    peer.load_state_dict(model.recurrent.state_dict())
    tokens = torch.randint(symbols, (_CHECKED_STEPS,)).tolist()

    def theirs(token: int) -> torch.Tensor:
        with torch.no_grad():
            x = model.embedding(torch.tensor([[token]]))
            output, held[:] = peer(x, tuple(held) or None)
            return model.head(output[0, 0])

    def outputs(step: Callable[[int], torch.Tensor]) -> Results:
        return {"logits": torch.stack([step(token) for token in tokens])}

    numbers = sum(p.numel() for m in (model.recurrent, model.head) for p in m.parameters())
    return Contest(
        Timed(lambda: stepper(tokens[0]), lambda: outputs(stepper)),
        Timed(lambda: theirs(tokens[0]), lambda: outputs(theirs)),
        unit="us",
        executor="reference" if stepper.obstacles else "cpu",
        flops=flops(case) + 2.0 * shape.H * symbols,
        bytes=4.0 * numbers,
    )


def _libraries(name: str) -> Callable[[Case], Contest]:
    def build(case: Case) -> Contest:
        from gatewise.benchmark import libraries

        return getattr(libraries, name)(case)

    return build


def _probes(name: str) -> Callable[[Case], Contest]:
    def build(case: Case) -> Contest:
        from gatewise.benchmark import probes

        return getattr(probes, name)(case)

    return build


PEERS: dict[str, Callable[[Case], Contest]] = {
    "nn.LSTM": whole_layer,
    "nn.GRU": whole_layer,
    "nn.RNN": whole_layer,
    "bidirectional nn.LSTM": both_directions,
    "packed nn.LSTM": ragged,
    "split nn.LSTM": resets,
    "loop": loop,
    "nn.LSTM in turn": in_turn,
    "nn.GRU in turn": in_turn,
    "nn.RNN in turn": in_turn,
    "same layers in turn": own_in_turn,
    "full weights": full_weights,
    "nn.LSTM step": layer_step,
    "nn.LSTMCell": cell_step,
    "nn.LSTM model": token_step,
    context.PEER: context.contest,
    "onnxruntime": _libraries("onnxruntime"),
    "jax.lax.scan": _libraries("jax_scan"),
    "torchrecurrent": _libraries("torchrecurrent"),
    "limit": _probes("first_use"),
    "nn.LSTM memory": _probes("memory"),
    "root of time": _probes("root_of_time"),
    "same layer": _probes("scaling"),
    "narrow layer": _probes("width"),
    "limit per step": _probes("lane_step"),
}


def prepare(case: Case) -> Contest:
    """The two sides of a case.

    Raises PeerMissingError where the peer's library is not installed.
    """
    return PEERS[case.peer](case)
