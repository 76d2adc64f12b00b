"""Learning rules: how a layer is differentiated, as an object handed to the training loop.

Every rule has one method, `learn`, a generator: it runs the layer, adds to the parameters' `.grad`
and hands over control wherever the rule allows the weights to change. So one loop serves them all:

    for part in rule.learn(layer, objective, x):
        optimizer.step()
        optimizer.zero_grad()

`objective(output, steps)` is the loss summed over those steps, for output [len(steps), B, O]; a
head and its parameters live inside it. All steps of all rules add up to the same loss; what
differs is which of its derivatives are kept.

Shapes: T = time, B = batch, I = input size, O = output size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch

from gatewise.equations import Trace, edges
from gatewise.executors import Request, Result, run
from gatewise.executors.counter import uniform
from gatewise.layers import Recurrent
from gatewise.learning.forward import Forward
from gatewise.learning.state import detached

Objective = Callable[[torch.Tensor, range], torch.Tensor]


class Part(NamedTuple):
    """What a rule did since it last handed over control."""

    loss: torch.Tensor  # of these steps, without a graph
    steps: range
    state: Any  # after the last of them, without a graph


class Rule(Protocol):
    """What a training loop needs of a rule."""

    def learn(
        self, layer: Recurrent, objective: Objective, input: torch.Tensor, state: Any = None
    ) -> Iterator[Part]:
        """Run `input` [T, B, I] from `state`; add gradients to `.grad`; yield when they are due.

        No gradient flows into the given state: it is carried over from an earlier part.
        """
        ...


class _Cut:
    """A rule that is backpropagation through the whole input along some of the edges."""

    def apply(self, request: Request, index: int) -> Request:
        """The request of the layer's direction number `index`, with edges cut."""
        raise NotImplementedError

    def run(
        self, layer: Recurrent, input: torch.Tensor, state: Any = None, **call: Any
    ) -> tuple[Any, ...]:
        """`layer(input, state, **call)`, differentiable by this rule."""
        counter = iter(range(layer.num_layers * layer.num_directions))

        def runner(request: Request) -> Result:
            return run(self.apply(request, next(counter)), layer.executor, layer.strict)

        return layer.run_with(runner, input, state, **call)

    def learn(
        self, layer: Recurrent, objective: Objective, input: torch.Tensor, state: Any = None
    ) -> Iterator[Part]:
        check_input(layer, input)
        output, new = self.run(layer, input, detached(state))
        loss = objective(output, range(len(input)))
        loss.backward()
        yield Part(loss.detach(), range(len(input)), detached(new))


@dataclass(frozen=True)
class BPTT(_Cut):
    """Full backpropagation through time: no edge is cut."""

    def apply(self, request: Request, index: int) -> Request:
        return request


@dataclass(frozen=True)
class Rule1997(_Cut):
    """The rule of the 1997 paper: the full gradient through the carousel, cut everywhere else.

    What reaches a gate or a candidate from the previous step counts as a constant: the products
    with U, and per-unit weights such as peepholes (as Gers, Schraudolph & Schmidhuber, 2002, extend
    the rule). Their weights learn; no error flows back through them. Backward then has no product
    with U at all. `OnlineLearner` runs the same rule forward in time, on a stream without end.

    Source: Hochreiter & Schmidhuber, 1997, appendix A.1.
    """

    def apply(self, request: Request, index: int) -> Request:
        return replace(request, cut=all_edges(request.trace))


@dataclass(frozen=True)
class HDetach(_Cut):
    """At each step, with probability p, no gradient flows through the products with U.

    h-detach (Kanuparthi et al., 2019, "h-detach: modifying the LSTM gradient towards better
    optimization"): the way through the carousel is left open always. One draw per step for the
    whole batch, from a counter: a pure function of seed, layer and step.

    Args:
        p: probability of the cut, in [0, 1]. 0 is BPTT.
        seed: what the steps are drawn from; take another one for every batch.
    """

    p: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise ValueError(f"p must be in [0, 1], got {self.p}")

    def apply(self, request: Request, index: int) -> Request:
        check_no_late_gate(request.trace)
        steps, batch, _ = request.x.shape
        drawn = uniform(self.seed, index, range(steps), 1, 1, request.x.device)[..., 0] < self.p
        cut_steps = drawn.expand(steps, batch)
        return replace(request, cut=frozenset(request.trace.feedback), cut_steps=cut_steps)


@dataclass(frozen=True)
class TruncatedBPTT:
    """Every k1 steps, backpropagation through the latest k2 steps (Williams & Peng, 1990).

    The state is carried over from what came before, without a gradient. Each step's loss counts
    once. With k1 = k2 every step is run once; with k2 = T the gradients add up to BPTT's.

    Args:
        k1: steps between two changes of the weights.
        k2: steps the gradient goes back; a multiple of k1.
    """

    k1: int
    k2: int

    def __post_init__(self) -> None:
        if self.k1 < 1:
            raise ValueError(f"k1 must be positive, got {self.k1}")
        if self.k2 < self.k1 or self.k2 % self.k1:
            raise ValueError(f"k2 must be a multiple of k1 = {self.k1}, got {self.k2}")

    def learn(
        self, layer: Recurrent, objective: Objective, input: torch.Tensor, state: Any = None
    ) -> Iterator[Part]:
        check_input(layer, input)
        before = [detached(state)]  # the states before the latest chunks of k1 steps
        for start in range(0, len(input), self.k1):
            stop = min(start + self.k1, len(input))
            first = max(start - (len(before) - 1) * self.k1, 0)
            output, new = layer(input[first:stop], before[0])
            loss = objective(output[start - first :], range(start, stop))
            loss.backward()
            if self.k1 == self.k2:
                after = detached(new)
            else:  # `new` has come a longer way, perhaps with other weights at its beginning
                with torch.no_grad():
                    after = detached(layer(input[start:stop], before[-1])[1])
            yield Part(loss.detach(), range(start, stop), after)
            before = [*before, after][-(self.k2 // self.k1) :]


@dataclass(frozen=True)
class RTRL:
    """Real-time recurrent learning: the exact gradient, carried forward (Williams & Zipser, 1989).

    Yields after every step. Exact while the weights stay as they are; a loop that changes them
    after every step learns from slightly stale derivatives, as every online rule does. Time per
    step is O(units² · weights), or O(weights) for cells without a recurrent matrix.

    Needs a single layer of one direction, without projection, dropout or zoneout.
    """

    def learn(
        self, layer: Recurrent, objective: Objective, input: torch.Tensor, state: Any = None
    ) -> Iterator[Part]:
        check_input(layer, input)
        run = Forward.exact(layer, input.shape[1], state)
        for t, x in enumerate(input):
            loss = run.learn(x, lambda h, t=t: objective(h.unsqueeze(0), range(t, t + 1)))
            yield Part(loss, range(t, t + 1), run.state)


def all_edges(trace: Trace) -> frozenset[str]:
    """Every recurrent edge of a cell for which cutting them all leaves something to learn."""
    check_no_late_gate(trace)
    return frozenset(edges(trace))


def check_no_late_gate(trace: Trace) -> None:
    """Raise ValueError where a cut would leave a gate without any gradient."""
    if trace.late_sources:
        late = ", ".join(n[2:] for n in trace.late_sources)
        raise ValueError(
            f"edges of {type(trace.cell).__name__} cannot be cut: what U multiplies for its gate "
            f"{late} is computed in the same step, and the gates in it would learn nothing"
        )


def check_input(layer: Recurrent, input: torch.Tensor) -> None:
    """Raise where `input` is not [T, B, I] with T > 0, time first."""
    if layer.batch_first:
        raise ValueError("layer must be time first to learn from, got batch_first=True")
    if input.dim() != 3 or not len(input):
        raise ValueError(f"input must be [T, B, I] with T > 0, got {tuple(input.shape)}")
