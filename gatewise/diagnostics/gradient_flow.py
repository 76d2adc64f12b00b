"""How far an error reaches back: |∂loss_T/∂h_t| and |∂loss_T/∂c_t| against the lag T - t.

The derivative by a state is the one by what the state hands to the next step: that of h_t counts
the ways through the products with U, that of c_t the carousel and peepholes.

Shapes: T = time, B = batch, I = input size, H = hidden units.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from gatewise.cells import REGISTRY
from gatewise.equations import edges
from gatewise.executors import Request, Result, run
from gatewise.layers import Recurrent
from gatewise.layers.initialise import orthogonal

_BATCH = 32
_CLIP = 1.0  # the usual bound on a gradient's norm


@dataclass(frozen=True)
class Flow:
    """One layer's gradient flow from the last step."""

    label: str
    states: dict[str, list[float]]  # state -> norm at lag 1, 2, …, mean over rows
    weight_norm: float  # of the gradient by all parameters, mean loss over rows
    kept: list[float] | None = None  # ∏ of the forget gate over so many lags, mean over units

    @property
    def clipped_norm(self) -> float:
        """The norm after clipping at 1, the usual cure of explosion; no cure of vanishing."""
        return min(self.weight_norm, _CLIP)


def gradient_flow(
    layer: Recurrent, x: torch.Tensor, label: str = "", cut: bool = False, seed: int = 0
) -> Flow:
    """Gradients of a random direction of the last output, by every earlier state.

    Args:
        layer: a single layer of one direction, time first.
        x: [T, B, I], T > 1.
        label: what to call it.
        cut: cut every recurrent edge, as the 1997 rule does.
        seed: of the direction, a unit vector: at lag 0 the norm by the output is 1.

    Raises:
        ValueError: another layer, or a single step.
    """
    if layer.num_layers != 1 or layer.bidirectional or layer.batch_first:
        raise ValueError("layer must be a single layer of one direction, time first")
    if x.dim() != 3 or len(x) < 2:
        raise ValueError(f"x must be [T, B, I] with T > 1, got {tuple(x.shape)}")
    draw = torch.Generator().manual_seed(seed)
    direction = torch.randn(layer.output_size, generator=draw).to(x)
    direction = direction / direction.norm()

    def runner(request: Request) -> Result:
        if cut:
            request = replace(request, cut=frozenset(edges(request.trace)))
        return run(request, "reference")  # one step at a time: nothing worth compiling

    names = [s for s in layer.cell.states if s not in layer.cell.gates]
    signals = next(iter(layer.directions)).layout.trace.signals
    record = [n for n in ("forget", "update") if n in signals]
    seen: list[dict[str, torch.Tensor]] = []
    kept: list[torch.Tensor] = []
    state, output = None, x
    for step in x.split(1):
        output, state, *rest = layer.run_with(runner, step, state, record=record)
        tensors = state if isinstance(state, tuple) else (state,)
        values = dict(zip(layer.cell.states, tensors, strict=True))
        seen.append({n: values[n] for n in names})
        if rest:
            kept.append(rest[0][record[0]].detach())
    loss = (output[-1] @ direction).mean()
    parameters = [p for p in layer.parameters() if p.requires_grad]
    wanted = [s[n] for s in seen[:-1] for n in names]
    found = torch.autograd.grad(loss, [*wanted, *parameters], allow_unused=True)
    norms = [0.0 if g is None else float(g.norm(dim=-1).mean()) * x.shape[1] for g in found]
    by_state = {n: list(reversed(norms[k : len(wanted) : len(names)])) for k, n in enumerate(names)}
    total = [g.square().sum() for g in found[len(wanted) :] if g is not None]
    return Flow(label, by_state, float(torch.stack(total).sum().sqrt()), _products(kept, record))


def _products(kept: list[torch.Tensor], record: Sequence[str]) -> list[float] | None:
    """∏ f over the last k steps, k = 1, 2, …; only for a cell with a forget gate."""
    if "forget" not in record:
        return None
    products = torch.stack(kept[1:]).flip(0).double().cumprod(0)
    return [float(p.mean()) for p in products]


# -- the study -----------------------------------------------------------------------------


def recall(steps: int, batch: int, draw: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Input [T, B, 2] whose first step shows ±1, then noise; the target is that first number."""
    first = torch.randint(0, 2, (batch,), generator=draw).double() * 2 - 1
    x = torch.zeros(steps, batch, 2, dtype=torch.float64)
    x[:, :, 0] = 0.2 * torch.randn(steps, batch, generator=draw, dtype=torch.float64)
    x[0, :, 0], x[0, :, 1] = first, 1.0
    return x, first


def cell_names(given: Iterable[str]) -> list[str]:
    """Registry names; hyphens may be left out (lstm1997)."""
    plain = {n.replace("-", ""): n for n in REGISTRY}
    found = []
    for name in given:
        if name.replace("-", "") not in plain:
            raise ValueError(f"cells must be of {', '.join(REGISTRY)}, got {name!r}")
        found.append(plain[name.replace("-", "")])
    if not found:
        raise ValueError("cells must name at least one cell, got none")
    return found


def study(
    cells: Sequence[str],
    steps: int = 200,
    hidden: int = 32,
    training: int = 200,
    seed: int = 0,
) -> Iterator[Flow]:
    """The gradient flow of each cell: as it starts, after training to recall, with edges cut.

    After the cells: an LSTM with several forget biases, and a plain network with several
    recurrent gains, one of which explodes.

    Args:
        cells: registry names.
        steps: T.
        hidden: H.
        training: updates by Adam on `recall`; 0 leaves training out.
        seed: of weights and data.
    """
    if steps < 2:
        raise ValueError(f"T must be at least 2, got {steps}")
    for name, value in {"hidden": hidden, "training": training}.items():
        if value < (name == "hidden"):
            raise ValueError(f"{name} must be positive, got {value}")
    x, _ = recall(steps, _BATCH, torch.Generator().manual_seed(seed))
    for cell in cell_names(cells):
        layer = _layer(cell, hidden, seed)
        yield gradient_flow(layer, x, f"{cell}, initial")
        traced = next(iter(layer.directions)).layout.trace
        if not traced.late_sources:
            yield gradient_flow(layer, x, f"{cell}, edges cut", cut=True)
        if training:
            _train(layer, steps, training, seed)
            yield gradient_flow(layer, x, f"{cell}, trained")
    for bias in (-2.0, 0.0, 2.0, 5.0):
        layer = _layer("lstm", hidden, seed, init=["torch", f"forget_bias({bias})"])
        yield gradient_flow(layer, x, f"lstm, forget bias {bias:g}")
    for gain in (0.5, 1.0, 2.0):
        layer = _layer("rnn", hidden, seed)
        orthogonal(layer, gain)
        yield gradient_flow(layer, x, f"rnn, gain {gain:g}")


def _layer(cell: str, hidden: int, seed: int, **options: Any) -> Recurrent:
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        # float64: a vanished gradient is a small number there, not zero
        layer = Recurrent(cell, 2, hidden, dtype=torch.float64, **options)
    return layer


def _train(layer: Recurrent, steps: int, updates: int, seed: int) -> None:
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        head = nn.Linear(layer.output_size, 1, dtype=torch.float64)
    draw = torch.Generator().manual_seed(seed + 1)
    parameters = [*layer.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=5e-3)
    for _ in range(updates):
        x, target = recall(steps, _BATCH, draw)
        output, *_ = layer(x)
        loss = (head(output[-1])[:, 0] - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, _CLIP)
        optimizer.step()
