"""What a network is asked: sequences of a task, inputs as numbers, the loss and the errors.

Shapes: T = time, B = batch, I = input size, O = outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch.nn.functional import cross_entropy, one_hot

from gatewise.executors.lanes import Sequences

_AT_ONCE = 64  # test sequences


@runtime_checkable
class Ranked(Protocol):
    """A task that can say which outputs may be the largest, and whether that is what counts."""

    @property
    def ranked(self) -> bool: ...

    def possible(
        self, count: int, seed: int = 0, stream: int = 0, first: int = 0, purpose: int = 0
    ) -> torch.Tensor:
        """int64 [T, B]: bit k is set where output k may be the largest."""
        ...


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


class Asked(NamedTuple):
    """Sequences of a task, and for a ranked one which outputs may be the largest."""

    x: torch.Tensor  # [T, B, I], or int64 [T, B] symbols
    lengths: torch.Tensor  # [B] int64
    target: torch.Tensor  # [B, O], [T, B, O]; int64 [B], [T, B] for symbols
    possible: torch.Tensor | None = None  # int64 [T, B]: bit k is set where output k may be


def draw(task: Source, count: int, seed: int, first: int = 0, purpose: int = 0) -> Asked:
    """Sequences number first … first+count-1 of a seed."""
    which = {"count": count, "seed": seed, "first": first, "purpose": purpose}
    possible = task.possible(**which) if isinstance(task, Ranked) and task.ranked else None
    return Asked(*task.sequences(**which), possible)


def part(task: Source, given: Asked, first: int, count: int) -> Asked:
    """Sequences first … first+count-1 of some, as long as the longest of these."""
    span = slice(first, first + count)
    steps = int(given.lengths[span].max())

    def stepwise(values: torch.Tensor) -> torch.Tensor:
        return values[:steps, span]

    target = stepwise(given.target) if task.every_step else given.target[span]
    possible = None if given.possible is None else stepwise(given.possible)
    return Asked(stepwise(given.x), given.lengths[span], target, possible)


def numbers(task: Source, given: Asked | Sequences) -> torch.Tensor:
    """The inputs as numbers [T, B, I]: symbols one-hot."""
    return one_hot(given.x, task.inputs).float() if task.symbols else given.x


def loss_and_errors(
    task: Source, output: torch.Tensor, given: Asked
) -> tuple[torch.Tensor, torch.Tensor]:
    """What is minimised, and every |t_k - y_k|: softmax for classes, linear for numbers.

    Args:
        output: [B, O], or [T, B, O] for a target at every step.

    Returns:
        The mean loss over all that is asked, and errors [B, O]; those of a task with a target at
        every step are each sequence's largest, [B, 1]. Steps that do not exist, or ask nothing,
        count in neither. A ranked task's error is above 1/2 where an output that may not be the
        largest is above one that may.
    """
    target = given.target
    if given.possible is not None:
        asked = target >= 0
        errors = _misranked(output.detach(), given.possible).unsqueeze(-1)
    elif task.target_symbols:
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


def tested(
    task: Source,
    answer: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    tolerance: float,
    count: int,
    seed: int,
) -> tuple[int, float]:
    """Wrong ones of `count` fresh sequences, and their mean |error|.

    Args:
        task: what is asked.
        answer: x [T, B, I] and lengths [B] to outputs, as `loss_and_errors` takes them.
        tolerance: largest |t - y| of a sequence that is right.
        count: sequences.
        seed: of the sequences.
    """
    wrong, total = 0, 0.0
    with torch.no_grad():
        for first in range(0, count, _AT_ONCE):
            given = draw(task, min(_AT_ONCE, count - first), seed, first, purpose=1)
            output = answer(numbers(task, given), given.lengths)
            errors = loss_and_errors(task, output, given)[1]
            wrong += int((~(errors.amax(1) <= tolerance)).sum())  # NaN is wrong
            total += float(errors.mean(1).sum())
    return wrong, total / count


def _misranked(output: torch.Tensor, possible: torch.Tensor) -> torch.Tensor:
    """[T, B]: below 1/2 where every possible output is above all others, above it where not."""
    probability = output.softmax(-1)
    may = (possible.unsqueeze(-1) >> torch.arange(output.shape[-1])) & 1 == 1
    least = torch.where(may, probability, 1.0).amin(-1)
    return (1 + torch.where(may, 0.0, probability).amax(-1) - least) / 2


def _loss(task: Source, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    if task.target_symbols:
        return cross_entropy(output, target)
    return (output - target).square().mean()
