"""Contests about a first use, about memory and about growth.

Memory and first use are measured in fresh processes, because a process keeps what it once had.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable

import torch

from gatewise.benchmark.case import Case, Contest, PeerMissingError, Probed, Results, Timed
from gatewise.benchmark.peers import flops, input_of, our_layer, side
from gatewise.layers import explain

# The time of the first training call, with whatever it takes to get there from the cell's name.
# torch's own first call is made before, so that it is not counted as ours.
_FIRST_USE = """
import sys, time, torch, gatewise as gw
torch.nn.LSTM(2, 8)(torch.zeros(3, 1, 2))[0].sum().backward()
start = time.perf_counter()
layer = gw.Recurrent(sys.argv[1], 2, 8)
layer(torch.zeros(3, 1, 2))[0].sum().backward()
print(time.perf_counter() - start)
"""

# The highest resident memory of the process during one training step, above what it held
# before. The kernel's counter is used (VmHWM, put back to the present value by writing 5 to
# clear_refs): it sees what torch's allocator does not, such as a library's scratch space. A
# small step before brings libraries and thread pools in.
_MEMORY = """
import sys, torch, gatewise as gw
def status(field):
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith(field))
def step(layer, x):
    output = layer(x)[0]
    output.backward(torch.ones_like(output))
side, threads, T, B, I, H = sys.argv[1], *map(int, sys.argv[2:])
torch.set_num_threads(threads)
make = torch.nn.LSTM if side == "torch" else gw.LSTM
step(make(8, 16), torch.randn(200, 32, 8, requires_grad=True))
layer, x = make(I, H), torch.randn(T, B, I, requires_grad=True)
with open("/proc/self/clear_refs", "w") as f:
    f.write("5")
before = status("VmRSS")
step(layer, x)
print((status("VmHWM") - before) * 1024 / 1e6)
"""


def _run(code: str, *arguments: object, environment: dict[str, str] | None = None) -> float:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | (environment or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise PeerMissingError(f"the measuring process failed: {last}")
    return float(done.stdout)


def first_use(case: Case) -> Contest:
    """A cell's first training call against a fixed limit, with an empty cache or a full one."""
    limit = Probed(lambda: case.options["limit"])

    def cold() -> float:
        with tempfile.TemporaryDirectory(prefix="gatewise-cache-") as cache:
            return _run(_FIRST_USE, case.cell, environment={"GATEWISE_CACHE": cache})

    def cached() -> float:
        return _run(_FIRST_USE, case.cell)

    if case.work == "cold":
        return Contest(Probed(cold), limit, unit="s", rounds=2)
    cached()  # fills the user's cache
    return Contest(Probed(cached), limit, unit="s", rounds=3)


def first_use_seconds(cell: str = "lstm") -> dict[str, float]:
    """Seconds of a cell's first use: with nothing cached, then from the cache on disk.

    Empty where that cannot be measured.
    """
    with tempfile.TemporaryDirectory(prefix="gatewise-cache-") as cache:
        try:
            return {
                name: _run(_FIRST_USE, cell, environment={"GATEWISE_CACHE": cache})
                for name in ("cold", "cached")
            }
        except PeerMissingError:
            return {}


def memory(case: Case) -> Contest:
    """Peak memory of a training step in megabytes, each side in processes of its own."""
    if not os.access("/proc/self/clear_refs", os.W_OK):
        raise PeerMissingError("this system has no /proc/self/clear_refs to measure memory with")

    def probe(side: str) -> Callable[[], float]:
        return lambda: _run(_MEMORY, side, torch.get_num_threads(), *case.shape)

    x = input_of(case)
    return Contest(
        Probed(probe("ours")),
        Probed(probe("torch")),
        unit="MB",
        executor=explain(our_layer(case), x).executor,
        rounds=2,
    )


def scaling(case: Case) -> Contest:
    """Time per step and row of a large call against that of a small one, same weights."""
    layer, base = our_layer(case), case.options["base"]
    x = input_of(case)
    corner = x[: base.T, : base.B].clone()

    def call(x: torch.Tensor) -> torch.Tensor:
        return layer(x)[0]

    def shared(results: Results) -> Results:
        """What both have in common: the outputs of the first steps of the first rows."""
        return {"output": results["output"][: base.T, : base.B]}

    large, small = side(case, layer, call, x), side(case, layer, call, corner)
    units = case.shape.T * case.shape.B
    return Contest(
        Timed(large.work, lambda: shared(large.results()), units),
        Timed(small.work, lambda: shared(small.results()), base.T * base.B),
        unit="ns",
        executor=explain(layer, x).executor,
        flops=flops(case) / units,
    )
