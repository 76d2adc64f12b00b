"""A task: sequences drawn in C, the one definition that training and Python both use.

Why C: the lanes draw a sequence in well under the time a network needs for it, millions of times,
and a second definition in Python would have to be kept equal to the first. Python's view of a
task (`sequences`) calls the same compiled function, so without a compiler there are no tasks and
the error says so.
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from gatewise.executors.cpu import toolchain
from gatewise.executors.lanes import generate


class Sequences(NamedTuple):
    """Sequences of a batch, left-aligned; steps past a sequence's length are zero."""

    x: torch.Tensor  # [T, B, I], or int64 [T, B] symbols
    lengths: torch.Tensor  # [B] int64
    target: torch.Tensor  # [B, O], [T, B, O]; int64 [B], [T, B] for symbols


@dataclass(frozen=True)
class Task:
    """What a task's C file draws.

    Args:
        name: for messages and reports.
        code: the text of the C file; see source/sequence.h for what it must define.
        parameters: numbers its functions receive (lengths, lags, variances).
        inputs, outputs, symbols, every_step, target_symbols, judge_end: as in `Network`.
    """

    name: str
    code: str
    parameters: tuple[float, ...]
    inputs: int
    outputs: int
    symbols: bool = False
    every_step: bool = False
    target_symbols: bool = False
    judge_end: bool = False

    def sequences(
        self,
        count: int,
        seed: int = 0,
        stream: int = 0,
        first: int = 0,
        purpose: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> Sequences:
        """Sequences number first … first+count-1 of one stream.

        Training draws number n of network k as sequence n of stream k with purpose 0; other
        purposes (1: test) give sequences independent of those.

        Raises:
            ValueError: a negative count, seed, stream or number.
            NoCompilerError: there is no C compiler.
        """
        for name, value in {"count": count, "seed": seed, "stream": stream, "first": first}.items():
            if value < 0:
                raise ValueError(f"{name} must be zero or positive, got {value}")
        lib = _library(self, dtype)
        lanes = lib.gw_lanes()
        most = lib.gw_steps(doubles(self.parameters))
        buffers = Buffers(self, most, lanes, dtype)
        parts: list[Sequences] = []
        numbers = (ctypes.c_uint32 * lanes)()
        streams = (ctypes.c_uint32 * lanes)(*[stream] * lanes)
        for begin in range(first, first + count, lanes):
            numbers[:] = [begin + k for k in range(lanes)]
            steps = lib.gw_draw(
                doubles(self.parameters),
                ctypes.c_int64(seed),
                ctypes.c_int64(purpose),
                streams,
                numbers,
                *(ctypes.c_void_p(p) for p in buffers.pointers()),
            )
            parts.append(buffers.read(steps, min(lanes, first + count - begin), most))
        if not parts:
            parts.append(buffers.read(0, 0, most))
        longest = max((int(p.lengths.max()) for p in parts if len(p.lengths)), default=0)
        axis = 1 if self.every_step else 0
        target = torch.cat([p.target for p in parts], axis)
        return Sequences(
            torch.cat([p.x for p in parts], 1)[:longest],
            torch.cat([p.lengths for p in parts]),
            target[:longest] if self.every_step else target,
        )


class Buffers:
    """The arrays a task fills, one lane per sequence, aligned at the ends."""

    def __init__(self, shape: Any, most: int, lanes: int, dtype: torch.dtype) -> None:
        steps = most if shape.every_step else 1
        whole = torch.int32
        self.shape, self.lanes = shape, lanes
        self.start = torch.zeros(lanes, dtype=whole)
        self.x = torch.zeros(0 if shape.symbols else most, shape.inputs, lanes, dtype=dtype)
        self.symbol = torch.zeros(most if shape.symbols else 0, lanes, dtype=whole)
        rows = 0 if shape.target_symbols else steps
        self.target = torch.zeros(rows, shape.outputs, lanes, dtype=dtype)
        self.target_symbol = torch.zeros(steps if shape.target_symbols else 0, lanes, dtype=whole)
        self.words = torch.zeros(most + 4, lanes, dtype=whole)

    def pointers(self) -> list[int]:
        """start, x, symbol, target, target_symbol, words."""
        held = (self.start, self.x, self.symbol, self.target, self.target_symbol, self.words)
        return [t.data_ptr() for t in held]

    def read(self, steps: int, count: int, most: int) -> Sequences:
        """The first `count` lanes as sequences that begin at step 0, padded to `most`."""
        lengths = steps - self.start[:count].to(torch.int64)
        time = torch.arange(most).unsqueeze(1)
        live = time < lengths  # [T, B]
        at = (time + self.start[:count]).clamp(max=max(most - 1, 0))

        def aligned(t: torch.Tensor) -> torch.Tensor:
            """[T, ..., lanes] -> [T, B, ...], from each lane's own start."""
            t = t.movedim(-1, 1)[:, :count]
            index = at.view(*at.shape, *[1] * (t.dim() - 2)).expand(most, count, *t.shape[2:])
            mask = live.view(*live.shape, *[1] * (t.dim() - 2))
            return torch.where(mask, t.gather(0, index), 0)

        shape = self.shape
        x = aligned(self.symbol.to(torch.int64)) if shape.symbols else aligned(self.x)
        target = self.target_symbol.to(torch.int64) if shape.target_symbols else self.target
        if shape.every_step:
            return Sequences(x, lengths, aligned(target))
        return Sequences(x, lengths, target[0].movedim(-1, 0)[:count].clone())

    def write(self, given: Sequences, rows: range) -> int:
        """Put sequences in place of a task's, one of `rows` per lane; the number of steps."""
        lengths = given.lengths[rows.start : rows.stop]
        steps = int(lengths.max())
        self.start.fill_(steps)  # a lane without a sequence never begins
        for lane, (row, n) in enumerate(zip(rows, lengths.tolist(), strict=True)):
            begin = steps - n
            self.start[lane] = begin
            span = slice(begin, steps)
            if self.shape.symbols:
                self.symbol[:, lane] = 0
                self.symbol[span, lane] = given.x[:n, row].to(torch.int32)
            else:
                self.x[:, :, lane] = 0
                self.x[span, :, lane] = given.x[:n, row].to(self.x.dtype)
            into = self.target_symbol if self.shape.target_symbols else self.target
            if self.shape.every_step:
                into[span, ..., lane] = given.target[:n, row].to(into.dtype)
            else:
                into[0, ..., lane] = given.target[row].to(into.dtype)
        return steps


def doubles(values: tuple[float, ...]) -> Any:
    """A C array of the values; never empty, so that it has an address."""
    return (ctypes.c_double * max(1, len(values)))(*values)


def _library(task: Task, dtype: torch.dtype) -> Any:
    text = "\n".join(
        [
            generate.sequence_constants(task, dtype),
            generate.skeleton("gatewise.executors.cpu", "vector.h"),
            generate.skeleton("gatewise.executors.cpu", "philox.h"),
            generate.skeleton("gatewise.executors.lanes", "sequence.h"),
            task.code,
            generate.skeleton("gatewise.executors.lanes", "draw.c"),
        ]
    )
    return _loaded(text)


@functools.lru_cache(maxsize=256)  # finding the compiled file costs as much as 30 sequences
def _loaded(text: str) -> Any:
    lib = toolchain.library(text, lambda: text)
    lib.gw_lanes.restype = lib.gw_steps.restype = lib.gw_draw.restype = ctypes.c_int64
    return lib
