"""Derivatives carried forward in time: the 1997 rule, and RTRL of element-wise cells.

For every carried state s (an LSTM's c, a GRU's h), every pre-activation a and every source m
the unit keeps a trace S[s,a,m] = ∂s/∂w[a,m] along the uncut edges:

    S_new[s,a,m] = (∂s_new/∂a) y_m + Σ_q (∂s_new/∂q_prev) S[q,a,m],

and an error d at the output of a step gives the gradient

    dL/dw[a,m] += (∂L/∂a) y_m + Σ_s (∂L/∂s_prev) S[s,a,m],

both with the derivatives of the one step, taken from the cell's own backward program. y_m are
the sources as the step saw them: inputs, previous fed-back values, 1 for a bias. For the LSTM of
1997 these are equations 19-28 of the paper; with a forget gate the trace decays by f. Time and
memory per step are O(weights), whatever the length of the stream.

With every recurrent edge cut this is the 1997 rule: exactly backpropagation through time with
the recurrent inputs held constant. With no edge to cut but per-unit ones (feedback = ()) and none
of them cut, it is exact real-time recurrent learning.

Shapes: B rows, I inputs, H units, R = fed-back values, A = pre-activations of the step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from gatewise.equations import Layout, LocalPrograms, Trace, Weights, derive_local
from gatewise.equations.derive import check_cut


@dataclass
class _Step:
    """What the latest step left for an error that may follow."""

    values: dict[str, Any]  # inputs of the error program
    from_input: torch.Tensor  # [B, I]
    fed_back: torch.Tensor  # [B, R]
    before: dict[tuple[str, str], torch.Tensor]  # the traces before the step


@dataclass
class ForwardTraces:
    """One direction of one layer, run step by step with its traces.

    Args:
        layout: the layer's parameter shapes.
        cut: the edges that carry no gradient; all that remains must be element-wise.
        state: name -> [B, H], as the executors see it.

    Raises:
        ValueError: a cell of several passes, a projection, or a product with U left uncut.
    """

    layout: Layout
    cut: frozenset[str]
    state: dict[str, torch.Tensor]
    traces: dict[tuple[str, str], torch.Tensor] = field(default_factory=dict)
    # (carried state, "a_GATE x" [B, H, I] | "a_GATE h" [B, H, R] | "a_GATE" [B, H] for the bias
    #  | "p_PARAM" [B, H]); a missing trace is zero
    local: LocalPrograms = field(init=False, repr=False)
    _latest: _Step | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        trace = self.layout.trace
        check_traceable(self.layout, self.cut)
        self.local = derive_local(trace, self.cut)

    @torch.no_grad()
    def step(
        self,
        weights: Weights,
        x: torch.Tensor,
        fresh: torch.Tensor | None = None,
        live: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Advance by one step; the output state [B, H].

        Args:
            weights: the executor's view of the parameters now.
            x: [B, I].
            fresh: bool [B], rows whose state and traces start from zero before this step.
            live: bool [B], rows for which the step exists; the others stay as they are.
        """
        trace, local = self.layout.trace, self.local
        if fresh is not None:
            keep = (~fresh).to(x.dtype)
            self.state = {s: _by_row(keep, v) * v for s, v in self.state.items()}
            self.traces = {k: _by_row(keep, v) * v for k, v in self.traces.items()}
        values: dict[str, Any] = {f"{s}_prev": v for s, v in self.state.items()}
        values |= {f"p_{p}": v for p, v in weights.parameters.items()}
        fed_back = torch.cat([x.new_zeros(len(x), 0), *(self.state[s] for s in trace.feedback)], 1)
        values |= pre_activations(trace, weights, x, fed_back)
        out = local.forward.run(values)
        values |= {n: out[f"save_{n}"] for n in local.saved}
        values |= {v: out[f"new_{s}"] for v, s in local.kept_in_state.items()}
        like = self.state[trace.output]
        new = {s: whole(out[f"new_{s}"], like) for s in trace.states}
        self._latest = _Step(values, x, fed_back, self.traces)
        after = self._advance(values, x, fed_back)
        if live is not None:
            on = live.to(x.dtype)
            new = {s: torch.where(_by_row(live, v), v, self.state[s]) for s, v in new.items()}
            after = {
                k: _by_row(on, v) * v + (1 - _by_row(on, v)) * self.traces.get(k, 0.0)
                for k, v in after.items()
            }
        self.state, self.traces = new, after
        return new[trace.output]

    def _advance(
        self, values: dict[str, Any], x: torch.Tensor, fed_back: torch.Tensor
    ) -> dict[tuple[str, str], torch.Tensor]:
        local, like = self.local, self.state[self.layout.trace.output]
        slopes = {n: whole(v, like) for n, v in local.jacobian.run(values).items()}
        after: dict[tuple[str, str], torch.Tensor] = {}
        for s in local.carried:
            for leaf in local.traced[s]:
                now = slopes[f"j_{s}__{leaf}"]
                for key, part in _spread(self.layout.trace, leaf, now, x, fed_back):
                    for q in local.carries[s]:
                        old = self.traces.get((q, key))
                        if old is not None:
                            part = part + _as(slopes[f"j_{s}__{q}_prev"], old) * old
                    after[s, key] = part
        return after

    @torch.no_grad()
    def gradient(self, d_output: torch.Tensor) -> Weights:
        """The gradient of an error at the latest step, [B, H] by the output, summed over rows."""
        if self._latest is None:
            raise RuntimeError("gradient needs a step before it")
        step, trace, local = self._latest, self.layout.trace, self.local
        found = local.error.run(step.values | {f"d_new_{trace.output}": d_output})
        d = {n[2:]: whole(v, d_output) for n, v in found.items()}
        total: dict[str, torch.Tensor] = {}
        leaves = [a.name for a in trace.accumulators] + [f"p_{p}" for p in trace.parameters]
        for leaf in leaves:
            for key, part in _spread(trace, leaf, d[leaf], step.from_input, step.fed_back):
                for s in local.carried:
                    old = step.before.get((s, key))
                    if old is not None:
                        part = part + _as(d[f"{s}_prev"], old) * old
                total[key] = part.sum(0)
        return as_weights(self.layout, total)


def check_cell(layout: Layout) -> None:
    """Raise ValueError where derivatives cannot be carried forward for this cell."""
    trace, name = layout.trace, type(layout.trace.cell).__name__
    if not trace.pointwise:
        raise ValueError(f"traces need a cell of one pointwise pass over its units, got {name}")
    if layout.proj_size:
        raise ValueError(f"traces need a layer without projection, got {layout.proj_size}")


def check_traceable(layout: Layout, cut: frozenset[str]) -> None:
    """Raise ValueError where traces of size O(weights) do not exist for this cell and cut."""
    check_cell(layout)
    trace, name = layout.trace, type(layout.trace.cell).__name__
    check_cut(trace, cut)
    open_edges = [s for s in trace.feedback if s not in cut]
    if open_edges:
        raise ValueError(
            f"traces of one unit need every product with U cut; {name} keeps "
            + ", ".join(open_edges)
        )


def pre_activations(
    trace: Trace, weights: Weights, x: torch.Tensor, fed_back: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Every accumulator of one step, [B, H] by name."""
    linear = torch.nn.functional.linear
    from_x = linear(x, weights.weight_ih, weights.bias_ih).chunk(len(trace.gates), 1)
    from_h = linear(fed_back, weights.weight_hh, weights.bias_hh).chunk(len(trace.gates), 1)
    found = {}
    for a in trace.accumulators:
        k = trace.gates.index(a.gate)
        if a.from_input and a.from_feedback:
            found[a.name] = from_x[k] + from_h[k]
        else:
            found[a.name] = from_x[k] if a.from_input else from_h[k]
    return found


def _spread(
    trace: Trace, leaf: str, slope: torch.Tensor, x: torch.Tensor, fed_back: torch.Tensor
) -> list[tuple[str, torch.Tensor]]:
    """A derivative by one leaf [B, H] as derivatives by the weights that make it up."""
    parts = [(leaf, slope)]
    for a in trace.accumulators:
        if a.name == leaf:
            if a.from_input:
                parts.append((f"{leaf} x", slope.unsqueeze(-1) * x.unsqueeze(1)))
            if a.from_feedback:
                parts.append((f"{leaf} h", slope.unsqueeze(-1) * fed_back.unsqueeze(1)))
    return parts


def as_weights(layout: Layout, total: dict[str, torch.Tensor]) -> Weights:
    """Gradients by leaf ("a_GATE x", "a_GATE h", "a_GATE", "p_PARAM") as those of the weights."""
    trace = layout.trace
    accumulators = {g: [a for a in trace.accumulators if a.gate == g] for g in trace.gates}

    def stacked(side: str, suffix: str) -> torch.Tensor:
        names = [next(a.name for a in accumulators[g] if getattr(a, side)) for g in trace.gates]
        return torch.cat([total[n + suffix] for n in names])

    return Weights(
        weight_ih=stacked("from_input", " x"),
        weight_hh=stacked("from_feedback", " h"),
        bias_ih=stacked("from_input", ""),
        bias_hh=stacked("from_feedback", ""),
        parameters={p: total[f"p_{p}"] for p in trace.parameters},
    )


def compact_gradient(
    layout: Layout, tensors: dict[str, torch.Tensor], gradient: Weights
) -> dict[str, torch.Tensor]:
    """The gradient of the executor's weights as one of the layer's parameters `tensors`.

    The expansion of shared gates is a gather; its own derivative sums each block.
    """
    leaves = {n: t.detach().requires_grad_() for n, t in tensors.items()}
    with torch.enable_grad():
        wide = layout.weights(leaves)
    pairs = [
        (getattr(wide, n), getattr(gradient, n))
        for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        if getattr(wide, n) is not None
    ]
    pairs += [(wide.parameters[p], gradient.parameters[p]) for p in wide.parameters]
    found = torch.autograd.grad(
        [w for w, _ in pairs],
        list(leaves.values()),
        [g for _, g in pairs],
        materialize_grads=True,
    )
    return dict(zip(leaves, found, strict=True))


def _by_row(rows: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return rows.view(-1, *[1] * (like.dim() - 1))


def _as(slope: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return slope if like.dim() == slope.dim() else slope.unsqueeze(-1)


def whole(value: Any, like: torch.Tensor) -> torch.Tensor:
    """A program's output as a tensor of the units' shape; it may be a number."""
    if isinstance(value, torch.Tensor):
        return value.expand_as(like)
    return torch.full_like(like, float(value))
