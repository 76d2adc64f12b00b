"""One step at a time: a stack of layers whose buffers are made once and used for every step.

The kernel is the one of whole sequences, called with T = 1; what a call would prepare anew
(packed weights, buffers, argument lists) is kept. Two sets of argument lists take turns: what
one step writes is what the next one reads.

Shapes: B = batch, I = input size, H = hidden units, P = H padded to whole vectors.
"""

from __future__ import annotations

import ctypes
import os
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gatewise.equations.cell import Cell
from gatewise.equations.layout import Weights
from gatewise.equations.trace import Trace, trace
from gatewise.executors.cpu.buffers import padded_units, per_unit
from gatewise.executors.cpu.kernel import Kernel, at, kernel, parallel, runtime
from gatewise.executors.cpu.packing import pack, unprojected


class Linear(Cell):
    """y = W x + b: a step that feeds nothing back, so that the kernel of cells runs a head too."""

    gates = ("y",)
    states = ("y",)
    feedback = ()

    def step(self, gate: Any, state: Any) -> dict[str, Any]:
        return {"y": gate.y}


_LINEAR = trace(Linear())
Part = tuple[Trace, Weights, str]  # a layer, and how its weights are held: executors/rounding.py


def linear(weight: torch.Tensor, bias: torch.Tensor | None) -> Part:
    """A linear map, weight [O, I] and bias [O], as a layer of a `CompiledStack`."""
    return _LINEAR, Weights(weight, weight.new_empty(len(weight), 0), bias, None, {}), "full"


def processors() -> int:
    """How many of the machine's processors this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not everywhere
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass
class _Layer:
    """One layer's kernel and the buffers it owns."""

    trace: Trace
    kernel: Kernel
    hidden: int
    output: int  # numbers of the first state: `hidden`, or what it is projected to
    padded: int
    weights: list[torch.Tensor | None]  # packed x, h, bias, per-unit parameters, packed late
    room: list[torch.Tensor]  # kept values and means of a step in phases
    states: list[list[torch.Tensor]]  # [parity][state]: [B, P]


class CompiledStack:
    """`layers` of (trace, weights, how these are held), run one step per call on `batch` rows.

    Raises ValueError where a layer has no kernel.
    """

    def __init__(
        self,
        layers: Sequence[Part],
        batch: int,
        dtype: torch.dtype,
        threads: int = 1,
    ) -> None:
        self.batch, self.dtype, self.threads = batch, dtype, threads
        self._layers = [self._make_layer(*part) for part in layers]
        self.inputs = layers[0][1].weight_ih.shape[1]
        last = self._layers[-1]
        self._outputs = [written[0][:, : last.output] for written in last.states]  # by parity
        self._parity = 0
        self.load(layers)

    def _make_layer(self, trace: Trace, weights: Weights, held: str) -> _Layer:
        projection = weights.projection
        projected = projection is not None
        made = kernel(trace, self.dtype, training=False, projected=projected, held=held)
        if isinstance(made, str):
            raise ValueError(made)
        hidden = weights.weight_ih.shape[0] // len(trace.gates)
        padded = padded_units(hidden, made)
        states = [
            [torch.zeros(self.batch, padded, dtype=self.dtype) for _ in trace.states]
            for _ in range(2)
        ]
        room = [
            torch.empty(self.batch, made.width * padded if made.collected else 0, dtype=self.dtype),
            torch.empty(self.batch, made.means, dtype=self.dtype),
        ]
        output = hidden if projection is None else len(projection)
        return _Layer(trace, made, hidden, output, padded, [], room, states)

    def load(self, layers: Sequence[Part]) -> None:
        """Pack the weights (again, after they changed)."""
        for layer, (_, weights, _) in zip(self._layers, layers, strict=True):
            packed = pack(layer.kernel, unprojected(weights), layer.padded, 1)
            own = per_unit(weights, layer.padded)
            layer.weights = [packed.x, packed.h, packed.bias, own, packed.late]
        self._bind()

    def _bind(self) -> None:
        """The chain's arguments at steps of either parity: kernels, and lists for each of them."""
        layers, entry = range(len(self._layers)), ctypes.c_void_p
        kernels = [ctypes.cast(lr.kernel.forward, entry).value or 0 for lr in self._layers]
        functions = array("Q", kernels)
        self._first: list[array[int]] = []  # the first layer's pointers: the input is set anew
        self._calls: list[tuple[int, ...]] = []
        self._hold = [functions]
        for parity in (0, 1):
            numbers = [self._numbers_of(k, parity) for k in layers]
            pointers = [self._pointers_of(k, parity) for k in layers]
            lists = [array("Q", map(at, numbers)), array("Q", map(at, pointers))]
            self._first.append(pointers[0])
            self._calls.append((len(layers), *map(at, (functions, *lists))))
            self._hold += [*numbers, *pointers, *lists]
        self._chain = runtime().gw_chain
        parallel()

    def _numbers_of(self, k: int, parity: int) -> array[int]:
        layer = self._layers[k]
        below = self._layers[k - 1] if k else None
        inputs = below.output if below else self.inputs
        stride = below.padded if below else self.inputs
        # One step has no direction in time; "reverse" makes every second one begin with the weights
        # that the one before read last, which are still in the second cache.
        numbers = [1, self.batch, inputs, layer.hidden, layer.padded, parity, self.threads]
        split = self.threads > 1 and not layer.kernel.collected  # phases stay with one thread
        numbers += [int(split), 0, stride, 0, layer.padded, *(0 for _ in layer.trace.states)]
        return array("q", numbers)

    def _pointers_of(self, k: int, parity: int) -> array[int]:
        """Arguments of layer k where this step writes the states of `parity`."""
        layer = self._layers[k]
        x = self._layers[k - 1].states[parity][0].data_ptr() if k else 0  # 0: set at each step
        wx, wh, bias, param, late = (0 if t is None else t.data_ptr() for t in layer.weights)
        kept, means = (t.data_ptr() for t in layer.room)
        none = [0] * len(layer.trace.states)
        first = [t.data_ptr() for t in layer.states[1 - parity]]
        state = [t.data_ptr() for t in layer.states[parity]]
        # resets, lengths, mask, zero and cut_steps are of no use in a single step
        pointers = [x, wx, wh, bias, param, kept, *[0] * 5, means, late]
        pointers += [*none, *first, *state, *none]
        return array("Q", pointers)

    def step(self, x: torch.Tensor) -> torch.Tensor:
        """x [B, I] (contiguous, of the stack's dtype) to the last layer's output [B, H]."""
        parity = self._parity
        self._first[parity][0] = x.data_ptr()
        self._chain(*self._calls[parity])
        self._parity = 1 - parity
        return self._outputs[parity].clone(memory_format=torch.contiguous_format)

    def states(self) -> list[dict[str, torch.Tensor]]:
        """The latest states of each layer, name -> [B, H]: views that the next steps change."""
        parity = 1 - self._parity
        return [
            {
                name: t[:, : layer.output if k == 0 else layer.hidden]
                for k, (name, t) in enumerate(
                    zip(layer.trace.states, layer.states[parity], strict=True)
                )
            }
            for layer in self._layers
        ]
