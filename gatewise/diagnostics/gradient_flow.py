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

from gatewise.cells import REGISTRY, get_cell
from gatewise.equations import edges
from gatewise.executors import Request, Result, run
from gatewise.layers import Recurrent
from gatewise.layers.initialise import chrono

_BATCH = 32
CLIP = 1.0  # the usual bound on a gradient's norm
FORGET_BIASES = (-2.0, 0.0, 2.0, 5.0)
GAINS = (0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Flow:
    """One layer's gradient flow from the last step."""

    network: str
    stage: str  # "initial", "trained" or "edges cut"
    states: dict[str, list[float]]  # state -> norm at lag 1, 2, …, mean over rows
    weight_norm: float  # of the gradient by all parameters, mean loss over rows
    # What the recorded forget gates make of |∂loss/∂c| at lag 1: times ∏ f, unit by unit.
    forgotten: list[float] | None = None
    wrong: float | None = None  # share of fresh sequences recalled wrongly, after training
    updates: list[float] | None = None  # norms of the gradient while training, before clipping

    @property
    def label(self) -> str:
        return ", ".join(filter(None, (self.network, self.stage)))

    @property
    def clipped_norm(self) -> float:
        """The norm after clipping at 1, the usual cure of explosion; no cure of vanishing."""
        return min(self.weight_norm, CLIP)


def gradient_flow(
    layer: Recurrent,
    x: torch.Tensor,
    network: str = "",
    stage: str = "",
    cut: bool = False,
    seed: int = 0,
) -> Flow:
    """Gradients of a random direction of the last output, by every earlier state.

    Args:
        layer: a single layer of one direction, time first.
        x: [T, B, I], T > 1.
        network, stage: what to call it.
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
    record = ("forget",) if {"forget", "c"} <= {*signals} and "forget" not in names else ()
    seen: list[dict[str, torch.Tensor]] = []
    forget: list[torch.Tensor] = []
    state, output = None, x
    for step in x.split(1):
        output, state, *rest = layer.run_with(runner, step, state, record=record)
        tensors = state if isinstance(state, tuple) else (state,)
        values = dict(zip(layer.cell.states, tensors, strict=True))
        seen.append({n: values[n] for n in names})
        forget += [r["forget"].detach() for r in rest]
    loss = (output[-1] @ direction).mean()
    parameters = [p for p in layer.parameters() if p.requires_grad]
    wanted = [s[n] for s in seen[:-1] for n in names]
    found = torch.autograd.grad(loss, [*wanted, *parameters], allow_unused=True)
    rows = x.shape[1]  # the mean over rows made each row's derivative so much smaller
    norms = [0.0 if g is None else _row_norm(g) * rows for g in found[: len(wanted)]]
    by_state = {n: norms[k :: len(names)][::-1] for k, n in enumerate(names)}
    total = [g.square().sum() for g in found[len(wanted) :] if g is not None]
    forgotten = None
    nearest = found[len(wanted) - len(names) + names.index("c")] if record else None
    if nearest is not None:
        # Step t multiplies by its f on the way from c_t to c_{t-1}; lag 1 lies before step T.
        products = torch.stack(forget[1:-1][::-1]).cumprod(0) if len(x) > 2 else []
        forgotten = [_row_norm(nearest * p) * rows for p in (torch.ones_like(nearest), *products)]
    return Flow(network, stage, by_state, float(torch.stack(total).sum().sqrt()), forgotten)


def _row_norm(g: torch.Tensor) -> float:
    """Norm over units, mean over rows, of [1, B, H]."""
    return float(g.norm(dim=-1).mean())


# -- the study -----------------------------------------------------------------------------


def recall(steps: int, batch: int, draw: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Input [T, B, 2] whose first step shows ±1, then noise; the target is that first number."""
    first = torch.randint(0, 2, (batch,), generator=draw).double() * 2 - 1
    x = torch.zeros(steps, batch, 2, dtype=torch.float64)
    x[:, :, 0] = 0.2 * torch.randn(steps, batch, generator=draw, dtype=torch.float64)
    x[0, :, 0], x[0, :, 1] = first, 1.0
    return x, first


def cell_names(given: Iterable[str]) -> list[str]:
    """Registry names, hyphens may be left out (lstm1997), and FILE.py:CLASS as they are."""
    plain = {n.replace("-", ""): n for n in REGISTRY}
    found = []
    for name in given:
        if ".py:" in name:
            get_cell(name)  # what is wrong with it is said before any work
            found.append(name)
        elif name.replace("-", "") in plain:
            found.append(plain[name.replace("-", "")])
        else:
            raise ValueError(
                f"cells must be of {', '.join(REGISTRY)}, or FILE.py:CLASS, got {name!r}"
            )
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
    """The gradient flow of each cell: as it starts, with edges cut, after training to recall.

    After the cells: an LSTM with several forget biases, and a plain network with several
    recurrent gains, one of which explodes and is trained as well. A cell with gates that keep
    memory begins its training from the chrono initialisation for T steps: from torch's it does
    not learn to recall in so few updates.

    Args:
        cells: registry names or FILE.py:CLASS.
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
    for cell in cell_names(cells):
        layer = _layer(cell, hidden, seed)
        yield from _stages(layer, cell.rpartition(".py:")[2], steps, training, seed)
    for bias in FORGET_BIASES:
        layer = _layer("lstm", hidden, seed, init=["torch", f"forget_bias({bias})"])
        yield from _stages(layer, f"lstm, forget bias {bias:g}", steps, 0, seed)
    for gain in GAINS:
        layer = _layer("rnn", hidden, seed, init=["torch", f"orthogonal({gain})"])
        updates = training if gain == GAINS[-1] else 0
        yield from _stages(layer, f"rnn, gain {gain:g}", steps, updates, seed, cut=False)


def _stages(
    layer: Recurrent, network: str, steps: int, updates: int, seed: int, cut: bool = True
) -> Iterator[Flow]:
    """One network's flow, before and (where there are updates) after training."""
    x, _ = recall(steps, _BATCH, torch.Generator().manual_seed(seed))
    yield gradient_flow(layer, x, network, "initial")
    if cut and not next(iter(layer.directions)).layout.trace.late_sources:
        yield gradient_flow(layer, x, network, "edges cut", cut=True)
    if updates:
        _remember(layer, steps, seed)
        norms, wrong = _train(layer, steps, updates, seed)
        flow = gradient_flow(layer, x, network, "trained")
        yield replace(flow, updates=norms, wrong=wrong)


def _remember(layer: Recurrent, steps: int, seed: int) -> None:
    """Time scales up to all steps, for a cell that has gates for it."""
    if {*layer.cell.keeps} & {*layer.cell.gates_with_bias}:
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            chrono(layer, steps)


def _layer(cell: str, hidden: int, seed: int, **options: Any) -> Recurrent:
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        # float64: a vanished gradient is a small number there, not zero
        layer = Recurrent(cell, 2, hidden, dtype=torch.float64, **options)
    return layer


def _train(layer: Recurrent, steps: int, updates: int, seed: int) -> tuple[list[float], float]:
    """Train to recall; the gradient's norm at each update, and the share of wrong signs."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        head = nn.Linear(layer.output_size, 1, dtype=torch.float64)
    draw = torch.Generator().manual_seed(seed + 1)
    parameters = [*layer.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=5e-3)
    norms = []
    for _ in range(updates):
        x, target = recall(steps, _BATCH, draw)
        output, *_ = layer(x)
        loss = (head(output[-1])[:, 0] - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(nn.utils.clip_grad_norm_(parameters, CLIP)))
        optimizer.step()
    with torch.no_grad():
        x, target = recall(steps, 8 * _BATCH, draw)
        wrong = head(layer(x)[0][-1])[:, 0] * target <= 0
    return norms, float(wrong.double().mean())
