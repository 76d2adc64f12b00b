"""Learning while the stream runs: predict, then learn, in memory that does not grow.

Shapes: B = streams side by side, I = input size, O = output size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from gatewise.layers import Recurrent
from gatewise.learning.forward import Forward
from gatewise.learning.rules import RTRL, Rule1997, all_edges


class OnlineLearner:
    """A layer and its head on an endless stream: each step predicts first and then learns.

    Args:
        layer: a single layer of one direction, time first.
        head: from the layer's output [B, O] to a prediction.
        loss: (prediction, target) -> a scalar.
        optimizer: over the parameters of both; it takes a step after every target.
        rule: `Rule1997()` (O(weights) per step for every pointwise cell) or `RTRL()`
            (exact; O(weights) for cells without a recurrent matrix).
        batch: B.

    Raises:
        ValueError: a layer or rule whose derivatives cannot be carried forward.

    Weights change while derivatives travel: those of older steps were taken with older weights.
    That is what learning online means, and it is why the learning rate should be small.

    >>> import torch
    >>> import gatewise as gw
    >>> from gatewise.learning import OnlineLearner
    >>> layer, head = gw.LSTM(1, 8), torch.nn.Linear(8, 1)
    >>> optimizer = torch.optim.SGD([*layer.parameters(), *head.parameters()], lr=0.1)
    >>> learner = OnlineLearner(layer, head, torch.nn.functional.mse_loss, optimizer)
    >>> prediction = learner.predict(torch.zeros(1, 1))
    >>> loss = learner.learn(torch.ones(1, 1))
    """

    def __init__(
        self,
        layer: Recurrent,
        head: Callable[[torch.Tensor], torch.Tensor],
        loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        optimizer: torch.optim.Optimizer,
        rule: Rule1997 | RTRL | None = None,
        batch: int = 1,
    ) -> None:
        if batch < 1:
            raise ValueError(f"batch must be positive, got {batch}")
        rule = Rule1997() if rule is None else rule
        if isinstance(rule, RTRL):
            self._run = Forward.exact(layer, batch)
        elif isinstance(rule, Rule1997):
            [direction] = layer.directions if layer.num_layers == 1 else [None]
            cut = all_edges(direction.layout.trace) if direction else frozenset[str]()
            self._run = Forward.cut(layer, batch, cut)
        else:
            raise ValueError(f"rule must be Rule1997() or RTRL() to run online, got {rule!r}")
        self.layer, self.head, self.loss, self.optimizer = layer, head, loss, optimizer
        self._output: torch.Tensor | None = None
        self._prediction: torch.Tensor | None = None
        self.steps = 0  # predictions made so far

    def predict(self, x: torch.Tensor, fresh: torch.Tensor | None = None) -> torch.Tensor:
        """Take in x [B, I] and predict. Streams in `fresh` (bool [B]) begin anew."""
        self._output = self._run.step(x, fresh).clone().requires_grad_()
        self._prediction = self.head(self._output)
        self.steps += 1
        return self._prediction.detach()

    def learn(self, target: torch.Tensor) -> float:
        """Learn from the truth about the latest prediction; the loss it had.

        May be left out where a step has no target.
        """
        if self._prediction is None or self._output is None:
            raise RuntimeError("learn needs a prediction that has not been learnt from")
        loss = self.loss(self._prediction, target)
        self.optimizer.zero_grad()
        loss.backward()
        if self._output.grad is not None:
            self._run.backward(self._output.grad)
        self.optimizer.step()
        self._output = self._prediction = None
        return float(loss.detach())

    def step(self, x: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, float]:
        """`predict`, then `learn`: the prediction made before the target was seen, its loss."""
        prediction = self.predict(x)
        return prediction, self.learn(target)

    def state_dict(self) -> dict[str, Any]:
        """Everything between two steps: parameters, optimizer, state and traces."""
        head = self.head.state_dict() if isinstance(self.head, nn.Module) else {}
        return {
            "layer": self.layer.state_dict(),
            "head": head,
            "optimizer": self.optimizer.state_dict(),
            "stream": self._run.state_dict(),
            "steps": self.steps,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on from a `state_dict`, to the same numbers as if there had been no break."""
        self._run.load_state_dict(saved["stream"])
        self.layer.load_state_dict(saved["layer"])
        if isinstance(self.head, nn.Module):
            self.head.load_state_dict(saved["head"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.steps = saved["steps"]
        self._output = self._prediction = None
