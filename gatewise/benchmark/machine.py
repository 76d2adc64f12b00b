"""What a figure depends on: the class of machine, versions, threads, load; never a name."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from gatewise.executors.cpu import toolchain

_BUSY = 0.5  # load per core above which figures are not to be trusted
_OTHERS = ("numpy", "onnxruntime", "jax", "torchrecurrent")


def environment(threads: int | None = None) -> dict[str, Any]:
    """Everything that belongs in the header of a table, as plain data."""
    found: dict[str, Any] = {
        "date": date.today().isoformat(),
        "processor": _processor(),
        "vector": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": threads or torch.get_num_threads(),
        "load": load(),
        "dtype": "float32",
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "gatewise": _version("gatewise") or "source tree",
        "compiler": _compiler(),
    }
    return found | {n: v for n in _OTHERS if (v := _version(n)) is not None}


def load() -> float | None:
    """The mean number of processes that wanted a core in the last minute; None if not known."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


def busy(found: dict[str, Any]) -> str | None:
    """A sentence where the machine was not idle when `environment` looked, else None."""
    if found["load"] is None or found["load"] <= _BUSY * (found["cores"] or 1):
        return None
    return f"the machine is busy (load {found['load']:.1f} on {found['cores']} cores)"


def sgemm_rate(seconds: float = 0.5, size: int = 1024) -> float:
    """Floating-point operations per second of torch's product of two matrices, at its best."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    out = torch.empty(size, size)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        torch.mm(a, b, out=out)
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as f:
            names = [line.split(":", 1)[1].strip() for line in f if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _compiler() -> str:
    """The first line of what the first compiler of the ladder says of itself."""
    for compiler in toolchain.ladder():
        try:
            done = subprocess.run(
                [*compiler.command, "--version"],
                capture_output=True,
                text=True,
                timeout=20,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            continue
        return (done.stdout.splitlines() or [""])[0]
    return "none"
