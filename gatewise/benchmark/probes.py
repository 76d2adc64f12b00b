"""Contests about a first use, about memory, about growth and about small networks in lanes.

Resident memory and first use are measured in fresh processes, because a process keeps what it
once had.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from gatewise.benchmark.case import (
    Case,
    Contest,
    PeerMissingError,
    Probed,
    Results,
    Shape,
    Timed,
)
from gatewise.benchmark.peers import executor_of, flops, input_of, our_layer, side
from gatewise.cells import LSTM1997
from gatewise.executors.lanes import Lanes, Network
from gatewise.tasks import adding

# The time of a cell's first training call, with whatever it takes to get there from its name. Calls
# of torch's layer and of another cell are made before, so that what is loaded once for all cells
# is not counted: SymPy alone takes a third of a second to import.
_FIRST_USE = """
import sys, time, torch, gatewise as gw
cell = sys.argv[1]
def use(layer):
    layer(torch.zeros(3, 1, 2))[0].sum().backward()
use(torch.nn.LSTM(2, 8))
use(gw.Recurrent("gru" if cell != "gru" else "lstm", 2, 8))
start = time.perf_counter()
use(gw.Recurrent(cell, 2, 8))
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
side, threads, checkpoint, T, B, I, H = sys.argv[1], *map(int, sys.argv[2:])
torch.set_num_threads(threads)
def make(*sizes):
    return torch.nn.LSTM(*sizes) if side == "torch" else gw.LSTM(*sizes, checkpoint=checkpoint > 0)
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


def _peak(side: str, shape: Shape, checkpoint: bool) -> float:
    """Megabytes of a training step in a process of its own."""
    if not os.access("/proc/self/clear_refs", os.W_OK):
        raise PeerMissingError("this system has no /proc/self/clear_refs to measure memory with")
    return _run(_MEMORY, side, torch.get_num_threads(), int(checkpoint), *shape)


def memory(case: Case) -> Contest:
    """Peak memory of a training step, ours (with the case's options) against nn.LSTM's."""
    checkpoint = case.options.get("checkpoint", False)
    executor = executor_of(case, our_layer(case, **case.options), input_of(case))
    ours = Probed(lambda: _peak("ours", case.shape, checkpoint))
    peer = Probed(lambda: _peak("torch", case.shape, checkpoint=False))
    return Contest(ours, peer, unit="MB", executor=executor, rounds=2)


def peak_bytes(work: Callable[[], object]) -> int:
    """The most that torch's allocator held at once during `work`, beyond what it held before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as measured:
        work()
    with tempfile.TemporaryDirectory(prefix="gatewise-trace-") as folder:
        path = Path(folder, "trace.json")
        measured.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    changes = sorted((e["ts"], e["args"]["Bytes"]) for e in events if e["name"] == "[memory]")
    return max(accumulate((size for _, size in changes), initial=0))


def root_of_time(case: Case) -> Contest:
    """Bytes that checkpoints need beside input, output and their gradients, divided by √T.

    Against the same at the first, smallest T: 1 is growth with √T exactly. Counted by torch's
    allocator, because a few megabytes are lost in the resident memory of a process.
    """
    layer = our_layer(case, checkpoint=True)

    def probe(steps: int) -> Callable[[], float]:
        x = input_of(replace(case, shape=case.shape._replace(T=steps))).requires_grad_()
        upstream = torch.ones(*x.shape[:2], case.shape.H)

        def extra() -> float:
            layer.zero_grad()
            x.grad = None
            most = peak_bytes(lambda: layer(x)[0].backward(upstream))
            return (most - upstream.nbytes - x.nbytes) / steps**0.5 / 1e6

        return extra

    ours, base = probe(case.shape.T), probe(case.options["base"])
    base()  # whatever a first use allocates
    executor = executor_of(case, layer, input_of(case))
    return Contest(Probed(ours), Probed(base), unit="MB", executor=executor, rounds=2)


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
        executor=executor_of(case, layer, x),
        flops=flops(case) / units,
    )


def width(case: Case) -> Contest:
    """Time of a wide layer's call against that of a narrow one, per product of the narrow one.

    The figures are per step and row, of as many products as the narrow layer has.
    """
    base = case.options["base"]
    cases = (case, replace(case, shape=base))
    units = [round(flops(c) / flops(cases[1]) * base.T * base.B) for c in cases]
    layers, inputs = [our_layer(c) for c in cases], [input_of(c) for c in cases]
    ours, narrow = (
        Timed(side(case, layer, lambda x, own=layer: own(x)[0], x).work, dict, count)
        for layer, x, count in zip(layers, inputs, units, strict=True)
    )
    executor = executor_of(case, layers[0], inputs[0])
    return Contest(ours, narrow, "ns", executor, flops(case) / units[0])


def lane_step(case: Case) -> Contest:
    """A time step of all networks in lanes that learn adding, against a fixed limit.

    The network of the 1997 paper's experiment 4: drawing the sequences, learning and the stopping
    rule are all counted; the steps are those of the mean sequence.
    """
    count = case.options["sequences"]
    cell = LSTM1997(block_size=case.options["block_size"])
    network = Network(cell, case.shape.I, case.shape.H, 1, head_bias=True)
    lanes = Lanes(network, case.shape.B, 0.5, adding(case.shape.T))
    draw = torch.Generator().manual_seed(0)
    lanes.load({n: 0.2 * torch.rand(s, generator=draw) - 0.1 for n, s in network.shapes().items()})

    def probe() -> float:
        start = time.perf_counter()
        lanes.train(count)
        return (time.perf_counter() - start) / (count * 1.05 * case.shape.T)

    probe()
    return Contest(Probed(probe), Probed(lambda: case.options["limit"]), "ns", "lanes")
