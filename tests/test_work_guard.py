"""Work is counted, not timed: a regression shows on any machine, however busy.

Counted are the torch operations of a call (each costs about a microsecond, whatever the sizes)
and the bytes that are allocated per step, row and unit. Whoever needs more raises the number
here, knowingly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import gatewise as gw
from gatewise.layers import Recurrent

H = 16  # whole vectors: nothing is padded
MAKES = ("aten::empty", "aten::zeros", "aten::new_", "aten::clone", "aten::full", "aten::constant")


class Counted(NamedTuple):
    """Torch operations of a call, and the numbers it allocated."""

    operations: int
    numbers: int


class Counter(TorchDispatchMode):
    """Counts what is dispatched while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self.operations += 1
        if func.name().startswith(MAKES) and isinstance(found, torch.Tensor):
            self.bytes += found.numel() * found.element_size()
        return found


def count(work: Callable[[], object]) -> Counted:
    work()  # compiles, and fills what is kept between calls
    with Counter() as found:
        work()
    return Counted(found.operations, found.bytes // 4)


def calls(layer: Recurrent, steps: int, batch: int) -> dict[str, Counted]:
    """A call without gradients, and forward and backward."""
    x = torch.randn(steps, batch, layer.input_size, requires_grad=True)
    upstream = torch.ones(steps, batch, H)

    def inference() -> None:
        with torch.no_grad():
            layer(x)

    def training() -> None:
        layer.zero_grad(set_to_none=True)
        x.grad = None
        layer(x)[0].backward(upstream)

    return {"inference": count(inference), "training": count(training)}


# Operations at most; and numbers per step, row and unit that training keeps: the states, and
# what backward reads (the LSTM's four gates; three of the GRU and the recurrent half of the
# candidate; the RNN's one).
@pytest.mark.parametrize(
    ("cell", "operations", "kept"),
    [
        ("lstm", {"inference": 22, "training": 80}, 2 + 4),
        ("gru", {"inference": 18, "training": 70}, 1 + 4),
        ("rnn", {"inference": 18, "training": 70}, 1 + 1),
    ],
)
def test_a_call_does_no_more_than_it_did(
    cell: str, operations: dict[str, int], kept: int, executor: str
) -> None:
    if executor == "reference":
        pytest.skip("a loop over time: its operations grow with T by design")
    layer = gw.Recurrent(cell, 8, H)
    small, long, wide = (calls(layer, *size) for size in ((5, 4), (50, 4), (5, 40)))
    for name, most in operations.items():
        assert small[name].operations <= most, name
        # Neither steps nor rows cost an operation.
        assert small[name].operations == long[name].operations == wide[name].operations, name
    per_unit = (long["training"].numbers - small["training"].numbers) / (45 * 4 * H)
    assert per_unit <= kept
    # Inference keeps the output alone.
    assert (long["inference"].numbers - small["inference"].numbers) / (45 * 4 * H) <= 1


def test_a_streamed_step_is_one_operation(executor: str) -> None:
    if executor == "reference":
        pytest.skip("a stream on the reference is a loop's step")
    stepper, x = gw.LSTM(8, H, num_layers=2).stream(), torch.randn(1, 8)
    assert count(lambda: stepper(x)).operations <= 1  # the copy of the output
