"""A training run in a folder: begun, resumed, finished with its pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gatewise.cells import get_cell
from gatewise.equations.cell import Cell
from gatewise.equations.trace import trace
from gatewise.models.checkpoint import CheckpointError, has_checkpoint
from gatewise.models.corpus import Corpus, read_corpus
from gatewise.models.language_model import LanguageModel, LanguageModelConfig
from gatewise.models.training import Settings, Trainer, load_language_model, load_settings
from gatewise.models.vocabulary import Vocabulary

_SHOWN = 100  # tokens in the picture of the gates
_WARM = 400  # tokens read before them, so that the state is not the empty one


@dataclass(frozen=True)
class Architecture:
    """What model a run trains; the vocabulary's size comes from the text."""

    cell: str = "lstm"
    embedding_size: int = 64
    hidden_size: int = 256
    num_layers: int = 1
    dropout: float = 0.0
    tied: bool = False


@dataclass(frozen=True)
class Run:
    """A trainer with the text it reads."""

    trainer: Trainer
    corpus: Corpus

    @property
    def model(self) -> LanguageModel:
        return self.trainer.model

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())


def check_empty(out: str | Path) -> None:
    """Raise ValueError where `out` holds anything that a new run would mix with."""
    path = Path(out)
    if path.exists() and not path.is_dir():
        raise ValueError(f"--out must name a folder, {out} is a file")
    if path.is_dir() and any(path.iterdir()):
        raise ValueError(f"{out} is not empty: continue with --resume or name another folder")


def begin(
    out: str | Path,
    path: str | Path | None,
    level: str,
    architecture: Architecture,
    settings: Settings,
    max_vocabulary: int | None = None,
    executor: str = "auto",
) -> Run:
    """A new run; nothing is written before training starts.

    Raises ValueError, TypeError or OSError for what cannot be trained.
    """
    cell = get_cell(architecture.cell)
    corpus = read_corpus(path)
    # Words seen once would be learned from one example; they teach the unknown token instead.
    rare = 2 if level == "word" else 1
    vocabulary = Vocabulary.build(corpus.train, level, max_vocabulary, min_count=rare)
    config = LanguageModelConfig(vocabulary_size=len(vocabulary), **vars(architecture))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = LanguageModel(config, cell=cell, executor=executor)
    source = {"path": None if path is None else str(Path(path).resolve())}
    return Run(Trainer(model, vocabulary, corpus, settings, out, source), corpus)


def resume(
    out: str | Path,
    path: str | Path | None = None,
    cell: Cell | None = None,
    executor: str = "auto",
) -> Run:
    """The run in `out`, where its latest checkpoint left it; `path` where the text has moved.

    Raises CheckpointError where there is none, it is damaged or the text has changed.
    """
    model, vocabulary, checkpoint = load_language_model(out, "latest", cell, executor)
    source = checkpoint.record.get("source")
    if not isinstance(source, dict) or not isinstance(source.get("path"), str | None):
        raise CheckpointError(f"{checkpoint.path} is damaged: its source is no path")
    corpus = read_corpus(source["path"] if path is None else path)
    trainer = Trainer(model, vocabulary, corpus, load_settings(checkpoint.record), out, source)
    trainer.restore(checkpoint)
    return Run(trainer, corpus)


def can_resume(out: str | Path) -> bool:
    """Is there a completed checkpoint in `out`?"""
    return has_checkpoint(out)


def picture(run: Run) -> list[Path]:
    """Draw the learning curve and the gates of the best model; the files written."""
    from gatewise.models.plots import plot_activity, plot_learning_curve

    out, config = run.trainer.out, run.model.config
    curve, gates = out / "learning_curve.png", out / "gate_activity.png"
    size = f"{config.cell}, {config.num_layers} × {config.hidden_size} units"
    plot_learning_curve(run.trainer.history, curve, f"{run.corpus.name} ({size})")
    model, vocabulary, _ = load_language_model(out, "best", run.model.recurrent.cell)
    tokens = vocabulary.encode(run.corpus.held_out[: 20 * (_WARM + _SHOWN)])
    tokens = tokens[: _WARM + _SHOWN]
    shown = tokens[-min(_SHOWN, len(tokens)) :]
    records = {
        name: values[:, -len(shown) :]
        for name, values in model.activity(tokens, signal_names(model)).items()
    }
    labels = [vocabulary.tokens[k] for k in shown.tolist()]
    where = f", layer {config.num_layers}" if config.num_layers > 1 else ""
    title = f"Gates and states over held-out text ({size}{where})"
    plot_activity(labels, records, gates, title, trace(model.recurrent.cell).output)
    return [curve, gates]


def signal_names(model: LanguageModel) -> list[str]:
    """The gates, then the states of a model's cell, the output first among these."""
    traced = trace(model.recurrent.cell)
    gates = [g for g in traced.gates if g not in traced.states]
    return [
        *gates,
        *(s for s in traced.states if s in traced.gates),
        *(s for s in traced.states if s not in traced.gates),
    ]


def summary(run: Run) -> dict[str, Any]:
    """What came out, for people and programs."""
    p, history = run.trainer.progress, run.trainer.history
    best = min(history, key=lambda h: h["held_out_bits_per_character"], default=None)
    return {
        "out": str(run.trainer.out),
        "corpus": run.corpus.name,
        "characters": {"train": len(run.corpus.train), "held_out": len(run.corpus.held_out)},
        "vocabulary": len(run.trainer.vocabulary),
        "parameters": run.parameters,
        "steps": p.step,
        "planned_steps": p.total,
        "seconds": round(p.seconds, 3),
        "characters_seen": round(p.characters),
        "characters_per_second": round(p.characters / p.seconds) if p.seconds else None,
        "finished": p.finished,
        "stopped_early": p.finished and p.total is not None and p.step < p.total,
        "best_step": p.best_step if best else None,
        "held_out_bits_per_character": best and best["held_out_bits_per_character"],
        "held_out_perplexity": best and best["held_out_perplexity"],
    }
