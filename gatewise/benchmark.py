"""Speed beside torch.nn.LSTM, measured in turn in one process, and the cost of a first use.

Shapes: T = time, B = batch, I = input size, H = hidden units. Times are medians in seconds.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from gatewise.layers import LSTM, explain

Shape = tuple[int, int, int, int]  # T, B, I, H
SHAPES: tuple[Shape, ...] = ((100, 32, 2, 32), (100, 32, 128, 128), (100, 32, 256, 256))
_SECONDS = 1.5  # of measuring per shape and mode
_ROUNDS = range(5, 200)  # at least and at most


@dataclass(frozen=True)
class Timing:
    """One line of the table: the same work done by torch.nn.LSTM and by gatewise.LSTM."""

    shape: Shape
    work: str  # "forward" or "training" (forward and backward)
    torch_seconds: float
    gatewise_seconds: float
    rounds: int
    executor: str

    @property
    def ratio(self) -> float:
        """How many times as fast as torch.nn.LSTM."""
        return self.torch_seconds / self.gatewise_seconds

    def to_json(self) -> dict[str, Any]:
        names = ("T", "B", "I", "H")
        return {
            **dict(zip(names, self.shape, strict=True)),
            "work": self.work,
            "torch_ms": self.torch_seconds * 1e3,
            "gatewise_ms": self.gatewise_seconds * 1e3,
            "ratio": self.ratio,
            "rounds": self.rounds,
            "executor": self.executor,
        }


def environment() -> dict[str, Any]:
    """What a figure depends on: threads, versions, the class of machine; never its name."""
    import gatewise

    return {
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "vector": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "gatewise": getattr(gatewise, "__version__", "0.1.0"),
        "dtype": "float32",
    }


def compare(shapes: tuple[Shape, ...] = SHAPES, seconds: float = _SECONDS) -> Iterator[Timing]:
    """Forward and training of one layer, both libraries in turn (A B A B …), per shape."""
    for shape in shapes:
        steps, batch, inputs, hidden = shape
        ours, theirs = LSTM(inputs, hidden), nn.LSTM(inputs, hidden)
        ours.load_state_dict(theirs.state_dict())
        x = torch.randn(steps, batch, inputs)
        for work, run in (("forward", _forward), ("training", _training)):
            where = explain(ours, x).executor
            a, b = run(theirs, x), run(ours, x)
            times = list(_alternate(a, b, seconds))
            yield Timing(
                shape,
                work,
                median(t for t, _ in times),
                median(t for _, t in times),
                len(times),
                where,
            )


def _alternate(
    a: Callable[[], None], b: Callable[[], None], seconds: float
) -> Iterator[tuple[float, float]]:
    for _ in range(3):  # compile, allocate, settle the clock
        a()
        b()
    start = time.perf_counter()
    for k in range(_ROUNDS.stop):
        yield _time(a), _time(b)
        if k + 1 >= _ROUNDS.start and time.perf_counter() - start > seconds:
            return


def _time(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _forward(layer: nn.Module, x: torch.Tensor) -> Callable[[], None]:
    def work() -> None:
        with torch.no_grad():
            layer(x)

    return work


def _training(layer: nn.Module, x: torch.Tensor) -> Callable[[], None]:
    x = x.clone().requires_grad_()  # as in a stack: the layer below wants its gradient

    def work() -> None:
        layer.zero_grad(set_to_none=True)
        x.grad = None
        layer(x)[0].sum().backward()

    return work


def plot(timings: list[Timing], path: str | Path) -> None:
    """Bars: how many times as fast as torch.nn.LSTM, per shape and kind of work, as a PNG."""
    from gatewise.models.plots import new_figure, write_figure

    figure = new_figure(7.5, 3.8)
    axes = figure.subplots()
    shapes = list(dict.fromkeys(t.shape for t in timings))
    for k, (work, colour) in enumerate((("forward", "#8fb3d9"), ("training", "#1f5fa8"))):
        ratios = [next(t.ratio for t in timings if t.shape == s and t.work == work) for s in shapes]
        places = [i + 0.38 * (k - 0.5) for i in range(len(shapes))]
        bars = axes.bar(places, ratios, 0.36, color=colour, label=work)
        axes.bar_label(bars, fmt="%.2f", padding=2, fontsize=9)
    axes.axhline(1.0, color="#444", lw=1, ls="--")
    axes.text(len(shapes) - 0.5, 1.0, " torch.nn.LSTM", va="center", ha="left", fontsize=9)
    axes.set_xticks(range(len(shapes)), [", ".join(map(str, s)) for s in shapes])
    axes.set(
        title=f"Speed of gatewise.LSTM ({torch.get_num_threads()} threads, float32)",
        xlabel="T, B, I, H: steps, batch, inputs, hidden units",
        ylabel="times as fast as torch.nn.LSTM",
    )
    axes.margins(y=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left")
    write_figure(figure, path)


_PREPARE = """
import sys
from gatewise.cells import get_cell
from gatewise.equations import trace
from gatewise.executors.cpu import prepare
print(prepare(trace(get_cell(sys.argv[1]))))
"""


def first_use(cell: str = "lstm") -> dict[str, float]:
    """Seconds to derive, compile and load a cell's kernel: cold, and from the cache on disk.

    Each in a process of its own. Empty where this machine compiles none.
    """
    found = {}
    with tempfile.TemporaryDirectory(prefix="gatewise-cache-") as cache:
        for name in ("cold", "cached"):
            done = subprocess.run(
                [sys.executable, "-c", _PREPARE, cell],
                env=os.environ | {"GATEWISE_CACHE": cache},
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                return {}
            found[name] = float(done.stdout)
    return found
