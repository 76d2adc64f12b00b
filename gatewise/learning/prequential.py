"""Prequential error: every prediction is scored before its truth is learnt from.

Shapes: N = steps of the stream, B = streams side by side, I = input size, O = output size.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch

from gatewise.learning.online import OnlineLearner


class Prequential(NamedTuple):
    """The loss of every step, [N]; NaN where there was no prediction."""

    online: torch.Tensor
    frozen: torch.Tensor  # of a copy that stopped learning at `freeze`


def prequential(
    learner: OnlineLearner, inputs: torch.Tensor, targets: torch.Tensor, freeze: int | None = None
) -> Prequential:
    """Run a learner over a stream, and beside it what it knew at step `freeze`.

    Args:
        learner: predicts and learns at every step.
        inputs: [N, B, I].
        targets: [N, B, O]: the truth about step t, revealed after its prediction.
        freeze: from this step on a copy predicts with the weights it has then, its state
            running on: the usual way of deploying a model. None: no copy.

    Raises:
        ValueError: inputs and targets of different lengths, or `freeze` outside the stream.
    """
    if len(inputs) != len(targets):
        raise ValueError(f"targets must have {len(inputs)} steps as inputs, got {len(targets)}")
    if freeze is not None and not 0 <= freeze <= len(inputs):
        raise ValueError(f"freeze must be in 0…{len(inputs)}, got {freeze}")
    online = torch.full((len(inputs),), torch.nan, dtype=torch.float64)
    frozen = online.clone()
    copied: OnlineLearner | None = None
    for t, (x, y) in enumerate(zip(inputs, targets, strict=True)):
        if t == freeze:
            copied = copy.deepcopy(learner)
        if copied is not None:
            frozen[t] = float(copied.loss(copied.predict(x), y))
        online[t] = learner.step(x, y)[1]
    return Prequential(online, frozen)
