"""Real-time recurrent learning for cells with a recurrent matrix, exact and dense.

Every state carries its derivative by every weight, P[s,v,θ] = ∂s_v/∂θ (Williams & Zipser, 1989):

    P_new[s,v,θ] = Σ_a (∂s_v/∂a_v) (direct[a,v,θ] + Σ_{f,u} U[a,v;f,u] P[f,u,θ])
                 + Σ_q (∂s_v/∂q_v,prev) P[q,v,θ],

with the one step's own derivatives. O(H²·weights) time and O(H·weights) memory per step and row:
for small layers, and as the judge of cheaper rules.

Shapes: B rows, I inputs, H units, R = fed-back values, A = pre-activations, M = I + R + 1 sources.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from gatewise.equations import Layout, LocalPrograms, Weights, derive_local
from gatewise.learning.traces import as_weights, check_cell, pre_activations, whole


@dataclass
class DenseTraces:
    """One direction of one layer, run step by step with the derivatives of all its states.

    Args:
        layout: the layer's parameter shapes.
        state: name -> [B, H], as the executors see it.

    Raises:
        ValueError: a cell of several passes, or a projection.
    """

    layout: Layout
    state: dict[str, torch.Tensor]
    traces: dict[str, torch.Tensor] = field(default_factory=dict)
    # state -> [B, H, A·H·M + parameters·H]; a missing trace is zero
    local: LocalPrograms = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_cell(self.layout)
        trace = self.layout.trace
        self.local = derive_local(trace, also=trace.states)

    @torch.no_grad()
    def step(
        self, weights: Weights, x: torch.Tensor, fresh: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Advance by one step; the output state [B, H]. See `ForwardTraces.step`."""
        trace, local = self.layout.trace, self.local
        if fresh is not None:
            keep = (~fresh).to(x.dtype)
            self.state = {s: keep[:, None] * v for s, v in self.state.items()}
            self.traces = {s: keep[:, None, None] * v for s, v in self.traces.items()}
        like = self.state[trace.output]
        fed_back = torch.cat([x.new_zeros(len(x), 0), *(self.state[s] for s in trace.feedback)], 1)
        values: dict[str, Any] = {f"{s}_prev": v for s, v in self.state.items()}
        values |= {f"p_{p}": v for p, v in weights.parameters.items()}
        values |= pre_activations(trace, weights, x, fed_back)
        out = local.forward.run(values)
        values |= {n: out[f"save_{n}"] for n in local.saved}
        values |= {v: out[f"new_{s}"] for v, s in local.kept_in_state.items()}
        slopes = {n: whole(v, like) for n, v in local.jacobian.run(values).items()}
        self.traces = self._advance(weights, slopes, x, fed_back)
        self.state = {s: whole(out[f"new_{s}"], like) for s in trace.states}
        return self.state[trace.output]

    def _advance(
        self,
        weights: Weights,
        slopes: dict[str, torch.Tensor],
        x: torch.Tensor,
        fed_back: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        trace, accumulators = self.layout.trace, self.layout.trace.accumulators
        batch, hidden = len(x), self.layout.hidden_size
        sources = x.shape[1] + fed_back.shape[1] + 1
        size = (len(accumulators) * sources + len(trace.parameters)) * hidden
        through_u = self._through_u(weights)
        one = x.new_ones(batch, 1)
        after = {}
        for s in trace.states:
            total = x.new_zeros(batch, hidden, size)
            wide = total[..., : len(accumulators) * hidden * sources]
            wide = wide.view(batch, hidden, len(accumulators), hidden, sources)
            for k, a in enumerate(accumulators):
                slope = slopes[f"j_{s}__{a.name}"]
                y = torch.cat([x * a.from_input, fed_back * a.from_feedback, one], 1)
                own = wide[:, :, k].diagonal(dim1=1, dim2=2)  # [B, M, H]
                own += y.unsqueeze(2) * slope.unsqueeze(1)
                if a.name in through_u:
                    total += slope.unsqueeze(-1) * through_u[a.name]
            rest = total[..., len(accumulators) * hidden * sources :]
            rest = rest.view(batch, hidden, len(trace.parameters), hidden)
            for k, p in enumerate(trace.parameters):
                rest[:, :, k].diagonal(dim1=1, dim2=2).add_(slopes[f"j_{s}__p_{p}"])
            for q, old in self.traces.items():
                total += slopes[f"j_{s}__{q}_prev"].unsqueeze(-1) * old
            after[s] = total
        return after

    def _through_u(self, weights: Weights) -> dict[str, torch.Tensor]:
        """Accumulator -> U P [B, H, θ], where there is a past."""
        trace, hidden = self.layout.trace, self.layout.hidden_size
        if not self.traces or not trace.feedback:
            return {}
        past = torch.cat([self.traces[s] for s in trace.feedback], 1)  # [B, R, θ]
        found = {}
        for a in trace.accumulators:
            if a.from_feedback:
                k = trace.gates.index(a.gate)
                found[a.name] = weights.weight_hh[k * hidden : (k + 1) * hidden] @ past
        return found

    @torch.no_grad()
    def gradient(self, d_output: torch.Tensor) -> Weights:
        """The gradient of an error at the latest step, [B, H] by the output, summed over rows."""
        trace = self.layout.trace
        if not self.traces:
            raise RuntimeError("gradient needs a step before it")
        flat = torch.einsum("bh,bhp->p", d_output, self.traces[trace.output])
        hidden, inputs = self.layout.hidden_size, self.layout.input_size
        count = len(trace.accumulators)
        split = len(flat) - len(trace.parameters) * hidden
        wide = flat[:split].view(count, hidden, -1)
        total: dict[str, torch.Tensor] = {}
        for k, a in enumerate(trace.accumulators):
            total[f"{a.name} x"] = wide[k, :, :inputs]
            total[f"{a.name} h"] = wide[k, :, inputs:-1]
            total[a.name] = wide[k, :, -1]
        rest = flat[split:].view(-1, hidden)
        total |= {f"p_{p}": rest[k] for k, p in enumerate(trace.parameters)}
        return as_weights(self.layout, total)
