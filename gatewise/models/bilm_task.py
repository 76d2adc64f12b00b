"""The bidirectional language model's task: sentences, each predicted from both of its ends.

T = words of a sentence, B = sentences.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from gatewise.cells import REGISTRY, get_cell
from gatewise.equations.cell import Cell
from gatewise.models.batches import Batches, chunks
from gatewise.models.bilm import BidirectionalLanguageModel
from gatewise.models.conll import Words, find_sentences, held_out_of, read_words
from gatewise.models.context import ContextConfig, ContextEncoder
from gatewise.models.index import Index
from gatewise.models.settings import Settings
from gatewise.models.task import Loss, Predictor, Source, Task, named_cell

_EVALUATION_BATCH = 64


@dataclass(frozen=True)
class ContextOptions:
    """What bidirectional language model to train."""

    rare: int = 2  # a word seen fewer times is predicted as an unknown one
    cell: str = "lstm"
    character_embedding: int = 32
    character_size: int = 64
    hidden_size: int = 200
    num_layers: int = 2
    dropout: float = 0.2

    def __post_init__(self) -> None:
        if isinstance(self.rare, bool) or not isinstance(self.rare, int) or self.rare < 1:
            raise ValueError(f"rare must be at least 1, got {self.rare!r}")
        self.config()

    def config(self) -> ContextConfig:
        return ContextConfig(**{f.name: getattr(self, f.name) for f in fields(ContextConfig)})


class ContextPredictor(Predictor[BidirectionalLanguageModel]):
    """A bidirectional language model: how surprising sentences are, and features of their words."""

    def __init__(self, model: BidirectionalLanguageModel) -> None:
        self.model = model

    def to_json(self) -> dict[str, Any]:
        return {**self.model.encoder.to_json(), "words": self.model.words.to_json()}

    @classmethod
    def from_json(
        cls, data: Any, cell: Cell | None = None, executor: str = "auto"
    ) -> ContextPredictor:
        if not isinstance(data, dict):
            raise ValueError("a bidirectional language model must be an object")
        config = ContextConfig.from_json(data.get("config"))
        words, characters = (Index.from_json(data.get(n)) for n in ("words", "characters"))
        made = named_cell(config.cell, cell)
        return cls(
            BidirectionalLanguageModel(config, words, characters, cell=made, executor=executor)
        )

    def predict(self, path: Path) -> Iterator[dict[str, Any]]:
        """Each sentence with its perplexity, of both directions together."""
        for words in read_words(path):
            yield {"perplexity": self.score([words])["perplexity"], "words": words}

    def render(self, row: dict[str, Any]) -> str:
        return f"{row['perplexity']:.1f}\t{' '.join(row['words'])}"

    def evaluate(self, path: Path) -> dict[str, float]:
        return self.score(read_words(path))

    @torch.no_grad()
    def score(self, sentences: Sequence[Words]) -> dict[str, float]:
        """Perplexity by word, the border being one and the unknown word one like any other."""
        total, count = torch.zeros(2, dtype=torch.float64), 0
        for some in chunks(sentences, _EVALUATION_BATCH):
            total += self.model.nats(self.model.batch(some))
            count += sum(len(s) + 1 for s in some)
        ahead, back = (total / count).tolist()
        return {
            "perplexity": _perplexity((ahead + back) / 2),
            "perplexity_forward": _perplexity(ahead),
            "perplexity_backward": _perplexity(back),
        }


class ContextTask(Task[ContextPredictor]):
    """Predict every word of a sentence from those before it, and from those after it."""

    kind = "bilm"
    summary = "bidirectional language model of sentences, as features for --task tag"
    Options = ContextOptions
    Predictor = ContextPredictor
    defaults = {"batch": 64, "learning_rate": 3e-3, "epochs": 6.0, "evaluations": 6}
    items = "words"
    loss_name = "perplexity"
    metric = "perplexity"

    def __init__(
        self,
        predictor: ContextPredictor,
        name: str,
        train: Sequence[Words],
        held_out: Sequence[Words],
        settings: Settings,
    ) -> None:
        self.predictor, self.name = predictor, name
        self.train, self.held_out = train, held_out
        self.fingerprint = _fingerprint(train, held_out)
        self._batches = Batches([len(s) for s in train], settings.batch, settings.seed)

    @classmethod
    def begin(
        cls,
        source: Source,
        options: ContextOptions,
        settings: Settings,
        cell: Cell | None = None,
        executor: str = "auto",
    ) -> ContextTask:
        path, held_path = find_sentences(source)
        train = read_words(path)
        if held_path is not None:
            held_out = read_words(held_path)
        else:
            train, held_out = held_out_of(train)
        if not train:
            raise ValueError(f"{path} has too few sentences to learn from")
        words = _frequent_first(train, options.rare)
        characters = Index.build(c for s in train for w in s for c in w)
        made = get_cell(options.cell) if cell is None else cell
        model = BidirectionalLanguageModel(
            options.config(), words, characters, cell=made, executor=executor
        )
        return cls(ContextPredictor(model), path.name, train, held_out, settings)

    def __len__(self) -> int:
        return len(self._batches)

    def loss(self, epoch: int, batch: int) -> Loss:
        model = self.predictor.model
        some = [self.train[k] for k in self._batches.examples(epoch, batch)]
        return Loss(model.nats(model.batch(some)).sum(), 2 * sum(len(s) + 1 for s in some))

    def score(self) -> dict[str, float]:
        return self.predictor.score(self.held_out)

    def loss_figure(self, mean: float) -> float:
        return _perplexity(mean)

    def items_in(self, count: float) -> float:
        return count / 2  # both directions predict each

    def about(self) -> str:
        words = sum(len(s) for s in self.train)
        return (
            f"{len(self.train):,} sentences of {words:,} words to learn from, "
            f"{len(self.held_out):,} sentences held out; {len(self.predictor.model.words):,} words"
        )

    def title(self) -> str:
        config = self.predictor.model.config
        return f"{self.name} ({config.cell}, 2 × {config.num_layers} × {config.hidden_size} units)"


def _frequent_first(sentences: Sequence[Words], rare: int) -> Index:
    """The words seen `rare` times or more."""
    counts = Counter(w for s in sentences for w in s)
    counts.pop(Index.UNKNOWN, None)
    kept = [w for w, times in counts.items() if times >= rare]
    return Index(sorted(kept, key=lambda w: (-counts[w], w)))


def load_encoder(
    directory: str | Path, cell: Cell | None = None, executor: str = "auto"
) -> ContextEncoder:
    """The encoder of the bidirectional language model that was trained into `directory`.

    `cell` is of use where the model was trained with a cell from a file. Raises CheckpointError
    where there is no such model or it is damaged.
    """
    from gatewise.models.saved import load, load_checkpoint

    record = load_checkpoint(directory, "best").record
    found = load(directory, "best", encoder_cell(record.get("model"), cell), executor, kind="bilm")
    assert isinstance(found.predictor, ContextPredictor)
    return found.predictor.model.encoder


def encoder_cell(described: Any, cell: Cell | None) -> Cell | None:
    """Of an encoder's description: `cell` where its own is not a registered one."""
    config = described.get("config") if isinstance(described, dict) else None
    name = config.get("cell") if isinstance(config, dict) else None
    return None if name in REGISTRY else cell


def _perplexity(nats: float) -> float:
    return math.exp(min(700.0, nats))


def _fingerprint(*parts: Sequence[Words]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        for words in part:
            digest.update("\t".join((*words, "\n")).encode())
        digest.update(b"\0")
    return digest.hexdigest()
