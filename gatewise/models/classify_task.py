"""The classifiers' tasks: labelled texts, rows of numbers, and sounds, by one model.

T = steps, B = batch, I = input size, C = classes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch.nn.functional import cross_entropy, interpolate

from gatewise.cells import get_cell
from gatewise.equations.cell import Cell
from gatewise.models.batches import Batches
from gatewise.models.classifier import ClassifierConfig, SequenceClassifier, padded
from gatewise.models.examples import (
    READERS,
    Example,
    Reader,
    SoundReader,
    TextReader,
    ValuesReader,
    numbered,
)
from gatewise.models.settings import Settings
from gatewise.models.sounds import sound_names
from gatewise.models.task import Loss, Predictor, Source, Task, named_cell
from gatewise.models.vocabulary import Vocabulary

_EVALUATION_BATCH = 64


@dataclass(frozen=True)
class ClassifyOptions:
    """What to classify, and with what.

    `text`, `values` and `label` are columns; a file with `values` is one of numbers. `leave_out` is
    a regular expression: examples of the data whose names match are for `gatewise evaluate`, and
    neither learned from nor held out. Of the others `held_out` is the share to choose the best
    model by.
    """

    text: str = "text"
    values: str = "values"
    label: str = "label"
    level: str = "char"
    vocabulary: int | None = None  # most tokens
    leave_out: str = ""
    held_out: float = 0.1
    cell: str = "lstm"
    embedding_size: int = 64
    hidden_size: int = 64
    num_layers: int = 2
    dropout: float = 0.3

    def reader(self, path: Path) -> Reader:
        """How to read the file at `path`; it is looked at for that."""
        rows = numbered(path)
        begun = rows[0][1]
        if self.values in begun:
            first = begun[self.values]
            vector = isinstance(first, list) and bool(first) and isinstance(first[0], list)
            return ValuesReader(len(first[0]) if vector else 1, self.values, self.label)
        if self.text not in begun:
            names = ", ".join(map(str, begun))
            raise ValueError(f"{path} has neither {self.text!r} nor {self.values!r}: {names}")
        left = _pattern(self.leave_out)  # what is never learned from gives no token either
        kept = [row for name, row in rows if left is None or not left.search(name)]
        text = "\n".join(str(row.get(self.text)) for row in kept)
        rare = 2 if self.level == "word" else 1
        vocabulary = Vocabulary.build(text, self.level, self.vocabulary, min_count=rare)
        return TextReader(vocabulary, self.text, self.label)


@dataclass(frozen=True)
class SpeechOptions:
    """Which sounds to classify, and with what.

    `label` and `centred` are as in `SoundReader`, `leave_out` and `held_out` as in
    `ClassifyOptions`. With `warp`
    each sound is stretched in time, and its spectrum in frequency, by up to that share at random:
    other speakers are slower, and have other throats.
    """

    label: str = ""
    rate: int = 8000
    bands: int = 40
    centred: bool = True
    leave_out: str = ""
    held_out: float = 0.1
    warp: float = 0.15
    cell: str = "lstm"
    hidden_size: int = 96
    num_layers: int = 2
    dropout: float = 0.4

    def __post_init__(self) -> None:
        if not isinstance(self.warp, int | float) or not 0 <= self.warp < 1:
            raise ValueError(f"warp must be at least 0 and below 1, got {self.warp!r}")

    def reader(self, path: Path) -> Reader:
        """How to read the sounds; whether folders name their labels is settled by those here."""
        folders = {Path(name).parent for name in sound_names(path)}
        return SoundReader(self.rate, self.bands, self.label, self.centred, len(folders) > 1)


class ClassifyPredictor(Predictor[SequenceClassifier]):
    """A classifier with its classes and the reader of its files."""

    def __init__(
        self, model: SequenceClassifier, classes: Sequence[str], reader: Reader, leave_out: str
    ) -> None:
        self.model, self.classes = model, tuple(classes)
        self.reader, self.leave_out = reader, leave_out

    def to_json(self) -> dict[str, Any]:
        return {
            "config": self.model.config.to_json(),
            "classes": list(self.classes),
            "reader": {"kind": self.reader.kind, **self.reader.to_json()},
            "leave_out": self.leave_out,
        }

    @classmethod
    def from_json(
        cls, data: Any, cell: Cell | None = None, executor: str = "auto"
    ) -> ClassifyPredictor:
        if not isinstance(data, dict):
            raise ValueError("a classifier must be an object")
        config, described = ClassifierConfig.from_json(data["config"]), dict(data["reader"])
        reader = READERS[described.pop("kind")].from_json(described)
        if len(data["classes"]) != config.classes or reader.inputs != config.inputs:
            raise ValueError("the classes or the reader do not fit the model")
        made = named_cell(config.cell, cell)
        model = SequenceClassifier(config, None if isinstance(made, str) else made, executor)
        return cls(model, [str(c) for c in data["classes"]], reader, str(data["leave_out"]))

    def predict(self, path: Path) -> Iterator[dict[str, Any]]:
        """Each example with its likeliest class and the probability of that."""
        examples = list(self.reader.read(path))
        for first in range(0, len(examples), _EVALUATION_BATCH):
            part = examples[first : first + _EVALUATION_BATCH]
            best = self.logits(part).softmax(-1).max(-1)
            for example, p, k in zip(
                part, best.values.tolist(), best.indices.tolist(), strict=True
            ):
                yield {"name": example.name, "label": self.classes[k], "probability": p}

    def evaluate(self, path: Path) -> dict[str, float]:
        """On the examples that training left out, where it left some out, or else on all."""
        examples = list(self.reader.read(path))
        if self.leave_out:
            examples = [e for e in examples if re.search(self.leave_out, e.name)]
        if not examples:
            raise ValueError(f"{path} has no example whose name matches {self.leave_out!r}")
        self.check_labels(examples, path)
        return self.score(examples)

    def check_labels(self, examples: Sequence[Example], path: Path) -> None:
        """ValueError where an example of `path` has no label, or none has one the model knows."""
        found = [labelled(e, path) for e in examples]
        if not set(found) & set(self.classes):
            raise ValueError(
                f"{path} has no label that the model knows: it has {_few(found)}, "
                f"the model {_few(self.classes)}"
            )

    @torch.no_grad()
    def logits(self, examples: Sequence[Example]) -> torch.Tensor:
        """[B, C] of any number of examples."""
        parts = [
            self.model(*padded([e.input for e in examples[k : k + _EVALUATION_BATCH]]))
            for k in range(0, len(examples), _EVALUATION_BATCH)
        ]
        return torch.cat(parts)

    def score(self, examples: Sequence[Example]) -> dict[str, float]:
        """`accuracy`, and the `loss` (nats) where the label is one the model has.

        A label that it has never seen is an error of it; some example must have another.
        """
        logits, targets = self.logits(examples), self.targets(examples)
        known = targets >= 0
        right = (logits.argmax(-1) == targets).sum().item()
        loss = cross_entropy(logits[known], targets[known]).item()
        return {"accuracy": right / len(examples), "loss": loss}

    def targets(self, examples: Sequence[Example]) -> torch.Tensor:
        """The number of each example's class, -1 for one the model does not have: [B]."""
        number = {c: k for k, c in enumerate(self.classes)}
        return torch.tensor([number.get(e.label or "", -1) for e in examples])


class ClassifyTask(Task[ClassifyPredictor]):
    """Put sequences into classes."""

    kind = "classify"
    summary = "classes of texts or rows of numbers, from JSONL, CSV or Parquet"
    Options: ClassVar[type[Any]] = ClassifyOptions
    Predictor = ClassifyPredictor
    defaults = {"epochs": 20, "batch": 32, "learning_rate": 2e-3, "patience": 10}
    metric = "accuracy"
    larger_is_better = True
    warp = 0.0

    def __init__(
        self,
        predictor: ClassifyPredictor,
        parts: dict[str, list[Example]],
        name: str,
        settings: Settings,
    ) -> None:
        self.predictor, self.parts, self.name = predictor, parts, name
        self.fingerprint = _digest([*parts["train"], *parts["held_out"]])
        train = parts["train"]
        if not predictor.model.config.tokens:
            predictor.model.fit_scale([e.input for e in train])
        self._targets = predictor.targets(train)
        self._batches = Batches([len(e.input) for e in train], settings.batch, settings.seed)

    @classmethod
    def begin(
        cls,
        source: Source,
        options: Any,
        settings: Settings,
        cell: Cell | None = None,
        executor: str = "auto",
    ) -> ClassifyTask:
        if source.path is None:
            raise ValueError(f"the task {cls.kind} needs data to learn from")
        reader = options.reader(source.path)
        examples = list(reader.read(source.path))
        parts = _split(examples, options.leave_out, options.held_out)
        if source.held_out is not None:
            parts["train"] += parts["held_out"]
            parts["held_out"] = list(reader.read(source.held_out))
        for name in ("train", "held_out"):
            if not parts[name]:
                raise ValueError(f"{source.path} leaves no example for the part {name}")
        for example in parts["left_out"]:
            labelled(example, source.path)
        classes = sorted({labelled(e, source.path) for e in parts["train"]})
        if len(classes) < 2:
            raise ValueError(f"{source.path} has one class only: {', '.join(classes)}")
        config = ClassifierConfig(
            reader.inputs,
            len(classes),
            reader.kind == "texts",
            options.cell,
            getattr(options, "embedding_size", 1),
            options.hidden_size,
            options.num_layers,
            options.dropout,
        )
        cell = get_cell(options.cell) if cell is None else cell
        model = SequenceClassifier(config, cell, executor)
        predictor = ClassifyPredictor(model, classes, reader, options.leave_out)
        predictor.check_labels(parts["held_out"], source.held_out or source.path)
        task = cls(predictor, parts, source.path.name, settings)
        task.warp = getattr(options, "warp", 0.0)
        return task

    @property
    def model(self) -> SequenceClassifier:
        return self.predictor.model

    def __len__(self) -> int:
        return len(self._batches)

    def loss(self, epoch: int, batch: int) -> Loss:
        chosen = self._batches.examples(epoch, batch)
        inputs = [self.parts["train"][k].input for k in chosen]
        if self.warp:
            inputs = [warped(x, self.warp) for x in inputs]
        logits = self.model(*padded(inputs))
        return Loss(cross_entropy(logits, self._targets[chosen], reduction="sum"), len(chosen))

    def score(self) -> dict[str, float]:
        return self.predictor.score(self.parts["held_out"])

    def about(self) -> str:
        train, held, left = (len(self.parts[n]) for n in ("train", "held_out", "left_out"))
        return (
            f"{train:,} examples of {len(self.predictor.classes)} classes to learn from, "
            f"{held:,} held out, {left:,} left out for `gatewise evaluate`"
        )

    def pictures(self, out: Path) -> list[Path]:
        """The confusion matrix of the best model, on what was left out or else held out."""
        from gatewise.models.classify_plots import plot_confusion
        from gatewise.models.saved import load

        best = load(out, "best", self.model.recurrent.cell, kind=self.kind).predictor
        assert isinstance(best, ClassifyPredictor)
        part = "left_out" if self.parts["left_out"] else "held_out"
        examples = self.parts[part]
        path, guesses = out / "confusion.png", best.logits(examples).argmax(-1)
        title = f"{self.name}, {len(examples):,} examples {part.replace('_', ' ')}"
        plot_confusion(best.targets(examples), guesses, best.classes, path, title)
        return [path]


class SpeechTask(ClassifyTask):
    """Put spoken words, or other sounds, into classes."""

    kind = "speech"
    summary = "classes of sounds, from a folder or archive of WAV files"
    Options = SpeechOptions
    defaults = {"epochs": 25, "batch": 32, "learning_rate": 2e-3, "patience": 10}


def warped(x: torch.Tensor, share: float) -> torch.Tensor:
    """Frames [T, I] stretched in time and along the bands by up to `share`, each at random.

    The bands that the stretching leaves empty repeat the highest one.

    Source: Jaitly & Hinton, Vocal tract length perturbation improves speech recognition, 2013.
    """
    time, bands = (1 + share * (2 * torch.rand(2) - 1)).tolist()
    steps, size = x.shape
    stretched = (max(1, round(steps * time)), max(1, round(size * bands)))
    y = interpolate(x[None, None], stretched, mode="bilinear", align_corners=True)[0, 0]
    if stretched[1] < size:
        y = torch.cat([y, y[:, -1:].expand(-1, size - stretched[1])], 1)
    return y[:, :size]


def labelled(example: Example, path: Path) -> str:
    """The label of an example of `path`; ValueError where it has none."""
    if example.label is None:
        raise ValueError(f"{path}, {example.name} has no label")
    return example.label


def _few(labels: Sequence[str]) -> str:
    """Some of the labels, for people."""
    some = sorted(set(labels))
    return ", ".join(some[:5]) + (", …" if len(some) > 5 else "")


def _pattern(leave_out: str) -> re.Pattern[str] | None:
    """What the names of examples to leave out match; None where none are."""
    try:
        return re.compile(leave_out) if leave_out else None
    except re.error as error:
        raise ValueError(f"leave_out {leave_out!r} is no regular expression: {error}") from None


def _split(examples: list[Example], leave_out: str, held_out: float) -> dict[str, list[Example]]:
    """By name: what matches is left out, of the rest a share is held out, by a hash."""
    pattern = _pattern(leave_out)
    if not isinstance(held_out, int | float) or not 0 < held_out < 1:
        raise ValueError(f"held_out must be between 0 and 1, got {held_out!r}")
    parts: dict[str, list[Example]] = {"train": [], "held_out": [], "left_out": []}
    for e in examples:
        drawn = int(hashlib.sha256(e.name.encode()).hexdigest()[:8], 16) / (1 << 32)
        left = pattern is not None and pattern.search(e.name)
        parts["left_out" if left else "held_out" if drawn < held_out else "train"].append(e)
    return parts


def _digest(examples: Sequence[Example]) -> str:
    digest = hashlib.sha256()
    for e in examples:
        digest.update(f"{e.name}\n{e.label}\n{tuple(e.input.shape)}".encode())
        digest.update(e.input.numpy().tobytes())
    return digest.hexdigest()
