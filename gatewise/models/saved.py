"""A trained model from its folder, in a later process; nothing in a file is ever executed."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gatewise.equations.cell import Cell
from gatewise.models.checkpoint import Checkpoint, CheckpointError, load_checkpoint
from gatewise.models.kinds import KINDS, find_kind
from gatewise.models.settings import Settings
from gatewise.models.task import Predictor


@dataclass(frozen=True)
class Saved:
    """A trained model, in evaluation mode, with the checkpoint it was read from."""

    kind: str
    predictor: Predictor[Any]
    checkpoint: Checkpoint


def load(
    directory: str | Path,
    which: str = "best",
    cell: Cell | None = None,
    executor: str = "auto",
    kind: str | None = None,
) -> Saved:
    """The model that `gatewise train --out directory` left there.

    Args:
        directory: the folder of a run.
        which: "best" or "latest".
        cell: the cell itself, for a model trained with a cell from a file.
        executor: as for `gatewise.Recurrent`.
        kind: the kind of model that is wanted, where another one is of no use.

    Raises CheckpointError where there is none, it is damaged or of another kind, or it was
    trained with a cell from a file and `cell` is not given: a checkpoint runs no code.
    """
    checkpoint = load_checkpoint(directory, which)
    record, path = checkpoint.record, checkpoint.path
    found = record.get("kind")
    if not isinstance(found, str) or found not in KINDS:
        raise CheckpointError(f"{path} is damaged: no task is called {found!r:.60}")
    if kind is not None and found != kind:
        raise CheckpointError(f"{directory} holds a model for the task {found}, not for {kind}")
    described = record.get("model")
    read = find_kind(found).Predictor.from_json
    try:
        # Built without memory first: a damaged size must not ask for terabytes.
        with torch.device("meta"):
            hollow = read(described, cell, "reference")
        _check_shapes(hollow.model, checkpoint)
        predictor = read(described, cell, executor)
    except CheckpointError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{path} cannot be used: {error}") from None
    load_tensors(predictor.model, checkpoint)
    try:
        predictor.go_on_from(checkpoint.carried)
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{path} cannot be used: {error}") from None
    predictor.model.eval()
    return Saved(found, predictor, checkpoint)


def load_settings(record: dict[str, Any]) -> Settings:
    """The settings in a checkpoint's record; CheckpointError where they are damaged."""
    data = record.get("settings")
    try:
        if not isinstance(data, dict) or set(data) != {f.name for f in fields(Settings)}:
            raise ValueError("the settings are incomplete")
        return Settings(**data)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the checkpoint is damaged: {error}") from None


def numbers_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers to keep, by name, shared ones once."""
    kept = model.state_dict().keys()
    buffers = {n: b for n, b in model.named_buffers() if n in kept}
    return {**dict(model.named_parameters()), **buffers}


def load_tensors(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Copy the numbers of `checkpoint` into `model`; CheckpointError where they do not fit."""
    found = _check_shapes(model, checkpoint)
    with torch.no_grad():
        for name, tensor in numbers_of(model).items():
            tensor.copy_(found[name])


def _check_shapes(model: nn.Module, checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    wanted, prefix = numbers_of(model), "model."
    found = {n[len(prefix) :]: t for n, t in checkpoint.tensors.items() if n.startswith(prefix)}
    if wanted.keys() != found.keys():
        odd = sorted(wanted.keys() ^ found.keys())[0]
        raise CheckpointError(f"{checkpoint.path} does not fit the model: {odd}")
    for name, tensor in wanted.items():
        if found[name].shape != tensor.shape or found[name].dtype != tensor.dtype:
            raise CheckpointError(
                f"{checkpoint.path} does not fit the model: {name} is "
                f"{tuple(found[name].shape)}, expected {tuple(tensor.shape)}"
            )
    return found
