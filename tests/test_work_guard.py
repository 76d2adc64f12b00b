"""Work is counted, not timed: a regression shows on any machine, however busy.

Counted are the torch operations of a call (each costs about a microsecond, whatever the sizes),
the bytes that are allocated per step, row and unit, and the kernel's instructions under callgrind.
Whoever needs more raises the number here, knowingly.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import gatewise as gw
from gatewise.executors.cpu import kernel, packing, toolchain
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
# candidate; the RNN's one); and the input's gradient, half as wide.
@pytest.mark.parametrize(
    ("cell", "operations", "kept"),
    [
        ("lstm", {"inference": 10, "training": 30}, 2 + 4 + 0.5),
        ("gru", {"inference": 6, "training": 25}, 1 + 4 + 0.5),
        ("rnn", {"inference": 6, "training": 25}, 1 + 1 + 0.5),
    ],
)
def test_a_call_does_no_more_than_it_did(
    cell: str, operations: dict[str, int], kept: float, executor: str
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


# One call of a kernel in a bare interpreter: torch's import under callgrind would take minutes.
# Sizes decide how much work there is, contents do not: every buffer is zero.
REPLAY = """
import ctypes, json, sys
library, runtime, function, numbers, sizes, times = json.loads(sys.argv[1])
hold = [None if n is None else ctypes.create_string_buffer(n + 64) for n in sizes]
at = [0 if b is None else (ctypes.addressof(b) + 63) // 64 * 64 for b in hold]
call = getattr(ctypes.CDLL(library), function)
given = ((ctypes.c_int64 * len(numbers))(*numbers), (ctypes.c_void_p * len(at))(*at),
         ctypes.cast(ctypes.CDLL(runtime).gw_parallel, ctypes.c_void_p))
for _ in range(times):
    call(*given)
"""


def recorded(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[list[int], list[int | None]]]:
    """From now on: kernel function -> its numbers and the sizes of its buffers, last call."""
    found: dict[str, tuple[list[int], list[int | None]]] = {}
    invoke = kernel.invoke

    def call(function: Any, numbers: list[int], tensors: list[torch.Tensor | None], *rest) -> None:
        sizes = [None if t is None else t.untyped_storage().nbytes() for t in tensors]
        found[function.__name__] = (list(numbers), sizes)
        invoke(function, numbers, tensors, *rest)

    for module in (kernel, packing):
        monkeypatch.setattr(module, "invoke", call)
    return found


# Instructions per product W x or U h of the forward step, of AVX2 code, whose every instruction
# does 8 at best. Measured with gcc 14: 0.39 and 0.86 (three products of that size); the rest is
# room for other compilers. Weights read from memory by the multiplication itself would be 0.33 and
# 0.74, and a fifth slower: for each row of a tile they are read again.
@pytest.mark.parametrize(("function", "most"), [("gw_forward", 0.4), ("gw_backward", 0.95)])
def test_the_kernel_runs_no_more_instructions(
    function: str, most: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("valgrind") is None or platform.machine() != "x86_64":
        pytest.skip("needs valgrind on x86-64")
    libraries: list[str] = []
    library = toolchain.library

    def note(*given: Any) -> Any:
        libraries.append(library(*given)._name)
        return library(*given)

    # valgrind knows no AVX-512.
    monkeypatch.setattr(toolchain, "_native_flags", lambda: ("-march=haswell",))
    monkeypatch.setattr(toolchain, "library", note)
    monkeypatch.setattr(kernel, "_kernels", {})
    calls = recorded(monkeypatch)
    steps, batch, size = 20, 8, 32
    x = torch.randn(steps, batch, size, requires_grad=True)
    gw.LSTM(size, size)(x)[0].sum().backward()
    runtime = kernel.runtime.__wrapped__()._name
    given = [libraries[0], runtime, function, *calls[function]]
    one, many = (instructions([*given, times], tmp_path / "out") for times in (1, 21))
    products = steps * batch * 4 * size * (size + size)
    assert 0 < (many - one) / 20 / products <= most


def instructions(given: list[Any], out: Path) -> int:
    """Of a whole process that replays a call."""
    valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"]
    done = subprocess.run(
        [*valgrind, sys.executable, "-I", "-S", "-c", REPLAY, json.dumps(given)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    counted = re.search(r"Collected : (\d+)", done.stderr)
    assert counted
    return int(counted[1])
