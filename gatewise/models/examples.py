"""Labelled sequences from files: sounds, texts, rows of numbers; how to read them again later.

T = steps, I = numbers of a step.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch

from gatewise.models.formats import read_lines, suffix
from gatewise.models.sounds import LogMel, folder_of, read_sounds
from gatewise.models.table import read_rows
from gatewise.models.vocabulary import Vocabulary


@dataclass(frozen=True)
class Example:
    """A sequence as the model reads it: vectors [T, I] or tokens [T]."""

    name: str
    input: torch.Tensor
    label: str | None


class Reader(Protocol):
    """How files become examples; it is saved with the model."""

    kind: ClassVar[str]

    @property
    def inputs(self) -> int:
        """Numbers of a step, or the size of the vocabulary."""
        ...

    def read(self, path: Path) -> Iterator[Example]:
        """The examples of a file or folder, in its order; ValueError for one that is damaged."""
        ...

    def to_json(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class SoundReader:
    """WAV files as log-mel frames; the label is in the name.

    `label` is a regular expression whose group is the label. Without one it is the name of the
    file's folder where they are told apart `by_folder`, otherwise what stands before the first `_`
    or `-` of the file's name. With `centred` the mean over a sound is taken off each band (Atal,
    1974): a microphone, a room and the loudness of a speaker add the same to every frame.
    """

    kind: ClassVar[str] = "sounds"
    rate: int = 8000
    bands: int = 40
    label: str = ""
    centred: bool = True
    by_folder: bool = False
    features: LogMel = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", LogMel(self.rate, self.bands))
        try:
            groups = re.compile(self.label).groups
        except re.error as error:
            raise ValueError(f"label {self.label!r} is no regular expression: {error}") from None
        if self.label and groups != 1:
            raise ValueError(f"label {self.label!r} must have one group, it has {groups}")
        for name in ("centred", "by_folder"):
            if not isinstance(given := getattr(self, name), bool):
                raise TypeError(f"{name} must be true or false, got {given!r}")

    @property
    def inputs(self) -> int:
        return self.bands

    def read(self, path: Path) -> Iterator[Example]:
        for name, samples in read_sounds(path, self.rate):
            frames = self.features(samples)  # [T, I]
            if self.centred:
                frames = frames - frames.mean(0)
            yield Example(name, frames, self._label(path, Path(name)))

    def _label(self, path: Path, name: Path) -> str | None:
        if self.label:
            found = re.search(self.label, str(name))
            return found.group(1) if found else None
        if self.by_folder:  # `path` may be the folder of one label, or one of its files
            return (name.parent.name or folder_of(path).name) or None
        found = re.match("([^_-]+)[_-]", name.stem)
        return found.group(1) if found else None

    def to_json(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.init}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> SoundReader:
        return cls(**data)


@dataclass(frozen=True)
class TextReader:
    """Rows with a text and a label: JSONL, CSV or Parquet."""

    kind: ClassVar[str] = "texts"
    vocabulary: Vocabulary
    text: str = "text"
    label: str = "label"

    @property
    def inputs(self) -> int:
        return len(self.vocabulary)

    def read(self, path: Path) -> Iterator[Example]:
        for name, row in numbered(path):
            text = row.get(self.text)
            if not isinstance(text, str):
                raise ValueError(f"{path}, {name} has no text in {self.text!r}")
            tokens = self.vocabulary.encode(text)
            if not len(tokens):
                raise ValueError(f"{path}, {name} has an empty text")
            yield Example(name, tokens, _label(row, self.label))

    def to_json(self) -> dict[str, Any]:
        return {"vocabulary": self.vocabulary.to_json(), "text": self.text, "label": self.label}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TextReader:
        return cls(**{**data, "vocabulary": Vocabulary.from_json(data["vocabulary"])})


@dataclass(frozen=True)
class ValuesReader:
    """Rows with a list of numbers, or of vectors, and a label: JSONL or Parquet."""

    kind: ClassVar[str] = "values"
    inputs: int
    values: str = "values"
    label: str = "label"

    def read(self, path: Path) -> Iterator[Example]:
        for name, row in numbered(path):
            try:
                steps = torch.tensor(row.get(self.values), dtype=torch.float32)
            except (TypeError, ValueError, RuntimeError, OverflowError):
                raise ValueError(f"{path}, {name}: {self.values!r} must be numbers") from None
            steps = steps.unsqueeze(1) if steps.dim() == 1 else steps
            if steps.dim() != 2 or not len(steps) or not steps.isfinite().all():
                raise ValueError(f"{path}, {name}: {self.values!r} must be finite numbers by step")
            if steps.shape[1] != self.inputs:
                raise ValueError(
                    f"{path}, {name}: {self.values!r} has {steps.shape[1]} numbers a step, "
                    f"expected {self.inputs}"
                )
            yield Example(name, steps, _label(row, self.label))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ValuesReader:
        return cls(**data)


READERS: dict[str, type[SoundReader | TextReader | ValuesReader]] = {
    r.kind: r for r in (SoundReader, TextReader, ValuesReader)
}


def numbered(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The rows of a JSONL, CSV or Parquet file, each with its number for messages."""
    if suffix(path) not in (".jsonl", ".ndjson"):
        return [(f"row {n}", row) for n, row in enumerate(read_rows(path), 1)]
    rows = []
    for n, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise ValueError(f"{path}, line {n} is not JSON") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {n} is not a JSON object")
        rows.append((f"line {n}", row))
    if not rows:
        raise ValueError(f"{path} has no rows")
    return rows


def _label(row: dict[str, Any], column: str) -> str | None:
    value = row.get(column)
    return None if value is None or value == "" else str(value)
