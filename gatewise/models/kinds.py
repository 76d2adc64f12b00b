"""The kinds of models there are; a kind's file is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from gatewise.models.task import Task

KINDS = {
    "lm": "gatewise.models.language_task:LanguageTask",
    "classify": "gatewise.models.classify_task:ClassifyTask",
    "speech": "gatewise.models.classify_task:SpeechTask",
    "forecast": "gatewise.models.forecast_task:ForecastTask",
    "transformer": "gatewise.models.transformer_task:TransformerTask",
    "bilm": "gatewise.models.bilm_task:ContextTask",
    "tag": "gatewise.models.tag_task:TagTask",
    "translate": "gatewise.models.translate_task:TranslateTask",
}
# What the end of a file's name says of it.
_OBVIOUS = {".conllu": "tag", ".conll": "tag", ".wav": "speech", ".jsonl": "classify"}


def find_kind(name: str) -> type[Task[Any]]:
    """The task of that name; ValueError for one that there is not."""
    if name not in KINDS:
        raise ValueError(f"task must be one of {', '.join(KINDS)}, got {name!r}")
    module, _, attribute = KINDS[name].partition(":")
    return getattr(import_module(module), attribute)


def guess_kind(path: Path | None) -> str:
    """The kind that the data at `path` is obviously for; text is for a language model."""
    if path is not None:
        names = [path.name, *(p.name for p in path.iterdir())] if path.is_dir() else [path.name]
        for suffix, kind in _OBVIOUS.items():
            if any(n.removesuffix(".gz").endswith(suffix) for n in names):
                return kind
    return "lm"
