"""A request as a function of its tensors: what it can be differentiated by, and doing so again.

An operation that keeps nothing, or too little, for the derivative that is asked of it runs its
request once more, on tensors with a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from gatewise.equations.layout import Weights
from gatewise.executors.request import Request, Result

Execute = Callable[[Request], Result]
Tensors = Sequence[torch.Tensor | None]


def inputs_of(request: Request) -> tuple[torch.Tensor | None, ...]:
    """Everything a gradient may be asked for: x, the weights, then the states."""
    w = request.weights
    return (
        request.x,
        w.weight_ih,
        w.weight_hh,
        w.bias_ih,
        w.bias_hh,
        w.projection,
        *w.parameters.values(),
        *(request.state[s] for s in request.trace.states),
    )


def with_inputs(request: Request, inputs: Tensors) -> Request:
    """`request` on the tensors `inputs`, in the order of `inputs_of`."""
    x, w_ih, w_hh, b_ih, b_hh, projection, *rest = inputs
    assert x is not None and w_ih is not None and w_hh is not None
    names = (*request.weights.parameters, *request.trace.states)
    values: dict[str, Any] = dict(zip(names, rest, strict=True))
    parameters = {p: values.pop(p) for p in request.weights.parameters}
    weights = Weights(w_ih, w_hh, b_ih, b_hh, parameters, projection)
    return replace(request, x=x, state=values, weights=weights)


def outputs_of(result: Result) -> tuple[torch.Tensor, ...]:
    """Everything a gradient may come from: the output, the states, the records."""
    return (result.output, *result.state.values(), *result.record.values())


def wants_gradient(request: Request) -> bool:
    """Will the request be differentiated?"""
    return torch.is_grad_enabled() and any(
        t is not None and t.requires_grad for t in inputs_of(request)
    )


def gradient(
    execute: Execute,
    request: Request,
    inputs: Tensors,
    needs: Sequence[bool],
    grads: Tensors,
    create_graph: bool,
) -> list[torch.Tensor | None]:
    """Run `request` on `inputs`; the gradient by those that `needs` marks, `grads` from above."""
    with torch.enable_grad():
        outputs = outputs_of(execute(with_inputs(request, inputs)))
    pairs = [
        (o, g) for o, g in zip(outputs, grads, strict=True) if g is not None and o.requires_grad
    ]
    wanted = [t for t, need in zip(inputs, needs, strict=True) if need and t is not None]
    if not pairs or not wanted:
        return [None] * len(needs)
    found = iter(
        torch.autograd.grad(
            [o for o, _ in pairs],
            wanted,
            [g for _, g in pairs],
            create_graph=create_graph,
            allow_unused=True,
        )
    )
    return [next(found) if need else None for need in needs]


def transformed(x: torch.Tensor) -> bool:
    """Is the call inside torch.func, or forward-mode differentiation?"""
    functorch = torch._C._functorch  # type: ignore[attr-defined]
    if functorch.maybe_get_level(x) != -1:
        return True
    if functorch.peek_interpreter_stack() is not None:
        return True
    return torch.autograd.forward_ad._current_level >= 0
