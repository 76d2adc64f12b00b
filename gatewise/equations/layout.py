"""Which parameters a cell has at a given size, and how they look to an executor.

Shapes: I = input size, H = hidden units, G = gates, R = fed-back values, F = fed-back states.

A layer owns compact parameters: a gate shared by a block of S units has H/S rows, a fed-back
block-shared state has H/S columns. Executors see `Weights`, where every gate and state has H
units; the expansion is a gather, so autograd sums the gradients of a block by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from gatewise.equations.trace import Trace, subexpressions, symbol


@dataclass(frozen=True)
class Weights:
    """One direction of one layer, as executors take it; gates stacked in `trace.gates` order."""

    weight_ih: torch.Tensor  # [G*H, I]
    weight_hh: torch.Tensor  # [G*H, R], R = F*H (or the projection size)
    bias_ih: torch.Tensor | None  # [G*H]
    bias_hh: torch.Tensor | None  # [G*H]; None for a cell with one bias
    parameters: dict[str, torch.Tensor]  # name -> [H]
    projection: torch.Tensor | None = None  # [P, H]


@dataclass(frozen=True)
class Layout:
    """Parameter shapes of `trace.cell` with `hidden_size` units and `input_size` inputs."""

    trace: Trace
    input_size: int
    hidden_size: int
    proj_size: int = 0
    bias: bool = True

    def __post_init__(self) -> None:
        cell, block = self.trace.cell, self.trace.cell.block_size
        if self.hidden_size % block:
            raise ValueError(
                f"hidden_size must be a multiple of the block size {block}, got {self.hidden_size}"
            )
        if self.proj_size:
            output, used = self.trace.output, subexpressions(self.trace.signals.values())
            if self.trace.feedback != (output,) or symbol(f"{output}_prev") in used:
                raise ValueError(
                    f"proj_size needs a cell whose step does not use its own output state; "
                    f"{type(cell).__name__} does"
                )

    def gate_rows(self, gate: str) -> int:
        """Rows of W, U and the bias that belong to `gate`."""
        cell = self.trace.cell
        return self.hidden_size // (cell.block_size if gate in cell.shared else 1)

    def state_size(self, state: str) -> int:
        """How many numbers of `state` a row of the batch has, to the user."""
        cell = self.trace.cell
        if self.proj_size and state == self.trace.output:
            return self.proj_size
        return self.hidden_size // (cell.block_size if state in cell.shared else 1)

    @cached_property
    def biased(self) -> tuple[str, ...]:
        if not self.bias:
            return ()
        return tuple(g for g in self.trace.gates if g in self.trace.cell.gates_with_bias)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Parameter name -> shape, in torch's order and under torch's names."""
        rows = sum(self.gate_rows(g) for g in self.trace.gates)
        columns = sum(self.state_size(s) for s in self.trace.feedback)
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (rows, self.input_size),
            "weight_hh": (rows, columns),
        }
        if self.biased:
            size = (sum(self.gate_rows(g) for g in self.biased),)
            names = ("bias_ih", "bias_hh") if self.trace.cell.biases == 2 else ("bias",)
            shapes |= dict.fromkeys(names, size)
        if self.proj_size:
            shapes["weight_hr"] = (self.proj_size, self.hidden_size)
        return shapes | dict.fromkeys(self.trace.parameters, (self.hidden_size,))

    def bias_slice(self, gate: str) -> slice | None:
        """Where `gate` lies in a bias vector; None where it has no bias."""
        if gate not in self.biased:
            return None
        before = self.biased[: self.biased.index(gate)]
        start = sum(self.gate_rows(g) for g in before)
        return slice(start, start + self.gate_rows(gate))

    def weights(self, tensors: dict[str, torch.Tensor]) -> Weights:
        """The executor's view of the compact parameters `tensors`.

        Dimensions in front of their shapes, as replicas have, stay in front.
        """
        single = tensors.get("bias")
        return Weights(
            weight_ih=self._rows(tensors["weight_ih"], -2),
            weight_hh=self._columns(self._rows(tensors["weight_hh"], -2)),
            bias_ih=self._bias(single if single is not None else tensors.get("bias_ih")),
            bias_hh=self._bias(tensors.get("bias_hh")),
            parameters={p: tensors[p] for p in self.trace.parameters},
            projection=tensors.get("weight_hr"),
        )

    def _rows(self, t: torch.Tensor, dim: int) -> torch.Tensor:
        """Compact rows -> G*H along `dim`: a shared gate's row once per unit of its block."""
        cell, gates = self.trace.cell, self.trace.gates
        if cell.block_size == 1 or not any(g in cell.shared for g in gates):
            return t
        parts = t.split([self.gate_rows(g) for g in gates], dim)
        wide = [
            p.repeat_interleave(cell.block_size, dim) if g in cell.shared else p
            for g, p in zip(gates, parts, strict=True)
        ]
        return torch.cat(wide, dim)

    def _columns(self, t: torch.Tensor) -> torch.Tensor:
        """[..., G*H, compact columns] -> [..., G*H, F*H].

        A block's shared state is the same number in each of its units; only the first unit's
        column carries the weight.
        """
        cell, feedback = self.trace.cell, self.trace.feedback
        if cell.block_size == 1 or not any(s in cell.shared for s in feedback):
            return t
        parts = t.split([self.state_size(s) for s in feedback], -1)
        wide = []
        for s, p in zip(feedback, parts, strict=True):
            if s in cell.shared:
                rest = p.new_zeros(*p.shape, cell.block_size - 1)
                p = torch.cat([p.unsqueeze(-1), rest], -1).flatten(-2)
            wide.append(p)
        return torch.cat(wide, -1)

    def _bias(self, t: torch.Tensor | None) -> torch.Tensor | None:
        """[..., compact rows of biased gates] -> [..., G*H], zero where a gate has no bias."""
        if t is None:
            return None
        if self.biased == self.trace.gates:  # the usual case; a streamed step comes here too
            return self._rows(t, -1)
        sizes = [self.gate_rows(g) for g in self.biased]
        parts = dict(zip(self.biased, t.split(sizes, -1), strict=True))
        full = [
            parts[g] if g in parts else t.new_zeros(*t.shape[:-1], self.gate_rows(g))
            for g in self.trace.gates
        ]
        return self._rows(torch.cat(full, -1), -1)

    def expand_state(self, state: str, t: torch.Tensor) -> torch.Tensor:
        """[..., state_size] -> [..., H]."""
        if state in self.trace.cell.shared:
            return t.repeat_interleave(self.trace.cell.block_size, -1)
        return t

    def compact(self, name: str, t: torch.Tensor) -> torch.Tensor:
        """[..., H] -> [..., size to the user], for a state or a recorded signal."""
        return t[..., :: self.trace.cell.block_size] if name in self.trace.cell.shared else t
