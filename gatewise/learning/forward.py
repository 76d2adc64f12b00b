"""A layer run one step at a time, with derivatives that travel along.

Shapes: B = batch, I = input size, O = output size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from gatewise.equations import Layout
from gatewise.layers import Recurrent, make_state
from gatewise.learning.rtrl import DenseTraces
from gatewise.learning.traces import ForwardTraces, compact_gradient


class Forward:
    """One layer of one direction, with traces, whose parameters' `.grad` it adds to.

    Make it with `exact` (RTRL) or `cut` (the 1997 rule).
    """

    def __init__(self, layer: Recurrent, traces: ForwardTraces | DenseTraces) -> None:
        self.layer, self.traces = layer, traces
        [self._direction] = layer.directions

    @classmethod
    def exact(cls, layer: Recurrent, batch: int, state: Any = None) -> Forward:
        """The whole gradient; cheap for cells whose recurrence is element-wise."""
        layout, first = _start(layer, batch, state)
        if layout.trace.feedback:
            return cls(layer, DenseTraces(layout, first))
        return cls(layer, ForwardTraces(layout, frozenset(), first))

    @classmethod
    def cut(cls, layer: Recurrent, batch: int, cut: frozenset[str], state: Any = None) -> Forward:
        """The gradient along the edges that are not in `cut`."""
        layout, first = _start(layer, batch, state)
        return cls(layer, ForwardTraces(layout, cut, first))

    def step(self, x: torch.Tensor, fresh: torch.Tensor | None = None) -> torch.Tensor:
        """Advance by x [B, I]; the output [B, O]. Rows in `fresh` start from zero."""
        tensors = self.layer.weights_of(self._direction)
        with torch.no_grad():
            weights = self._direction.layout.weights(tensors)
        return self.traces.step(weights, x.detach(), fresh)

    def backward(self, d_output: torch.Tensor) -> None:
        """Add to `.grad` what an error [B, O] at the latest output means for the parameters."""
        layout = self._direction.layout
        tensors = self.layer.weights_of(self._direction)
        found = compact_gradient(layout, tensors, self.traces.gradient(d_output))
        for name, parameter in tensors.items():
            if not parameter.requires_grad:
                continue
            g = found[name]
            parameter.grad = g if parameter.grad is None else parameter.grad + g

    def learn(
        self,
        x: torch.Tensor,
        objective: Callable[[torch.Tensor], torch.Tensor],
        fresh: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """One step and the gradient of its loss `objective(output [B, O])`; the loss."""
        output = self.step(x, fresh).clone().requires_grad_()
        loss = objective(output)
        if loss.requires_grad:  # a step without a target has a constant loss
            loss.backward()
        if output.grad is not None:
            self.backward(output.grad)
        return loss.detach()

    @property
    def state(self) -> Any:
        """The state now, as the layer returns it."""
        layout = self._direction.layout
        found = [layout.compact(s, v).unsqueeze(0) for s, v in self.traces.state.items()]
        return found[0] if len(found) == 1 else make_state(layout.trace.states, found)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """State and traces; `load_state_dict` continues from them to the same numbers."""
        found = {f"state.{s}": v for s, v in self.traces.state.items()}
        for key, v in self.traces.traces.items():
            found["trace." + ("/".join(key) if isinstance(key, tuple) else key)] = v
        return {n: v.clone() for n, v in found.items()}

    def load_state_dict(self, saved: dict[str, torch.Tensor]) -> None:
        """See `state_dict`."""
        own = {f"state.{s}": v for s, v in self.traces.state.items()}
        for name, v in own.items():
            if name not in saved or saved[name].shape != v.shape:
                given = tuple(saved[name].shape) if name in saved else "nothing"
                raise ValueError(f"{name} must have shape {tuple(v.shape)}, got {given}")
        traces: dict[Any, torch.Tensor] = {}
        for name, v in saved.items():
            kind, _, rest = name.partition(".")
            if kind == "trace":
                traces[tuple(rest.split("/")) if "/" in rest else rest] = v.clone()
        self.traces.state = {s: saved[f"state.{s}"].clone() for s in self.traces.state}
        self.traces.traces = traces


def _start(layer: Recurrent, batch: int, state: Any) -> tuple[Layout, dict[str, torch.Tensor]]:
    """The layer's layout and its first states, as the executors see them."""
    if layer.num_layers != 1 or layer.bidirectional:
        raise ValueError(
            "derivatives are carried forward through a single layer of one direction, got "
            f"num_layers={layer.num_layers}, bidirectional={layer.bidirectional}"
        )
    dropped = layer.recurrent_dropout or layer.input_dropout or layer.weight_dropout
    if layer.training and (layer.zoneout or dropped):
        raise ValueError("derivatives are carried forward without dropout and zoneout")
    if layer.weights != "full":
        raise ValueError(
            f"derivatives are carried forward with weights='full', got {layer.weights!r}"
        )
    [direction] = layer.directions
    layout, like = direction.layout, layer.weights_of(direction)["weight_ih"]
    given: dict[str, torch.Tensor] = {}
    if state is not None:
        parts = [state] if isinstance(state, torch.Tensor) else list(state)
        names = getattr(state, "_fields", layout.trace.states)
        given = {s: v[0].detach() for s, v in zip(names, parts, strict=True)}
    return layout, {
        s: layout.expand_state(s, given[s]).clone()
        if s in given
        else like.new_zeros(batch, layout.hidden_size)
        for s in layout.trace.states
    }
