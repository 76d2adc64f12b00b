"""A task: sequences drawn in C, the one definition that training and Python both use.

Why C: the lanes draw a sequence in well under the time a network needs for it, millions of times,
and a second definition in Python would have to be kept equal to the first. Python's view of a
task (`sequences`) calls the same compiled function, so without a compiler there are no tasks and
the error says so.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from gatewise.executors.counter import checked_seed
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
        inputs, outputs, symbols, every_step, target_symbols, judge_end, ranked: as in `Network`.
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
    ranked: bool = False

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
            TypeError, ValueError: a seed out of range, a negative count, stream or number.
            NoCompilerError: there is no C compiler.
        """
        drawn = _Draws(self, dtype, seed, stream, purpose)
        parts = [buffers.read(steps, n) for buffers, steps, n in drawn.batches(first, count)]
        longest = max((int(p.lengths.max()) for p in parts if len(p.lengths)), default=0)
        target = torch.cat([p.target for p in parts], 1 if self.every_step else 0)
        return Sequences(
            torch.cat([p.x for p in parts], 1)[:longest],
            torch.cat([p.lengths for p in parts]),
            target[:longest] if self.every_step else target,
        )

    def possible(
        self, count: int, seed: int = 0, stream: int = 0, first: int = 0, purpose: int = 0
    ) -> torch.Tensor:
        """Which outputs may be the largest at each step of the same `sequences`.

        Returns:
            int64 [T, B]: bit k is set where output k may be; 0 past a sequence's length.

        Raises:
            ValueError: the task is not ranked, or as `sequences`.
        """
        if not self.ranked:
            raise ValueError(f"possible needs a ranked task, {self.name} is none")
        drawn = _Draws(self, torch.float32, seed, stream, purpose)
        parts = [
            (buffers.aligned(buffers.allowed.to(torch.int64), steps, n), buffers.lengths(steps, n))
            for buffers, steps, n in drawn.batches(first, count)
        ]
        longest = max((int(n.max()) for _, n in parts if len(n)), default=0)
        return torch.cat([p for p, _ in parts], 1)[:longest]


class _Draws:
    """Sequences of one stream, as many at a time as there are lanes."""

    def __init__(self, task: Task, dtype: torch.dtype, seed: int, stream: int, purpose: int):
        seed = checked_seed(seed)
        for name, value in {"stream": stream, "purpose": purpose}.items():
            if value < 0:
                raise ValueError(f"{name} must be zero or positive, got {value}")
        self.lib = _library(task, dtype)
        self.lanes = self.lib.gw_lanes()
        self.parameters = doubles(task.parameters)
        self.seed, self.stream, self.purpose = seed, stream, purpose
        most = self.lib.gw_steps(self.parameters)
        self.buffers = Buffers(task, most, self.lanes, dtype)

    def batches(self, first: int, count: int) -> Iterator[tuple[Buffers, int, int]]:
        """The buffers after each call, their number of steps and of sequences; at least once."""
        for name, value in {"first": first, "count": count}.items():
            if value < 0:
                raise ValueError(f"{name} must be zero or positive, got {value}")
        if count == 0:
            yield self.buffers, 0, 0
        streams = (ctypes.c_uint32 * self.lanes)(*[self.stream] * self.lanes)
        for begin in range(first, first + count, self.lanes):
            numbers = (ctypes.c_uint32 * self.lanes)(*range(begin, begin + self.lanes))
            steps = self.lib.gw_draw(
                self.parameters,
                ctypes.c_int64(self.seed),
                ctypes.c_int64(self.purpose),
                streams,
                numbers,
                *(ctypes.c_void_p(p) for p in self.buffers.pointers()),
            )
            yield self.buffers, steps, min(self.lanes, first + count - begin)


class Buffers:
    """The arrays a task fills, one lane per sequence, aligned at the ends."""

    def __init__(self, shape: Any, most: int, lanes: int, dtype: torch.dtype) -> None:
        steps = most if shape.every_step else 1
        whole = torch.int32
        self.shape, self.most, self.lanes = shape, most, lanes
        self.start = torch.zeros(lanes, dtype=whole)
        self.x = torch.zeros(0 if shape.symbols else most, shape.inputs, lanes, dtype=dtype)
        self.symbol = torch.zeros(most if shape.symbols else 0, lanes, dtype=whole)
        rows = 0 if shape.target_symbols else steps
        self.target = torch.zeros(rows, shape.outputs, lanes, dtype=dtype)
        self.target_symbol = torch.zeros(steps if shape.target_symbols else 0, lanes, dtype=whole)
        self.allowed = torch.zeros(most if shape.ranked else 0, lanes, dtype=whole)
        self.words = torch.zeros(most + 4, lanes, dtype=whole)

    def pointers(self) -> list[int]:
        """start, x, symbol, target, target_symbol, allowed, words."""
        inputs, targets = (self.x, self.symbol), (self.target, self.target_symbol, self.allowed)
        return [t.data_ptr() for t in (self.start, *inputs, *targets, self.words)]

    def lengths(self, steps: int, count: int) -> torch.Tensor:
        """[B] of the first `count` lanes."""
        return steps - self.start[:count].to(torch.int64)

    def aligned(self, t: torch.Tensor, steps: int, count: int) -> torch.Tensor:
        """[T, ..., lanes] -> [T, B, ...], from each lane's own start and zero past its end."""
        time = torch.arange(self.most).unsqueeze(1)
        live = time < self.lengths(steps, count)  # [T, B]
        at = (time + self.start[:count]).clamp(max=max(self.most - 1, 0))
        t = t.movedim(-1, 1)[:, :count]
        ones = [1] * (t.dim() - 2)
        index = at.view(*at.shape, *ones).expand(self.most, count, *t.shape[2:])
        return torch.where(live.view(*live.shape, *ones), t.gather(0, index), 0)

    def read(self, steps: int, count: int) -> Sequences:
        """The first `count` lanes as sequences that begin at step 0."""
        shape, lengths = self.shape, self.lengths(steps, count)
        held = self.symbol.to(torch.int64) if shape.symbols else self.x
        x = self.aligned(held, steps, count)
        target = self.target_symbol.to(torch.int64) if shape.target_symbols else self.target
        if shape.every_step:
            return Sequences(x, lengths, self.aligned(target, steps, count))
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
