"""A stream of single steps equals the sequence, for every cell."""

from __future__ import annotations

import os

import pytest
import torch

import gatewise as gw
from gatewise.cells import REGISTRY

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


def test_changed_weights_are_noticed() -> None:
    layer, x = gw.GRU(INPUTS, 8), torch.randn(1, INPUTS)
    stepper = layer.stream()
    before = stepper(x)
    stepper.reset()
    with torch.no_grad():
        layer.weight_ih_l0.mul_(2)
    after = stepper(x)
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, layer(x.unsqueeze(0))[0][0].detach())


def test_swapped_weights_of_another_type_are_refused() -> None:
    layer = gw.LSTM(INPUTS, 8)
    stepper = layer.stream()
    layer.weight_hh_l0.data = layer.weight_hh_l0.data.double()
    with pytest.raises(ValueError, match=r"weight_hh must be torch\.float32"):
        stepper.refresh()


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
