"""Checkpoints: tensors as safetensors, the rest as JSON, written as one unit or not at all.

    DIR/checkpoints/step-000000120/tensors.safetensors
    DIR/checkpoints/step-000000120/record.json     holds the hash of the tensors
    DIR/checkpoints/pointers.json                  names the latest and the best

A folder is written under a temporary name, flushed, renamed; then the pointers are replaced.
A process killed between any two of these leaves the previous checkpoint in force. Nothing read
here is executed: no pickle, and a name in a pointer can only be a checkpoint's.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

FORMAT = 2
CARRIED = "carried."  # before the names of what a task carries from step to step
_NAME = re.compile(r"step-\d{9,}")
_POINTERS = "pointers.json"


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, or not one of ours; the message is one line."""


@dataclass(frozen=True)
class Checkpoint:
    """What one checkpoint holds."""

    path: Path
    tensors: dict[str, torch.Tensor]
    record: dict[str, Any]

    @property
    def carried(self) -> dict[str, torch.Tensor]:
        """What the task carried from step to step, by its own names, in their order."""
        found = sorted(n for n in self.tensors if n.startswith(CARRIED))
        return {n.removeprefix(CARRIED): self.tensors[n] for n in found}


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by `data`: a reader sees the old file or the new one, never a part."""
    temporary = path.with_name(path.name + ".tmp")
    _write(temporary, data)
    os.replace(temporary, path)
    _flush_folder(path.parent)


def has_checkpoint(directory: str | Path) -> bool:
    """Was a checkpoint ever completed in `directory`?"""
    return (Path(directory) / "checkpoints" / _POINTERS).exists()


def save_checkpoint(
    directory: str | Path,
    step: int,
    tensors: dict[str, torch.Tensor],
    record: dict[str, Any],
    best: bool,
    keep: int = 2,
) -> Path:
    """Write the checkpoint of `step`; keep the last `keep` and the best one, remove the others."""
    folder = Path(directory) / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"step-{step:09d}"
    pointers = _read_pointers(folder) if has_checkpoint(directory) else {}
    if name not in pointers.values():
        _write_folder(folder / name, tensors, record)
    pointers |= {"latest": name} | ({"best": name} if best else {})
    pointers.setdefault("best", name)
    write_atomically(folder / _POINTERS, json.dumps(pointers).encode())
    _prune(folder, pointers, keep)
    return folder / name


def load_checkpoint(directory: str | Path, which: str = "latest") -> Checkpoint:
    """The checkpoint that `which` ("latest" or "best") points to.

    Raises CheckpointError where there is none or it is damaged.
    """
    folder = Path(directory) / "checkpoints"
    if not Path(directory).is_dir():
        raise CheckpointError(f"no folder {directory}")
    if not has_checkpoint(directory):
        raise CheckpointError(f"{directory} holds no checkpoint")
    path = folder / _read_pointers(folder)[which]
    record = _read_json(path / "record.json")
    if record.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} has the format {record.get('format')!r}; this version reads {FORMAT}"
        )
    try:
        raw = (path / "tensors.safetensors").read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} is damaged: tensors.safetensors: {error.strerror}") from None
    if hashlib.sha256(raw).hexdigest() != record.get("tensors_sha256"):
        raise CheckpointError(f"{path} is damaged: tensors.safetensors does not match its hash")
    try:
        return Checkpoint(path, load(raw), record)
    except (SafetensorError, ValueError, KeyError) as error:
        first = str(error).splitlines()[0]
        raise CheckpointError(f"{path} is damaged: tensors.safetensors: {first}") from None


def _write_folder(path: Path, tensors: dict[str, torch.Tensor], record: dict[str, Any]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    for leftover in (temporary, path):  # of a process killed while it wrote
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir()
    raw = save({n: t.detach().contiguous() for n, t in tensors.items()})
    record = {"format": FORMAT, "tensors_sha256": hashlib.sha256(raw).hexdigest()} | record
    _write(temporary / "tensors.safetensors", raw)
    _write(temporary / "record.json", json.dumps(record, indent=1).encode())
    os.rename(temporary, path)
    _flush_folder(path.parent)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _flush_folder(path: Path) -> None:
    """Make a rename survive a power cut, where the system lets a folder be opened."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise CheckpointError(f"{path} is damaged: it is not JSON") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} is damaged: it is not a JSON object")
    return data


def _read_pointers(folder: Path) -> dict[str, str]:
    pointers = _read_json(folder / _POINTERS)
    for which in ("latest", "best"):
        name = pointers.get(which)
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise CheckpointError(f"{folder / _POINTERS} is damaged: {which} is {name!r:.60}")
    return {which: pointers[which] for which in ("latest", "best")}


def _prune(folder: Path, pointers: dict[str, str], keep: int) -> None:
    complete = sorted(p.name for p in folder.iterdir() if _NAME.fullmatch(p.name))
    latest = complete.index(pointers["latest"])
    wanted = {*pointers.values(), *complete[max(0, latest + 1 - keep) : latest + 1]}
    for path in folder.iterdir():
        if path.is_dir() and path.name not in wanted and path.name.startswith("step-"):
            shutil.rmtree(path, ignore_errors=True)
