"""The task of the Transformer language model, the control: the same texts, the same loop."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch

from gatewise.equations.cell import Cell
from gatewise.models import processes
from gatewise.models.settings import Settings
from gatewise.models.task import Source
from gatewise.models.text_task import TextPredictor, TextTask, read_text
from gatewise.models.transformer import Cache
from gatewise.models.transformer_model import TransformerConfig, TransformerModel
from gatewise.models.vocabulary import Vocabulary


@dataclass(frozen=True)
class TransformerOptions:
    """What Transformer to train, and how its text is read."""

    level: str = "char"
    vocabulary: int | None = None  # most tokens; None: all characters, 10,000 words
    hidden_size: int = 128
    num_layers: int = 2
    heads: int = 4
    window: int = 256
    dropout: float = 0.0
    tied: bool = True
    chunk: int = 64  # steps; those before it, up to the window, are read from the cache

    def __post_init__(self) -> None:
        if isinstance(self.chunk, bool) or not isinstance(self.chunk, int) or self.chunk < 1:
            raise ValueError(f"chunk must be positive, got {self.chunk!r}")

    def config(self, vocabulary: Vocabulary) -> TransformerConfig:
        own = {f.name for f in fields(TransformerConfig)} - {"vocabulary_size"}
        return TransformerConfig(len(vocabulary), **{n: getattr(self, n) for n in own})


class TransformerPredictor(TextPredictor[TransformerModel]):
    """A Transformer language model with its vocabulary."""

    def to_json(self) -> dict[str, Any]:
        return {"config": self.model.config.to_json(), "vocabulary": self.vocabulary.to_json()}

    @classmethod
    def from_json(
        cls, data: Any, cell: Cell | None = None, executor: str = "auto"
    ) -> TransformerPredictor:
        if not isinstance(data, dict):
            raise ValueError("a Transformer must be an object")
        if cell is not None:
            raise ValueError("a Transformer has no cell")
        config = TransformerConfig.from_json(data.get("config"))
        vocabulary = Vocabulary.from_json(data.get("vocabulary"))
        if len(vocabulary) != config.vocabulary_size:
            raise ValueError("the vocabulary has another size than the model")
        return cls(TransformerModel(config), vocabulary)


class TransformerTask(TextTask[TransformerPredictor]):
    """A causal Transformer language model; its cache is carried from chunk to chunk."""

    kind = "transformer"
    summary = "the control of lm: a causal Transformer language model"
    Options = TransformerOptions
    Predictor = TransformerPredictor

    @classmethod
    def begin(
        cls,
        source: Source,
        options: TransformerOptions,
        settings: Settings,
        cell: Cell | None = None,
        executor: str = "auto",
    ) -> TransformerTask:
        if cell is not None:
            raise ValueError("cell is not an option of the task transformer")
        corpus, vocabulary = read_text(source, options.level, options.vocabulary)
        predictor = TransformerPredictor(TransformerModel(options.config(vocabulary)), vocabulary)
        return cls(predictor, corpus, settings, options.chunk)

    def title(self) -> str:
        config = self.predictor.model.config
        return f"{self.name} (Transformer, {config.num_layers} × {config.hidden_size})"

    def carried(self) -> dict[str, torch.Tensor]:
        if self._state is None:
            return {}
        return {
            "keys": processes.whole_rows(torch.stack([c.keys for c in self._state]), 1),
            "values": processes.whole_rows(torch.stack([c.values for c in self._state]), 1),
            "read": torch.tensor(self._state[0].read),
        }

    def carry(self, tensors: dict[str, torch.Tensor]) -> None:
        self._state = None
        if tensors:
            both = zip(
                *(processes.share_rows(tensors[n], 1) for n in ("keys", "values")), strict=True
            )
            self._state = tuple(Cache(k, v, int(tensors["read"])) for k, v in both)
