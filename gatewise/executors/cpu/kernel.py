"""Compiled kernels by cell: derive, generate, compile, load; each once per process."""

from __future__ import annotations

import ctypes
import functools
import os
from array import array
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, NamedTuple, TypeVar

import sympy
import torch

from gatewise.equations.trace import Accumulator, Trace, subexpressions
from gatewise.executors.cpu import toolchain
from gatewise.executors.cpu.generate import SKELETON, KernelSpec, c_text, source

R = TypeVar("R")
_GENERATORS = (
    "equations.derive",
    "equations.phases",
    "executors.render",
    "executors.cpu.generate",
    "executors.cpu.phased",
)
_SOURCES = ("vector.h", "weights.h", "bytes.h", *SKELETON, "phases.c", "runtime.c")


@dataclass(frozen=True, eq=False)
class Kernel:
    """A loaded library and what the launcher must know to call it."""

    lanes: int  # units per vector
    gates: int
    accumulators: tuple[Accumulator, ...]  # what is summed first, in the order of the kernel
    late: tuple[str, ...]  # gates whose product with U comes later in the step, the projection last
    width: int  # numbers per unit and row in the kept buffer
    group: int  # inputs whose weights one entry of a panel holds
    head: int  # entries a panel begins with
    native: bool  # are weights multiplied as they are held, not widened?
    means: int  # numbers per row and step: means over units
    collected: int  # numbers per unit and row that backward gathers
    history: tuple[bool, ...]  # per state: is every step of it kept?
    forward: Any  # ctypes functions
    backward: Any | None
    pack: Any
    unpack: Any | None


@functools.cache
def runtime() -> ctypes.CDLL:
    """What every kernel shares (runtime.c), one for the process."""
    lib = toolchain.library("runtime " + c_text("runtime.c"), lambda: c_text("runtime.c"))
    lib.gw_chain.argtypes = [ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    lib.gw_chain.restype = None
    lib.gw_side_by_side.argtypes = [ctypes.c_void_p, *[ctypes.c_long] * 4]
    lib.gw_side_by_side.restype = ctypes.c_int
    lib.gw_fingerprint.argtypes = [ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    lib.gw_fingerprint.restype = ctypes.c_uint64
    team = _torch_openmp()
    if team is not None:
        names = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")
        lib.gw_use_team(*(ctypes.cast(getattr(team, n), ctypes.c_void_p) for n in names))
    return lib


def _torch_openmp() -> ctypes.CDLL | None:
    """The OpenMP library PyTorch runs on; None where it is not found or is another kind."""
    if not torch.backends.openmp.is_available():
        return None
    try:
        with open("/proc/self/maps", encoding="utf-8") as f:
            loaded = {line.split(maxsplit=5)[-1].strip() for line in f if "omp" in line}
    except OSError:
        return None
    own = os.path.join(os.path.dirname(torch.__file__), "lib")
    names = ("libgomp", "libiomp5", "libomp")
    found = [p for p in loaded if os.path.basename(p).startswith(names)]
    found = [p for p in found if p.startswith(own)] or found
    if len(found) != 1:  # none, or no telling which one is PyTorch's
        return None
    library = ctypes.CDLL(found[0])
    return library if hasattr(library, "GOMP_parallel") else None


@functools.cache
def parallel() -> ctypes.c_void_p:
    """The address of the pool's entry, which every kernel takes."""
    return ctypes.cast(runtime().gw_parallel, ctypes.c_void_p)


def addresses(tensors: Sequence[torch.Tensor | None]) -> array[int]:
    """Where the first numbers of tensors lie; 0 (null in C) for None."""
    return array("Q", [0 if t is None else t.data_ptr() for t in tensors])


def at(numbers: array[int]) -> int:
    """Where an array lies, which must outlive the use of it."""
    return numbers.buffer_info()[0]


class Team(NamedTuple):
    """How threads make calls that do not depend on each other: `gw_side_by_side`."""

    networks: int = 0  # of each call; 0: one, with no dimension for it in front of the tensors
    crews: int = 1  # of threads, one call each at a time; 1: all threads, one call after the other
    threads: int = 1


ALONE = Team()


def invoke(
    function: Any,
    numbers: list[int],
    tensors: Sequence[torch.Tensor | None],
    team: Team = ALONE,
) -> None:
    """Call a C function with its arguments and the thread pool, on each network's part of them."""
    if team.networks:
        _side_by_side([Job(function, numbers, tensors)], team)
        return
    n, p = array("q", numbers), addresses(tensors)
    function(at(n), at(p), parallel())


class Job(NamedTuple):
    """A call of a C function, to be made."""

    function: Any
    numbers: list[int]
    tensors: Sequence[torch.Tensor | None]


class _Call(ctypes.Structure):
    """`call` in runtime.c."""

    _fields_ = [
        ("kernel", ctypes.c_void_p),
        ("numbers", ctypes.c_void_p),
        ("steps", ctypes.c_void_p),
        ("base", ctypes.c_void_p),
        ("arguments", ctypes.c_long),
    ]


def _side_by_side(jobs: Sequence[Job], team: Team) -> None:
    calls, hold = (_Call * len(jobs))(), []
    for call, (function, numbers, tensors) in zip(calls, jobs, strict=True):
        apart = [0 if t is None else t.stride(0) * t.element_size() for t in tensors]
        n, steps, p = array("q", numbers), array("q", apart), addresses(tensors)
        hold += [n, steps, p]
        call.kernel = ctypes.cast(function, ctypes.c_void_p)
        call.numbers, call.steps, call.base = map(at, (n, steps, p))
        call.arguments = len(apart)
    networks, crews, threads = team
    if not runtime().gw_side_by_side(calls, len(jobs), max(1, networks), crews, threads):
        raise RuntimeError("a kernel of so many arguments cannot be called side by side")


Works = Generator[Job, None, R]  # what is to be called on the way to a result


def together(works: Sequence[Works[R]], team: Team) -> list[R]:
    """Work that yields its calls: the first calls of all are made at once, then the second, ..."""
    results: dict[int, R] = {}
    while len(results) < len(works):
        jobs: list[Job] = []
        for k, work in enumerate(works):
            try:
                if k not in results:
                    jobs.append(next(work))
            except StopIteration as end:
                results[k] = end.value
        if len(jobs) > 1 and team.crews > 1:
            _side_by_side(jobs, team)
        else:
            for job in jobs:
                invoke(*job, team)
    return [results[k] for k in range(len(works))]


_kernels: dict[tuple[object, ...], Kernel | str] = {}


def kernel(
    trace: Trace,
    dtype: torch.dtype,
    training: bool,
    record: tuple[str, ...] = (),
    zoneout: tuple[str, ...] = (),
    cut: frozenset[str] = frozenset(),
    sometimes: bool = False,
    masked: bool = False,
    projected: bool = False,
    held: str = "full",
) -> Kernel | str:
    """The kernel, or why there is none; the arguments are those of `KernelSpec`."""
    key = (trace, dtype, training, record, zoneout, cut, sometimes, masked, projected, held)
    found = _kernels.get(key)
    if found is None:
        try:
            found = build(KernelSpec(*key))
        except toolchain.NoCompilerError as error:
            toolchain.warn_no_compiler(str(error))
            found = str(error)
        except ValueError as error:  # a function or power the kernel language lacks
            found = str(error)
        _kernels[key] = found
    return found


@functools.cache
def _code() -> tuple[str, ...]:
    """The text of everything that turns a trace into C."""
    modules = (f"gatewise.{name}".rpartition(".") for name in _GENERATORS)
    generators = ((files(p) / f"{name}.py").read_text("utf-8") for p, _, name in modules)
    return (*(c_text(name) for name in _SOURCES), *generators)


def _fingerprint(spec: KernelSpec) -> str:
    """Everything the generated source depends on, had without deriving it."""
    trace = spec.trace
    parts = [str(spec.dtype), str(spec.training), str(spec.record), str(spec.zoneout)]
    flags = (spec.sometimes, spec.masked, spec.projected)
    parts += [str(sorted(spec.cut)), str(flags), spec.held]
    parts += [str(trace.accumulators), str(trace.states), str(trace.feedback)]
    parts += [str(trace.parameters)]
    written = [*trace.new_states.values(), *(trace.signals[r] for r in spec.record)]
    parts += [*trace.late_sources, *_written([*written, *trace.late_sources.values()])]
    return "\0".join([*parts, *_code()])


def _written(exprs: list[sympy.Expr]) -> list[str]:
    """Expressions as text that tells any two apart: each part once, by the places of its own."""
    places: dict[sympy.Expr, int] = {}
    lines = []
    for e in subexpressions(exprs):
        places[e] = len(places)
        inner = [places[a] for a in e.args]
        lines.append(f"{type(e).__name__} {inner}" if inner else sympy.srepr(e))
    return [*lines, str([places[e] for e in exprs])]


def build(spec: KernelSpec) -> Kernel:
    """Load the library of `spec`, compiled if need be.

    Raises NoCompilerError, or ValueError where the cell has no kernel.
    """
    lib = toolchain.library(_fingerprint(spec), lambda: source(spec))
    for name in (
        "gw_lanes",
        "gw_group",
        "gw_head",
        "gw_native",
        "gw_width",
        "gw_means",
        "gw_collected",
    ):
        getattr(lib, name).restype = ctypes.c_int64
    pointers = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    for name in ("gw_forward", "gw_backward", "gw_pack", "gw_unpack"):
        if hasattr(lib, name):
            getattr(lib, name).argtypes = pointers
            getattr(lib, name).restype = None
    lib.gw_history.argtypes = [ctypes.c_int64]
    lib.gw_history.restype = ctypes.c_int64
    return Kernel(
        lanes=lib.gw_lanes(),
        gates=len(spec.trace.gates),
        accumulators=spec.accumulators,
        late=spec.late,
        width=lib.gw_width(),
        group=lib.gw_group(),
        head=lib.gw_head(),
        native=bool(lib.gw_native()),
        means=lib.gw_means(),
        collected=lib.gw_collected(),
        history=tuple(bool(lib.gw_history(k)) for k in range(len(spec.trace.states))),
        forward=lib.gw_forward,
        backward=lib.gw_backward if spec.training else None,
        pack=lib.gw_pack,
        unpack=lib.gw_unpack if spec.training else None,
    )
