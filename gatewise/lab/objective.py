"""What a network is asked: a task's inputs as numbers, its loss and its errors.

Shapes: T = time, B = batch, I = input size, O = outputs.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch.nn.functional import cross_entropy, one_hot

from gatewise.executors.lanes import Sequences


class Source(Protocol):
    """A task of `gatewise.tasks`, whether drawn in C or by PyTorch."""

    @property
    def name(self) -> str: ...
    @property
    def inputs(self) -> int: ...
    @property
    def outputs(self) -> int: ...
    @property
    def symbols(self) -> bool: ...
    @property
    def target_symbols(self) -> bool: ...
    @property
    def every_step(self) -> bool: ...

    def sequences(
        self, count: int, seed: int = 0, stream: int = 0, first: int = 0, purpose: int = 0
    ) -> Sequences:
        """Sequences number first … first+count-1."""
        ...


def numbers(task: Source, given: Sequences) -> torch.Tensor:
    """The inputs as numbers [T, B, I]: symbols one-hot."""
    return one_hot(given.x, task.inputs).float() if task.symbols else given.x


def loss_and_errors(
    task: Source, output: torch.Tensor, given: Sequences
) -> tuple[torch.Tensor, torch.Tensor]:
    """What is minimised, and every |t_k - y_k|: softmax for classes, linear for numbers.

    Args:
        output: [B, O], or [T, B, O] for a target at every step.

    Returns:
        The mean loss over all that is asked, and errors [B, O]; those of a task with a target at
        every step are each sequence's largest, [B, 1]. Steps that do not exist, or ask nothing,
        count in neither.
    """
    target = given.target
    if task.target_symbols:
        asked = target >= 0
        wanted = one_hot(target.clamp(min=0), task.outputs).to(output.dtype)
        errors = (wanted - output.detach().softmax(-1)).abs()
    else:
        asked = ~target.isnan().any(-1)
        errors = (target - output.detach()).abs()
    if not task.every_step:
        return _loss(task, output, target), errors
    asked &= torch.arange(len(target)).unsqueeze(1) < given.lengths
    worst = torch.where(asked, errors.amax(-1), 0.0).amax(0)  # [B]
    return _loss(task, output[asked], target[asked]), worst.unsqueeze(1)


def _loss(task: Source, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    if task.target_symbols:
        return cross_entropy(output, target)
    return (output - target).square().mean()
