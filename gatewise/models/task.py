"""What the one training loop, the checkpoints and the command line need of a kind of model.

A kind of model is two classes in its own files: a `Task` (its data, its loss, its figures while it
learns) and a `Predictor` (what is saved, and what it can do afterwards without the training data).
`gatewise/models/kinds.py` lists them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import nn

from gatewise.cells import REGISTRY
from gatewise.equations.cell import Cell
from gatewise.models.settings import Settings

Options = TypeVar("Options")
M = TypeVar("M", bound=nn.Module)
P = TypeVar("P", bound="Predictor[Any]")


@dataclass(frozen=True)
class Loss:
    """The loss of one batch, summed, with the number of things it is summed over.

    Apart, so that batches of unequal size, and parts of a batch in several processes, have
    their exact mean. The `penalty`, summed alike, is minimised too and is no part of any figure;
    `share` scales the learning rate, for a batch that is smaller than the usual one.
    """

    total: torch.Tensor
    count: int
    penalty: torch.Tensor | float = 0.0
    share: float = 1.0


@dataclass(frozen=True)
class Source:
    """Where a task's data is: what is learned from, and what is held out, where apart."""

    path: Path | None = None
    held_out: Path | None = None


class Predictor(ABC, Generic[M]):
    """A trained model with what it takes to read its input and to say its output."""

    model: M

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Everything but the numbers of the model."""

    @classmethod
    @abstractmethod
    def from_json(cls, data: Any, cell: Cell | None = None, executor: str = "auto") -> Predictor[M]:
        """The predictor that `to_json` described, untrained; ValueError or TypeError otherwise.

        `cell` is the cell itself, where its name alone would mean running a file.
        """

    @abstractmethod
    def predict(self, path: Path) -> Iterator[dict[str, Any]]:
        """What the model says of each piece of the file or folder `path`, ready for JSON."""

    @abstractmethod
    def evaluate(self, path: Path) -> dict[str, float]:
        """The task's figures on the data at `path`, which has the answers in it."""

    def picture(
        self, found: Mapping[str, Mapping[str, float]], data: Path, out: Path
    ) -> list[Path]:
        """Draw what `evaluate` gave for `data`, by the names of the models; the files written."""
        return []

    def go_on_from(self, carried: Mapping[str, torch.Tensor]) -> None:
        """Take what the task carried from step to step, where the model goes on with it."""

    def render(self, row: dict[str, Any]) -> str:
        """One of `predict`'s rows as a line for people."""
        return "\t".join(str(v) for v in row.values())


class Task(ABC, Generic[P]):
    """A model with its data: what one step computes, and how good the model is.

    The order of batches must be a function of the pass and the settings' seed, and everything
    drawn must come from torch's global generator: then a resumed run repeats the numbers of an
    unbroken one.
    """

    kind: ClassVar[str]
    summary: ClassVar[str]  # one line for people
    Options: ClassVar[type[Any]]  # a frozen dataclass: sizes, and how to read the data
    Predictor: ClassVar[type[Predictor[Any]]]
    defaults: ClassVar[dict[str, Any]] = {}  # of Settings, where this kind wants others
    items: ClassVar[str] = "examples"  # what the speed counts
    loss_name: ClassVar[str] = "loss"  # the score that the training loss is comparable with
    metric: str = "loss"  # the score that decides which checkpoint is the best
    larger_is_better: bool = False
    online: ClassVar[bool] = False  # `loss` has learned already: the latest model is the best

    name: str  # of the data
    fingerprint: str  # of the data: another one is not the same run
    predictor: P

    @classmethod
    @abstractmethod
    def begin(
        cls,
        source: Source,
        options: Any,
        settings: Settings,
        cell: Cell | None = None,
        executor: str = "auto",
    ) -> Task[P]:
        """Read the data and make the untrained model: the same arguments, the same task.

        Raises ValueError, TypeError or OSError for what cannot be trained.
        """

    @property
    def model(self) -> nn.Module:
        return self.predictor.model

    @abstractmethod
    def __len__(self) -> int:
        """Batches in one pass over the data."""

    @abstractmethod
    def loss(self, epoch: int, batch: int) -> Loss:
        """The loss of a batch of a pass; they are asked for in order."""

    @abstractmethod
    def score(self) -> dict[str, float]:
        """The figures on the held-out data, `metric` and `loss_name` among them."""

    @abstractmethod
    def about(self) -> str:
        """One line for people: how much data, how much held out."""

    def title(self) -> str:
        """The data and the model in few words, over a picture."""
        return self.name

    def loss_figure(self, mean: float) -> float:
        """The mean training loss in the unit of the score `loss_name`."""
        return mean

    def items_in(self, count: float) -> float:
        """How many `items` the count of a loss stands for."""
        return count

    def notes(self) -> Sequence[str]:
        """What people should know about the data: what was left out, and why."""
        return ()

    def carried(self) -> dict[str, torch.Tensor]:
        """What the next batch needs of the last one besides the model's numbers."""
        return {}

    def carry(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take back what `carried` gave."""
        if tensors:
            raise ValueError(f"the task {self.kind} carries nothing, got {', '.join(tensors)}")

    def pictures(self, out: Path) -> list[Path]:
        """Draw what this kind of model can show, of the best one; the files written."""
        return []


def options_from(kind: type[Options], given: dict[str, Any]) -> Options:
    """The options `given` as their dataclass; ValueError names one that it does not have."""
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    for name in given:
        if name not in known:
            raise ValueError(f"{name} is not an option here; allowed: {', '.join(known)}")
    return kind(**given)


def check_cell(options: Any, given: Cell | None) -> None:
    """ValueError where options from a file ask for a cell that is neither known nor `given`.

    A cell from a file of Python must be given again: its name runs nothing.
    """
    if hasattr(options, "cell"):
        named_cell(options.cell, given)


def named_cell(name: str, given: Cell | None) -> Cell | str:
    """The cell a saved model asks for: a file runs no code, so one from a file must be `given`.

    Raises ValueError where it is missing or another one. Cells with the same shapes of weights
    compute different things from them.
    """
    if given is None:
        if name in REGISTRY:
            return name
        raise ValueError(
            f"it was trained with the cell {name}; checkpoints run no code, "
            "so name it again with --cell FILE.py:CLASS"
        )
    if name in REGISTRY:
        same = repr(given) == repr(REGISTRY[name].make())
    else:  # a file may have moved; its class is asked for
        same = type(given).__name__ == name.rsplit(":", 1)[-1]
    if not same:
        raise ValueError(f"it was trained with the cell {name}, not with the one given")
    return given
