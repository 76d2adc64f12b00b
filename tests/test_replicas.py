"""Many networks in one layer: each is, to the bit, the network it would be alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import gatewise as gw
from gatewise.executors.cpu import kernel, packing, share
from gatewise.layers import join, load_replica

SEEDS = (11, 12, 13)
T, B, I, H = 9, 4, 3, 6  # noqa: E741


def makers(**options: Any) -> list[Callable[[], gw.Recurrent]]:
    return [
        lambda cell=cell: gw.Recurrent(cell, I, H, **options)
        for cell in ("lstm", "gru", "lstm-1997-blocks", "lstm-layernorm", "gru-reset-before", "rnn")
    ]


def alone(make: Callable[[], gw.Recurrent], seed: int) -> gw.Recurrent:
    torch.manual_seed(seed)
    return make()


def numbers(layer: gw.Recurrent, x: torch.Tensor, **call: Any) -> dict[str, torch.Tensor]:
    """Outputs, states, records and all gradients, by name."""
    x = x.clone().requires_grad_()
    output, state, *records = layer(x, **call)
    state = {"h": state} if isinstance(state, torch.Tensor) else state._asdict()
    found = {"output": output, **state, **(records[0] if records else {})}
    sum(t.sin().sum() for t in found.values()).backward()
    found |= {f"grad {n}": p.grad for n, p in layer.named_parameters()} | {"grad x": x.grad}
    return {n: t.detach() for n, t in found.items() if t is not None}


def _of(value: Any, k: int) -> Any:
    """Replica k's part of an argument; what is no tensor is the same for all, but for seeds."""
    if isinstance(value, dict):
        return {n: t[k] for n, t in value.items()}
    return value[k] if isinstance(value, torch.Tensor | list) else value


def check(make: Callable[[], gw.Recurrent], **call: Any) -> None:
    x = torch.randn(len(SEEDS), T, B, I)
    together = numbers(gw.replicate(make, SEEDS), x, **call)
    for k, seed in enumerate(SEEDS):
        own = {n: _of(v, k) for n, v in call.items()}
        single = numbers(alone(make, seed), x[k], **own)
        assert together.keys() == single.keys()
        for name, t in single.items():
            assert torch.equal(together[name][k], t), name


@pytest.mark.parametrize("make", makers(), ids=lambda m: repr(m().cell))
def test_each_is_as_if_alone(make: Callable[[], gw.Recurrent]) -> None:
    check(make)


@pytest.mark.parametrize("executor", ["auto", "reference"])
def test_with_every_option(executor: str) -> None:
    def make() -> gw.Recurrent:
        return gw.LSTM(
            I,
            H,
            num_layers=2,
            bidirectional=True,
            dropout=0.2,
            zoneout=0.2,
            recurrent_dropout=0.2,
            input_dropout=[0.2, 0.3],
            weight_dropout=0.2,
            residual=True,
            layer_norm=True,
            executor=executor,
        )

    n = len(SEEDS)
    check(
        make,
        state={"h": torch.randn(n, 4, B, H), "c": torch.randn(n, 4, B, H)},
        lengths=torch.randint(0, T + 1, (n, B)),
        resets=torch.rand(n, T, B) < 0.2,
        seed=[3, 4, 5],
        offset=7,
        record=("h",),
    )


def test_checkpoints_and_projections_too() -> None:
    check(lambda: gw.LSTM(I, H, proj_size=4, bidirectional=True))
    check(lambda: gw.LSTM(I, H, checkpoint=4), lengths=torch.randint(0, T + 1, (3, B)))


def test_input_for_all_batch_first_and_threads() -> None:
    nets = gw.replicate(lambda: gw.GRU(I, H, batch_first=True), SEEDS)
    x, lengths = torch.randn(B, T, I), torch.randint(0, T + 1, (B,))
    output, h = nets(x, lengths=lengths)
    torch.set_num_threads(2)
    same, _ = nets(x.expand(3, B, T, I), lengths=lengths.expand(3, B))
    assert torch.equal(same, output)
    for k in range(3):
        own, own_h = gw.replica(nets, k)(x, lengths=lengths)
        assert torch.equal(own, output[k])
        assert torch.equal(own_h, h[k])


@pytest.mark.parametrize("threads", [2, 3, 4])
def test_split_over_threads(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three networks over two threads, over three, and each over four of its own in turn."""
    monkeypatch.setattr(share, "_PARALLEL_FROM", 1)
    torch.set_num_threads(threads)
    check(lambda: gw.LSTM(I, H))


def test_one_call_of_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    if gw.explain(gw.LSTM(I, H), torch.zeros(T, B, I)).executor != "cpu":
        pytest.skip("no C compiler: no kernels to test")
    calls: list[str] = []
    invoke = kernel.invoke

    def note(function: Any, *given: Any) -> None:
        calls.append(function.__name__)
        invoke(function, *given)

    for module in (kernel, packing):
        monkeypatch.setattr(module, "invoke", note)
    nets = gw.replicate(lambda: gw.LSTM(I, H), range(10))
    nets(torch.randn(10, T, B, I))[0].sum().backward()
    assert calls == ["gw_pack", "gw_forward", "gw_backward", "gw_unpack"]


def test_training_together_is_training_alone() -> None:
    """The same trajectories: plain SGD treats every number by itself."""
    x, target = torch.randn(T, B, I), torch.randn(T, B, H)

    def train(layer: gw.Recurrent) -> gw.Recurrent:
        optimiser = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
        for _ in range(5):
            optimiser.zero_grad()
            (layer(x)[0] - target).square().sum().backward()
            optimiser.step()
        return layer

    together = train(gw.replicate(lambda: gw.LSTM(I, H), SEEDS))
    for k, seed in enumerate(SEEDS):
        single = train(alone(lambda: gw.LSTM(I, H), seed))
        own = gw.replica(together, k)
        for a, b in zip(own.parameters(), single.parameters(), strict=True):
            assert torch.equal(a, b)


def test_weights_in_and_out() -> None:
    nets = gw.replicate(lambda: gw.LSTM(I, H, num_layers=2, layer_norm=True), SEEDS)
    other = gw.LSTM(I, H, num_layers=2, layer_norm=True)
    load_replica(nets, 1, other.state_dict())
    assert all(
        torch.equal(p, q)
        for p, q in zip(gw.replica(nets, 1).parameters(), other.parameters(), strict=True)
    )
    assert gw.replica(nets, 1).replicas == 0
    again = join([gw.replica(nets, k) for k in range(3)])
    again.load_state_dict(nets.state_dict())
    assert again.weight_hh_l0.shape == (3, 4 * H, H)
    assert torch.equal(again.norms[0].weight, nets.norms[0].weight)
    with pytest.raises(ValueError, match="different: weight_hh_l0"):
        load_replica(nets, 1, {n: t for n, t in other.state_dict().items() if n != "weight_hh_l0"})
    with pytest.raises(ValueError, match="must have shape"):
        load_replica(nets, 1, nets.state_dict())


def test_the_generator_is_left_as_it_was() -> None:
    before = torch.get_rng_state()
    gw.replicate(lambda: gw.LSTM(I, H), SEEDS)
    assert torch.equal(torch.get_rng_state(), before)


def test_random_masks_differ_between_replicas() -> None:
    layer = gw.LSTM(I, H, recurrent_dropout=0.5)
    twins = join([layer, layer])
    first, second = twins(torch.randn(T, B, I))[0]
    assert not torch.equal(first, second)
    first, second = twins.eval()(torch.randn(T, B, I))[0]
    assert torch.equal(first, second)


def test_refused() -> None:
    nets = gw.replicate(lambda: gw.LSTM(I, H, zoneout=0.1), SEEDS)
    with pytest.raises(ValueError, match=r"\[3, T, B, 3\] .* got \(2, 9, 4, 3\)"):
        nets(torch.zeros(2, T, B, I))
    with pytest.raises(TypeError, match="tensor for a layer of replicas"):
        nets([1.0])
    with pytest.raises(TypeError, match="seed must be a sequence of 3 ints"):
        nets(torch.zeros(T, B, I), seed=4)
    with pytest.raises(ValueError, match="one for each replica"):
        nets(torch.zeros(T, B, I), seed=(1, 2))
    with pytest.raises(ValueError, match="must have shape"):
        nets(torch.zeros(T, B, I), (torch.zeros(1, B, H), torch.zeros(1, B, H)))
    with pytest.raises(ValueError, match="a stream is of one network"):
        nets.stream()
    with pytest.raises(ValueError, match=r"call gatewise\.replicate"):
        nets.reset_parameters()
    with pytest.raises(ValueError, match="below 3, got 3"):
        gw.replica(nets, 3)
    with pytest.raises(ValueError, match="at least one layer"):
        join([])
    with pytest.raises(TypeError, match="gatewise layers, got LSTM"):
        join([torch.nn.LSTM(I, H)])
    with pytest.raises(ValueError, match="must be alike"):
        join([gw.LSTM(I, H), gw.LSTM(I, H, executor="reference")])
    with pytest.raises(ValueError, match="plain layers"):
        join([nets, nets])
