"""The tagger's task: sentences with a tag for every word, in batches of similar length.

T = words of a sentence, B = sentences.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from gatewise.cells import get_cell
from gatewise.equations.cell import Cell
from gatewise.models.batches import Batches, chunks
from gatewise.models.bilm_task import encoder_cell, load_encoder
from gatewise.models.conll import (
    Sentence,
    find_sentences,
    held_out_of,
    read_sentences,
    read_untagged,
)
from gatewise.models.context import ContextEncoder, ContextFeatures
from gatewise.models.extras import require
from gatewise.models.index import Index
from gatewise.models.settings import Settings
from gatewise.models.tagger import Tagger, TaggerConfig
from gatewise.models.task import Loss, Predictor, Source, Task, named_cell

_EVALUATION_BATCH = 64
_SPAN = re.compile(r"O|[BIES]-.+")


@dataclass(frozen=True)
class TagOptions:
    """What tagger to train, and which column of the data it learns.

    `features` is the folder of a trained `--task bilm`: its states are inputs beside words and
    characters. Its weights are saved with the tagger, and are left as they are without `tune`.
    """

    column: str | None = None  # of the tag: a name in CoNLL-U, else a number from 2
    cell: str = "lstm"
    embedding_size: int = 100
    character_embedding: int = 32
    character_size: int = 64
    hidden_size: int = 200
    num_layers: int = 2
    dropout: float = 0.4
    crf: bool = False
    word_dropout: float = 0.25  # α: a word seen n times is unknown with probability α / (α + n)
    sentences: int | None = None  # learn from so many, drawn by the seed; None: from all
    features: str | None = None
    tune: bool = False

    def __post_init__(self) -> None:
        if self.sentences is not None and (
            isinstance(self.sentences, bool)
            or not isinstance(self.sentences, int)
            or self.sentences < 1
        ):
            raise ValueError(f"sentences must be positive, got {self.sentences!r}")
        if self.tune and self.features is None:
            raise ValueError("tune is for a tagger with features, got none")
        if not isinstance(self.features, str | None):
            raise TypeError(f"features must name a folder, got {self.features!r}")
        if self.features is not None:  # found again from anywhere
            object.__setattr__(self, "features", str(Path(self.features).resolve()))
        if not isinstance(self.word_dropout, int | float) or not 0 <= self.word_dropout < 1000:
            raise ValueError(f"word_dropout must not be negative, got {self.word_dropout!r}")
        self.config()

    def config(self) -> TaggerConfig:
        return TaggerConfig(**{f.name: getattr(self, f.name) for f in fields(TaggerConfig)})


class TagPredictor(Predictor[Tagger]):
    """A tagger with the names of its tags and the column they came from."""

    def __init__(self, model: Tagger, tags: Sequence[str], column: str | None) -> None:
        self.model, self.tags, self.column = model, tuple(tags), column
        self._number = {tag: k for k, tag in enumerate(self.tags)}

    @property
    def spans(self) -> bool:
        """Do the tags mark spans, as B-PER and I-PER do?"""
        return all(_SPAN.fullmatch(t) for t in self.tags) and any("-" in t for t in self.tags)

    def to_json(self) -> dict[str, Any]:
        context = self.model.context
        return {
            "config": self.model.config.to_json(),
            "words": self.model.words.to_json(),
            "characters": self.model.speller.characters.to_json(),
            "tags": list(self.tags),
            "column": self.column,
            "context": None if context is None else context.encoder.to_json(),
        }

    @classmethod
    def from_json(cls, data: Any, cell: Cell | None = None, executor: str = "auto") -> TagPredictor:
        if not isinstance(data, dict) or not isinstance(data.get("column"), str | None):
            raise ValueError("a tagger must be an object with a column")
        config = TaggerConfig.from_json(data.get("config"))
        words, characters = (Index.from_json(data.get(n)) for n in ("words", "characters"))
        tags = data.get("tags")
        if not isinstance(tags, list) or not all(isinstance(t, str) for t in tags):
            raise ValueError("tags must be a list of strings")
        if len(set(tags)) < len(tags):
            raise ValueError("tags must hold every tag once")
        context, described = None, data.get("context")
        if described is not None:
            own = encoder_cell(described, cell)
            context = ContextFeatures(ContextEncoder.from_json(described, own, executor))
        model = Tagger(
            config,
            words,
            characters,
            len(tags),
            context=context,
            cell=named_cell(config.cell, cell),
            executor=executor,
        )
        return cls(model, tags, data["column"])

    def predict(self, path: Path) -> Iterator[dict[str, Any]]:
        for some in chunks(read_untagged(path, self.column), _EVALUATION_BATCH):
            found = self.model.tag(self.model.batch([s.words for s in some]))
            for sentence, tags in zip(some, found, strict=True):
                yield {"words": sentence.words, "tags": [self.tags[k] for k in tags]}

    def render(self, row: dict[str, Any]) -> str:
        return " ".join(f"{w}/{t}" for w, t in zip(row["words"], row["tags"], strict=True))

    def evaluate(self, path: Path) -> dict[str, float]:
        return self.score(read_sentences(path, self.column))

    def numbers(self, sentences: Sequence[Sentence]) -> torch.Tensor:
        """Tags [T, B]; -1 for one that the model does not know, and beyond a sentence's end."""
        rows = [torch.tensor([self._number.get(t, -1) for t in s.tags]) for s in sentences]
        return pad_sequence(rows, padding_value=-1)

    @torch.no_grad()
    def score(self, sentences: Sequence[Sentence]) -> dict[str, float]:
        """Accuracy over words; nats a word; for tags of spans precision, recall and F1 of these.

        A tag that the model has never seen is an error; nats are of sentences without such, and
        there are none where every sentence has one.
        """
        found = list[list[str]]()
        nats, count = 0.0, 0
        for some in chunks(sentences, _EVALUATION_BATCH):
            batch = self.model.batch([s.words for s in some])
            found += [[self.tags[k] for k in tags] for tags in self.model.tag(batch)]
            if known := [s for s in some if self.knows_tags(s)]:
                if len(known) < len(some):
                    batch = self.model.batch([s.words for s in known])
                nats += self.model.loss(batch, self.numbers(known)).item()
                count += int(batch.lengths.sum())
        pairs = [
            (word, tag, guess)
            for s, guesses in zip(sentences, found, strict=True)
            for word, tag, guess in zip(s.words, s.tags, guesses, strict=True)
        ]
        new = [tag == guess for word, tag, guess in pairs if not self._known(word)]
        scores = {"nats": nats / count} if count else {}
        scores["accuracy"] = sum(tag == guess for _, tag, guess in pairs) / len(pairs)
        if new:
            scores["accuracy_on_new_words"] = sum(new) / len(new)
        return scores | (_span_scores(sentences, found) if self.spans else {})

    def knows_tags(self, sentence: Sentence) -> bool:
        """Does the model have every tag of the sentence?"""
        return all(t in self._number for t in sentence.tags)

    def _known(self, word: str) -> bool:
        return self.model.words.number(word.lower()) > 0


class TagTask(Task[TagPredictor]):
    """Predict the tag of every word from its sentence."""

    kind = "tag"
    summary = "a tag for every word (CoNLL-U, CoNLL): parts of speech, named entities"
    Options = TagOptions
    Predictor = TagPredictor
    defaults = {"batch": 32, "learning_rate": 2e-3, "epochs": 12.0, "evaluations": 12}
    items = "words"
    loss_name = "nats"

    def __init__(
        self,
        predictor: TagPredictor,
        name: str,
        train: Sequence[Sentence],
        held_out: Sequence[Sentence],
        word_dropout: float,
        settings: Settings,
    ) -> None:
        self.predictor, self.name = predictor, name
        self.train, self.held_out = train, held_out
        self.fingerprint = _fingerprint(train, held_out)
        self.metric = "f1" if predictor.spans else "accuracy"
        self.larger_is_better = True
        self._batches = Batches([len(s.words) for s in train], settings.batch, settings.seed)
        counts = Counter(w.lower() for s in train for w in s.words)
        seen = torch.tensor([float(counts[n]) for n in predictor.model.words.names])
        self._unknown = word_dropout / (word_dropout + seen).clamp_min(1e-9)  # by word

    @classmethod
    def begin(
        cls,
        source: Source,
        options: TagOptions,
        settings: Settings,
        cell: Cell | None = None,
        executor: str = "auto",
    ) -> TagTask:
        train, held_out = _read(source, options.column)
        if options.sentences is not None:
            train = _drawn(train, options.sentences, settings.seed)
        words = Index.build(w.lower() for s in train for w in s.words)
        characters = Index.build(c for s in train for w in s.words for c in w)
        tags = sorted({t for s in train for t in s.tags})
        context = None
        if options.features is not None:
            encoder = load_encoder(options.features, cell, executor)
            context = ContextFeatures(encoder, frozen=not options.tune)
        model = Tagger(
            options.config(),
            words,
            characters,
            len(tags),
            context=context,
            cell=get_cell(options.cell) if cell is None else cell,
            executor=executor,
        )
        predictor = TagPredictor(model, tags, options.column)
        if predictor.spans:
            _span_library()  # missing, it is missed before training
        if not any(map(predictor.knows_tags, held_out)):
            raise ValueError(
                "every sentence that is held out has a tag that none to learn from has; those are "
                f"{', '.join(tags[:10])}"
            )
        assert source.path is not None  # it has been read
        return cls(predictor, source.path.name, train, held_out, options.word_dropout, settings)

    def __len__(self) -> int:
        return len(self._batches)

    def loss(self, epoch: int, batch: int) -> Loss:
        some = [self.train[k] for k in self._batches.examples(epoch, batch)]
        made = self.predictor.model.batch([s.words for s in some])
        dropped = torch.rand(made.words.shape) < self._unknown[made.words]
        made = replace(made, words=made.words.where(~dropped, 0))
        total = self.predictor.model.loss(made, self.predictor.numbers(some))
        return Loss(total, int(made.lengths.sum()))

    def score(self) -> dict[str, float]:
        return self.predictor.score(self.held_out)

    def about(self) -> str:
        words = sum(len(s.words) for s in self.train)
        return (
            f"{len(self.train):,} sentences of {words:,} words to learn from, "
            f"{len(self.held_out):,} sentences held out; {len(self.predictor.tags)} tags"
        )

    def title(self) -> str:
        config = self.predictor.model.config
        return f"{self.name} ({config.cell}, {config.num_layers} × 2 × {config.hidden_size} units)"


def _read(source: Source, column: str | None) -> tuple[list[Sentence], list[Sentence]]:
    path, held_path = find_sentences(source)
    train = read_sentences(path, column)
    if held_path is None:
        train, held_out = held_out_of(train)
    else:
        held_out = read_sentences(held_path, column)
    if not train:
        raise ValueError(f"{path} has too few sentences to learn from")
    return train, held_out


def _drawn(sentences: list[Sentence], count: int, seed: int) -> list[Sentence]:
    """So many of the sentences, in their order; ValueError where there are fewer."""
    if count > len(sentences):
        raise ValueError(f"sentences must be at most the data's {len(sentences):,}, got {count}")
    drawn = torch.randperm(len(sentences), generator=torch.Generator().manual_seed(seed))
    return [sentences[k] for k in sorted(drawn[:count].tolist())]


def _span_library() -> Any:
    return require("seqeval.metrics", "nlp", "the F1 of spans")


def _span_scores(sentences: Sequence[Sentence], found: list[list[str]]) -> dict[str, float]:
    metrics = _span_library()
    truth = [s.tags for s in sentences]
    return {
        name: float(getattr(metrics, f"{name}_score")(truth, found, zero_division=0))
        for name in ("precision", "recall", "f1")
    }


def _fingerprint(*parts: Sequence[Sentence]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        for s in part:
            digest.update("\t".join((*s.words, "", *s.tags, "\n")).encode())
        digest.update(b"\0")
    return digest.hexdigest()
