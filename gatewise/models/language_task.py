"""The language model's task: any text in parallel streams, truncated BPTT with carried state.

T = steps of a chunk, B = parallel streams, V = vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from gatewise.cells import get_cell
from gatewise.equations.cell import Cell
from gatewise.equations.trace import trace
from gatewise.models.checkpoint import Checkpoint
from gatewise.models.corpus import IGNORED, Corpus, Streams, read_corpus
from gatewise.models.language_model import LanguageModel, LanguageModelConfig
from gatewise.models.saved import load
from gatewise.models.settings import Settings
from gatewise.models.task import Loss, Predictor, Source, Task, named_cell
from gatewise.models.vocabulary import Encoded, Vocabulary

_EVALUATION_BATCH = 64
_EVALUATION_STREAM = 1000  # tokens at least: each stream begins with an empty state
_EVALUATION_CHUNK = 64
_SHOWN = 100  # tokens in the picture of the gates
_WARM = 400  # tokens read before them, so that the state is not the empty one
_WORDS = 10_000  # most words of a vocabulary, where nothing else is said


@dataclass(frozen=True)
class LanguageOptions:
    """What language model to train, and how its text is read."""

    level: str = "char"
    vocabulary: int | None = None  # most tokens; None: all characters, 10,000 words
    cell: str = "lstm"
    embedding_size: int = 64
    hidden_size: int = 256
    num_layers: int = 1
    dropout: float = 0.0
    tied: bool = False
    input_dropout: float = 0.0  # variational: one mask for a chunk
    recurrent_dropout: float = 0.0  # the same
    init_range: float | None = None
    chunk: int = 64  # steps of truncated BPTT
    restart: float = 0.05  # probability that a stream begins a chunk with an empty state

    def __post_init__(self) -> None:
        if isinstance(self.chunk, bool) or not isinstance(self.chunk, int) or self.chunk < 1:
            raise ValueError(f"chunk must be positive, got {self.chunk!r}")
        if not isinstance(self.restart, int | float) or not 0 <= self.restart <= 1:
            raise ValueError(f"restart must be between 0 and 1, got {self.restart!r}")

    def config(self, vocabulary: Vocabulary) -> LanguageModelConfig:
        own = {f.name for f in fields(LanguageModelConfig)} - {"vocabulary_size"}
        return LanguageModelConfig(len(vocabulary), **{n: getattr(self, n) for n in own})


class LanguagePredictor(Predictor[LanguageModel]):
    """A language model with its vocabulary: scores texts, line by line or as a whole."""

    def __init__(self, model: LanguageModel, vocabulary: Vocabulary) -> None:
        self.model, self.vocabulary = model, vocabulary

    def to_json(self) -> dict[str, Any]:
        return {"config": self.model.config.to_json(), "vocabulary": self.vocabulary.to_json()}

    @classmethod
    def from_json(
        cls, data: Any, cell: Cell | None = None, executor: str = "auto"
    ) -> LanguagePredictor:
        if not isinstance(data, dict):
            raise ValueError("a language model must be an object")
        config = LanguageModelConfig.from_json(data.get("config"))
        vocabulary = Vocabulary.from_json(data.get("vocabulary"))
        if len(vocabulary) != config.vocabulary_size:
            raise ValueError("the vocabulary has another size than the model")
        made = named_cell(config.cell, cell)
        given = None if isinstance(made, str) else made
        return cls(LanguageModel(config, cell=given, executor=executor), vocabulary)

    def predict(self, path: Path) -> Iterator[dict[str, Any]]:
        """Each line with its perplexity, read after a line break."""
        for line in path.read_text("utf-8").splitlines():
            figures = self.score(self.vocabulary.measure("\n" + line))
            yield {"perplexity": figures["perplexity"], "text": line}

    def evaluate(self, path: Path) -> dict[str, float]:
        return self.score(self.vocabulary.measure(path.read_text("utf-8")))

    def render(self, row: dict[str, Any]) -> str:
        return f"{row['perplexity']:.3f}\t{row['text']}"

    def score(self, held: Encoded) -> dict[str, float]:
        """How well the model predicts a text, each token once, in parallel streams.

        The perplexity is per token, the unknown token being one like any other; the bits per
        character pay for spelling it.
        """
        if len(held.ids) < 2:
            raise ValueError(f"a text must have at least two tokens, got {len(held.ids)}")
        batch = max(1, min(_EVALUATION_BATCH, len(held.ids) // _EVALUATION_STREAM))
        nats, state = 0.0, None
        with torch.no_grad():
            for inputs, targets in Streams(held.ids, batch, _EVALUATION_CHUNK).chunks():
                logits, state = self.model(inputs, state)
                nats += cross_entropy(
                    logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
                ).item()
        bits = (nats / math.log(2) + held.spelled_bits) / held.characters
        perplexity = math.exp(min(700.0, nats / (len(held.ids) - 1)))
        return {"bits_per_character": bits, "perplexity": perplexity}


class LanguageTask(Task[LanguagePredictor]):
    """Predict the next token of a text, streams in parallel, the state carried on."""

    kind = "lm"
    summary = "language model of characters or words, from any text"
    Options = LanguageOptions
    Predictor = LanguagePredictor
    items = "characters"
    loss_name = metric = "bits_per_character"

    def __init__(
        self,
        predictor: LanguagePredictor,
        corpus: Corpus,
        options: LanguageOptions,
        settings: Settings,
    ) -> None:
        self.predictor, self.corpus, self.options = predictor, corpus, options
        self.name, self.fingerprint = corpus.name, corpus.fingerprint
        train = predictor.vocabulary.measure(corpus.train)
        self.held_out = predictor.vocabulary.measure(corpus.held_out)
        if len(train.ids) < 2 or len(self.held_out.ids) < 2:
            raise ValueError(f"{corpus.name} has too few tokens to learn from")
        self._characters_per_token = train.characters / (len(train.ids) - 1)
        self._streams = Streams(train.ids, settings.batch, options.chunk)
        self._state: Any = None  # recurrent, carried from chunk to chunk

    @classmethod
    def begin(
        cls,
        source: Source,
        options: LanguageOptions,
        settings: Settings,
        cell: Cell | None = None,
        executor: str = "auto",
    ) -> LanguageTask:
        cell = get_cell(options.cell) if cell is None else cell
        corpus = read_corpus(source.path, source.held_out)
        most = options.vocabulary
        if most is None and options.level == "word":
            most = _WORDS
        # Words seen once would be learned from one example; they teach the unknown token instead.
        rare = 2 if options.level == "word" else 1
        vocabulary = Vocabulary.build(corpus.train, options.level, most, min_count=rare)
        model = LanguageModel(options.config(vocabulary), cell=cell, executor=executor)
        return cls(LanguagePredictor(model, vocabulary), corpus, options, settings)

    @property
    def model(self) -> LanguageModel:
        return self.predictor.model

    @property
    def vocabulary(self) -> Vocabulary:
        return self.predictor.vocabulary

    def __len__(self) -> int:
        return len(self._streams)

    def loss(self, epoch: int, batch: int) -> Loss:
        inputs, targets = self._streams.chunk(batch)  # [T, B]
        begun = None if batch == 0 else self._state
        logits, state = self.model(inputs, self.restarted(begun))
        self._state = _map(torch.Tensor.detach, state)
        total = cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        return Loss(total, int((targets != IGNORED).sum()))

    def restarted(self, state: Any) -> Any:
        """The carried state, emptied in a few streams.

        A state that is only ever carried drifts to where no text begins; a model that has
        never met the empty one predicts badly after it.
        """
        if state is None or not self.options.restart:
            return state
        kept = torch.rand(self._streams.batch) >= self.options.restart  # [B]
        return _map(lambda s: s * kept.to(s.dtype)[:, None], state)  # [L, B, H]

    def score(self) -> dict[str, float]:
        return self.predictor.score(self.held_out)

    def loss_figure(self, mean: float) -> float:
        return mean / math.log(2) / self._characters_per_token

    def items_in(self, count: float) -> float:
        return count * self._characters_per_token

    def about(self) -> str:
        return (
            f"{len(self.corpus.train):,} characters to learn from, "
            f"{len(self.corpus.held_out):,} held out; {len(self.vocabulary):,} tokens"
        )

    def title(self) -> str:
        return f"{self.name} ({self._size()})"

    def notes(self) -> Sequence[str]:
        return self.corpus.notes

    def carried(self) -> dict[str, torch.Tensor]:
        parts = [] if self._state is None else _parts(self._state)
        return {str(k): t for k, t in enumerate(parts)}

    def carry(self, tensors: dict[str, torch.Tensor]) -> None:
        parts = [tensors[str(k)] for k in range(len(tensors))]
        self._state = None if not parts else parts[0] if len(parts) == 1 else tuple(parts)

    def pictures(self, out: Path) -> list[Path]:
        """What the gates of the best model do over held-out text."""
        from gatewise.models.plots import plot_activity

        model, vocabulary, _ = load_language_model(out, "best", self.model.recurrent.cell)
        config, path = model.config, out / "gate_activity.png"
        tokens = vocabulary.encode(self.corpus.held_out[: 20 * (_WARM + _SHOWN)])
        tokens = tokens[: _WARM + _SHOWN]
        shown = tokens[-min(_SHOWN, len(tokens)) :]
        records = {
            name: values[:, -len(shown) :]
            for name, values in model.activity(tokens, signal_names(model)).items()
        }
        labels = [vocabulary.tokens[k] for k in shown.tolist()]
        where = f", layer {config.num_layers}" if config.num_layers > 1 else ""
        title = f"Gates and states over held-out text ({self._size()}{where})"
        plot_activity(labels, records, path, title, trace(model.recurrent.cell).output)
        return [path]

    def _size(self) -> str:
        config = self.model.config
        return f"{config.cell}, {config.num_layers} × {config.hidden_size} units"


def load_language_model(
    directory: str | Path,
    which: str = "best",
    cell: Cell | None = None,
    executor: str = "auto",
) -> tuple[LanguageModel, Vocabulary, Checkpoint]:
    """A trained language model with its vocabulary, in evaluation mode; see `saved.load`."""
    found = load(directory, which, cell, executor, kind="lm")
    assert isinstance(found.predictor, LanguagePredictor)
    return found.predictor.model, found.predictor.vocabulary, found.checkpoint


def signal_names(model: LanguageModel) -> list[str]:
    """The gates, then the states of a model's cell, the output first among these."""
    traced = trace(model.recurrent.cell)
    gates = [g for g in traced.gates if g not in traced.states]
    return [
        *gates,
        *(s for s in traced.states if s in traced.gates),
        *(s for s in traced.states if s not in traced.gates),
    ]


def _parts(state: Any) -> tuple[torch.Tensor, ...]:
    return (state,) if isinstance(state, torch.Tensor) else tuple(state)


def _map(function: Callable[[torch.Tensor], torch.Tensor], state: Any) -> Any:
    if isinstance(state, torch.Tensor):
        return function(state)
    return tuple(function(s) for s in state)
