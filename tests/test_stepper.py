"""A stream of single steps equals the sequence, for every cell."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import is_parametrized

import gatewise as gw
from gatewise.cells import REGISTRY
from gatewise.layers.stepper import Stepper

T, B, INPUTS = 6, 3, 5


@pytest.mark.parametrize("name", REGISTRY)
@pytest.mark.parametrize("hidden", [6, 16])
def test_steps_equal_the_sequence_to_the_bit(name: str, hidden: int) -> None:
    layer = gw.Recurrent(name, INPUTS, hidden, num_layers=2)
    x = torch.randn(T, B, INPUTS)
    with torch.no_grad():
        expected, final = layer(x)
        stepper = layer.stream(batch=B)
        steps = torch.stack([stepper(x_t) for x_t in x])
    if stepper.obstacles:  # the general path: the reference rounds differently for other T
        torch.testing.assert_close(steps, expected, rtol=1e-5, atol=1e-6)
    else:
        assert torch.equal(steps, expected)
        for name, got in zip(layer.cell.states, as_tuple(stepper.state), strict=True):
            want = dict(zip(layer.cell.states, as_tuple(final), strict=True))[name]
            assert torch.equal(got, want), name


def as_tuple(state: object) -> tuple[torch.Tensor, ...]:
    return (state,) if isinstance(state, torch.Tensor) else tuple(state)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options", [{}, {"proj_size": 4, "num_layers": 2}, {"residual": True, "num_layers": 2}]
)
@pytest.mark.parametrize("threads", [1, 2])
def test_state_can_be_read_set_and_reset_by_row(options: dict, threads: int) -> None:
    layer = (
        gw.LSTM(INPUTS, 8, **options)
        if "proj_size" in options
        else gw.Recurrent("lstm", INPUTS, 8, **options)
    )
    stepper = layer.stream(B, threads)
    x = torch.randn(T, B, INPUTS)
    for x_t in x[:3]:
        stepper(x_t.detach())
    saved = stepper.state
    onward = [stepper(x_t) for x_t in x[3:]]
    stepper.state = saved
    again = [stepper(x_t) for x_t in x[3:]]
    assert all(torch.equal(a, b) for a, b in zip(onward, again, strict=True))

    gone = torch.tensor([True, False, False])
    stepper.state = saved
    stepper.reset(gone)
    with torch.no_grad():
        expected, _ = layer(x[3:], tuple(s.masked_fill(gone.view(1, -1, 1), 0.0) for s in saved))
    torch.testing.assert_close(stepper(x[3]), expected[0], rtol=1e-5, atol=1e-6)
    stepper.reset()
    assert all(not s.any() for s in stepper.state)


def stepped(layer: gw.Recurrent, optimizer: torch.optim.Optimizer) -> None:
    layer.zero_grad()
    layer(torch.ones(2, 1, INPUTS))[0].sum().backward()
    optimizer.step()


def norm_changed(layer: gw.Recurrent) -> None:
    if not is_parametrized(layer):
        weight_norm(layer, "weight_ih_l0")
    nn.init.normal_(layer.parametrizations.weight_ih_l0.original0)


CHANGES = {
    "in place": lambda layer: nn.init.normal_(layer.weight_ih_l0),
    "adam": lambda layer: stepped(layer, torch.optim.Adam(layer.parameters())),
    "foreach": lambda layer: stepped(layer, torch.optim.Adam(layer.parameters(), foreach=True)),
    # These two count no version.
    "fused": lambda layer: stepped(layer, torch.optim.Adam(layer.parameters(), fused=True)),
    "vector": lambda layer: vector_to_parameters(
        parameters_to_vector(layer.parameters()) * 2, layer.parameters()
    ),
    "assigned": lambda layer: layer.load_state_dict(
        gw.GRU(INPUTS, 8, bias=layer.bias).state_dict(), assign=True
    ),
    "parametrised": norm_changed,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_changed_weights_are_noticed(change: Callable[[gw.Recurrent], object]) -> None:
    layer, x = gw.GRU(INPUTS, 8), torch.randn(1, INPUTS)
    stepper = layer.stream()
    before = stepper(x)
    for _ in range(2):  # also after the weights were read again
        stepper.reset()
        change(layer)
        after = stepper(x)
        assert not torch.equal(before, after)
        torch.testing.assert_close(after, layer(x.unsqueeze(0))[0][0].detach())
        before = after


def test_the_same_weights_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = gw.LSTM(INPUTS, 8), torch.randn(1, INPUTS)
    stepper = layer.stream()
    monkeypatch.setattr(stepper, "refresh", lambda: pytest.fail("nothing has changed"))
    for _ in range(3):
        stepper(x)


def test_swapped_weights_of_another_type_are_refused() -> None:
    layer = gw.LSTM(INPUTS, 8)
    stepper, x = layer.stream(), torch.zeros(1, INPUTS)
    layer.weight_hh_l0.data = layer.weight_hh_l0.data.double()
    with pytest.raises(ValueError, match=r"weight_hh must be torch\.float32"):
        stepper(x)
    layer.double()
    with pytest.raises(ValueError, match=r"weight_ih must be torch\.float32"):
        stepper(x)
    head = nn.Linear(8, 2)
    stepper = Stepper(gw.LSTM(INPUTS, 8), heads=(head,))
    head.weight = nn.Parameter(torch.zeros(3, 8))
    with pytest.raises(ValueError, match=r"head's weight must have shape \(2, 8\), got \(3, 8\)"):
        stepper(x)


def test_wide_layers_split_between_threads_give_the_same_bits() -> None:
    layer, x = gw.LSTM(64, 96, num_layers=2), torch.randn(20, 1, 64)
    alone, shared = layer.stream(), layer.stream(threads=2)
    assert all(torch.equal(alone(x_t), shared(x_t)) for x_t in x)


def test_no_more_threads_than_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that wait for each other on one processor take turns of milliseconds."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5}, raising=False)
    layer = gw.LSTM(INPUTS, 64)
    assert [layer.stream(threads=n).threads for n in (1, 2, 3, 64)] == [1, 2, 2, 2]


def test_bad_input_is_refused() -> None:
    stepper = gw.LSTM(INPUTS, 8).stream(2)
    with pytest.raises(ValueError, match=r"x must be \[2, 5\], got \[3, 5\]"):
        stepper(torch.zeros(3, 5))
    with pytest.raises(TypeError, match="float64"):
        stepper(torch.zeros(2, 5, dtype=torch.float64))
    with pytest.raises(RuntimeError, match="no gradient"):
        stepper(torch.zeros(2, 5, requires_grad=True))
    with pytest.raises(ValueError, match="bidirectional"):
        gw.LSTM(INPUTS, 8, bidirectional=True).stream()
    with pytest.raises(ValueError, match="batch must be at least 1"):
        gw.LSTM(INPUTS, 8).stream(0)
    with pytest.raises(ValueError, match=r"rows must be bool \[2\]"):
        stepper.reset(torch.tensor([1, 0]))
    with pytest.raises(gw.SlowPathError):
        gw.Recurrent("lstm", INPUTS, 8, strict=True, executor="reference").stream()
    single = gw.LSTM(INPUTS, 8).stream()
    assert single(torch.zeros(INPUTS)).shape == (8,)
