"""What several test files need: a random problem for any cell, and comparison by name.

Shapes: T = time, B = batch, I = input size, H = hidden units, R = fed-back values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from gatewise.cells import get_cell
from gatewise.equations import Cell, Layout, trace
from gatewise.executors import Request, Result, Zoneout

# The numerics contract, norm-wise relative to the float64 reference: float32 has 24 bits
# (6e-8); a step adds a handful of roundings, a gradient sums them over time and batch.
# float64 leaves the same number of roundings of 1.1e-16.
FORWARD = {torch.float32: 2e-6, torch.float64: 1e-13}
GRADIENT = {torch.float32: 1e-5, torch.float64: 1e-12}


def looseness(p: Problem) -> float:
    """How much more error than the contract's a cell may have in these tests.

    Normalising over the few units of a test divides by a spread that can be a tenth of the
    values themselves, in every step again; rounding errors grow by as much.
    """
    return 1.0 if p.layout.trace.pointwise or p.layout.trace.late_sources else 30.0


@dataclass(frozen=True)
class Problem:
    """Inputs and parameters of one layer direction, and what to ask of an executor."""

    layout: Layout
    x: torch.Tensor  # [T, B, I]
    state: dict[str, torch.Tensor]  # name -> [B, size of the state]
    parameters: dict[str, torch.Tensor]  # name -> Layout.shapes()[name]
    options: dict[str, Any] = field(default_factory=dict)  # fields of Request

    def cast(self, dtype: torch.dtype) -> Problem:
        def to(t: Any) -> Any:
            return t.to(dtype) if isinstance(t, torch.Tensor) and t.is_floating_point() else t

        return replace(
            self,
            x=to(self.x),
            state={n: to(t) for n, t in self.state.items()},
            parameters={n: to(t) for n, t in self.parameters.items()},
            options={n: to(t) for n, t in self.options.items()},
        )

    def with_options(self, **options: Any) -> Problem:
        return replace(self, options=self.options | options)

    def leaves(self) -> dict[str, torch.Tensor]:
        """Everything a gradient is taken by, under its name."""
        return {
            "x": self.x,
            **{f"state.{n}": t for n, t in self.state.items()},
            **self.parameters,
        }

    def request(self) -> Request:
        return Request(
            trace=self.layout.trace,
            weights=self.layout.weights(self.parameters),
            x=self.x,
            state={n: self.layout.expand_state(n, t) for n, t in self.state.items()},
            **self.options,
        )


def units_for(cell: Cell, hidden: int) -> int:
    """`hidden`, or the next size that whole memory blocks fill."""
    return -(-hidden // cell.block_size) * cell.block_size


def problem(
    cell: str | Cell,
    steps: int = 9,
    batch: int = 3,
    inputs: int = 5,
    hidden: int = 7,
    seed: int = 0,
    **layout: Any,
) -> Problem:
    """A random problem; its numbers are exact in float32, so every dtype sees the same ones."""
    cell = get_cell(cell)
    shape = Layout(trace(cell), inputs, units_for(cell, hidden), **layout)
    draw = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=draw, dtype=torch.float32).double()

    def parameter(name: str, size: tuple[int, ...]) -> torch.Tensor:
        scale = max(1, size[-1]) ** -0.5 if len(size) == 2 else 0.5
        start = cell.parameters.get(name, 0.0)
        return (start + scale * normal(*size)).float().double()

    # Half of a normal number: a saturated unit's slope 1 - tanh² is a difference of nearly equal
    # numbers, and a test of one such unit would measure that cancellation.
    return Problem(
        layout=shape,
        x=normal(steps, batch, inputs) / 2,
        state={s: normal(batch, shape.state_size(s)) / 2 for s in shape.trace.states},
        parameters={n: parameter(n, s) for n, s in shape.shapes().items()},
    )


def options(p: Problem, *names: str, seed: int = 1) -> Problem:
    """The problem with random values for the named options of a request."""
    steps, batch, _ = p.x.shape
    shape = p.layout
    draw = torch.Generator().manual_seed(seed)
    chosen: dict[str, Any] = {}
    if "lengths" in names:
        chosen["lengths"] = torch.randint(0, steps + 1, (batch,), generator=draw)
        if batch > 1:  # the extremes are where a kernel breaks
            chosen["lengths"][0], chosen["lengths"][-1] = steps, 0
    if "resets" in names:
        chosen["resets"] = torch.rand(steps, batch, generator=draw) < 0.3
        if batch and steps:
            chosen["resets"][0, 0] = True
    if "reverse" in names:
        chosen["reverse"] = True
    if "record" in names:
        chosen["record"] = tuple(shape.trace.signals)
    if "feedback_mask" in names:
        wide = shape.hidden_size * len(shape.trace.feedback)
        kept = torch.rand(batch, wide, generator=draw) < 0.75
        chosen["feedback_mask"] = kept.double() * 1.25
    for name in {"zoneout", "zoneout-eval"} & set(names):
        chosen["zoneout"] = Zoneout(
            {s: 0.125 * (k + 1) for k, s in enumerate(shape.trace.states)},
            training=name == "zoneout",
            seed=12345,
            stream=3,
            offset=7,
        )
    return p.with_options(**chosen)


def named(result: Result) -> dict[str, torch.Tensor]:
    """Everything a result holds, under its name."""
    return {
        "output": result.output,
        **{f"state.{n}": t for n, t in result.state.items()},
        **{f"record.{n}": t for n, t in result.record.items()},
    }


def run_with_gradients(
    p: Problem, run: Any, seed: int = 2
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Outputs, and the gradient of a random linear function of all of them, by name."""
    p = replace(
        p,
        x=p.x.detach().requires_grad_(),
        state={n: t.detach().requires_grad_() for n, t in p.state.items()},
        parameters={n: t.detach().requires_grad_() for n, t in p.parameters.items()},
    )
    outputs = named(run(p.request()))
    draw = torch.Generator().manual_seed(seed)
    loss = sum(
        ((torch.randn(t.shape, generator=draw).to(t.dtype) * t).sum() for t in outputs.values()),
        torch.zeros((), dtype=p.x.dtype),
    )
    leaves = p.leaves()
    gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return (
        {n: t.detach() for n, t in outputs.items()},
        {
            n: torch.zeros_like(leaf) if g is None else g
            for (n, leaf), g in zip(leaves.items(), gradients, strict=True)
        },
    )


def assert_close(
    actual: Mapping[str, torch.Tensor],
    expected: Mapping[str, torch.Tensor],
    tolerance: float,
    what: str = "",
) -> None:
    """Same names, same shapes, and a norm-wise relative error within `tolerance`, each.

    A tensor far smaller than its companions is what is left of larger numbers that cancel, and
    carries their rounding errors: its error is measured against a tenth of the largest norm.
    """
    assert list(actual) == list(expected)
    wrong = []
    floor = max((t.double().norm().item() for t in expected.values()), default=0.0) / 10
    for name, right in expected.items():
        got = actual[name].double()
        right = right.double()
        assert got.shape == right.shape, f"{what}{name}: {got.shape} for {right.shape}"
        error, size = (got - right).norm().item(), right.norm().item()
        if not error <= tolerance * max(size, floor):  # also where the error is NaN
            wrong.append(f"{what}{name}: error {error:.2e} at norm {size:.2e}")
    assert not wrong, "; ".join(wrong)
