"""The task of the recurrent language model: its options, how it begins, its pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from gatewise.cells import get_cell
from gatewise.equations.cell import Cell
from gatewise.equations.trace import trace
from gatewise.models import processes
from gatewise.models.checkpoint import Checkpoint
from gatewise.models.corpus import Corpus
from gatewise.models.language_model import LanguageModel, LanguageModelConfig
from gatewise.models.regularise import activation_penalty, change_penalty
from gatewise.models.saved import load
from gatewise.models.settings import Settings
from gatewise.models.task import Source, named_cell
from gatewise.models.text_task import TextPredictor, TextTask, mapped, read_text
from gatewise.models.vocabulary import Vocabulary

_SHOWN = 100  # tokens in the picture of the gates
_WARM = 400  # tokens read before them, so that the state is not the empty one


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
    input_dropout: float = 0.0  # one mask for a chunk, as all below; of what the first layer reads
    hidden_dropout: float = 0.0  # between layers
    output_dropout: float = 0.0  # of what the last layer says
    recurrent_dropout: float = 0.0  # of fed-back units
    weight_dropout: float = 0.0  # of recurrent weights
    embedding_dropout: float = 0.0  # of whole words
    init_range: float | None = None
    weights: str = "full"  # or bf16: how products read them
    ar: float = 0.0  # penalty on the mean square of what the last layer says, after dropout
    tar: float = 0.0  # on that of its change from step to step, before dropout
    chunk: int = 64  # steps of truncated BPTT
    chunk_spread: float = 0.0  # their standard deviation, drawn anew for each pass
    restart: float = 0.05  # probability that a stream begins a chunk with an empty state
    own: float = 0.0  # scheduled sampling: probability of reading an own draw

    def __post_init__(self) -> None:
        if isinstance(self.chunk, bool) or not isinstance(self.chunk, int) or self.chunk < 1:
            raise ValueError(f"chunk must be positive, got {self.chunk!r}")
        for name in ("ar", "tar", "chunk_spread"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ValueError(f"{name} must not be negative, got {value!r}")
        for name in ("restart", "own"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {value!r}")

    def config(self, vocabulary: Vocabulary) -> LanguageModelConfig:
        own = {f.name for f in fields(LanguageModelConfig)} - {"vocabulary_size"}
        return LanguageModelConfig(len(vocabulary), **{n: getattr(self, n) for n in own})


class LanguagePredictor(TextPredictor[LanguageModel]):
    """A recurrent language model with its vocabulary."""

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


class LanguageTask(TextTask[LanguagePredictor]):
    """A recurrent language model, learned by truncated BPTT with carried state."""

    kind = "lm"
    summary = "language model of characters or words, from any text"
    Options = LanguageOptions
    Predictor = LanguagePredictor

    def __init__(
        self,
        predictor: LanguagePredictor,
        corpus: Corpus,
        options: LanguageOptions,
        settings: Settings,
    ) -> None:
        o = self.options = options
        super().__init__(predictor, corpus, settings, o.chunk, o.own, o.chunk_spread)

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
        corpus, vocabulary = read_text(source, options.level, options.vocabulary)
        model = LanguageModel(options.config(vocabulary), cell=cell, executor=executor)
        return cls(LanguagePredictor(model, vocabulary), corpus, options, settings)

    @property
    def model(self) -> LanguageModel:
        return self.predictor.model

    def begun(self, state: Any) -> Any:
        """The carried state, emptied in a few streams.

        A state that is only ever carried drifts to where no text begins; a model that has
        never met the empty one predicts badly after it.
        """
        if state is None or not self.options.restart:
            return state
        drawn = torch.rand(self._streams.batch)  # of all streams, in every process
        kept = processes.share_rows(drawn, 0) >= self.options.restart  # [B]
        return mapped(lambda s: s * kept.to(s.dtype)[:, None], state)  # [L, B, H]

    def penalty(self, output: torch.Tensor, dropped: torch.Tensor) -> torch.Tensor | float:
        """AR and TAR; see `regularise`."""
        o = self.options
        found: torch.Tensor | float = 0.0
        if o.ar:
            found = found + o.ar * activation_penalty(dropped)
        if o.tar:
            found = found + o.tar * change_penalty(output)
        return found

    def title(self) -> str:
        return f"{self.name} ({self._size()})"

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
