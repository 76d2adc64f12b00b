"""The kinds of models there are; a kind's file is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from gatewise.models.table import TABLES, column_names
from gatewise.models.task import Task

KINDS = {
    "lm": "gatewise.models.language_task:LanguageTask",
    "classify": "gatewise.models.classify_task:ClassifyTask",
    "speech": "gatewise.models.classify_task:SpeechTask",
    "forecast": "gatewise.models.forecast_task:ForecastTask",
    "anomaly": "gatewise.models.anomaly_task:AnomalyTask",
    "transformer": "gatewise.models.transformer_task:TransformerTask",
    "bilm": "gatewise.models.bilm_task:ContextTask",
    "tag": "gatewise.models.tag_task:TagTask",
    "translate": "gatewise.models.translate_task:TranslateTask",
}
# What the end of a file's name says of it.
_OBVIOUS = {".conllu": "tag", ".conll": "tag", ".wav": "speech", ".jsonl": "classify"}
_PARALLEL = {"train.de", "train.en"}  # the languages of a translator, where none are named


def find_kind(name: str) -> type[Task[Any]]:
    """The task of that name; ValueError for one that there is not."""
    if name not in KINDS:
        raise ValueError(f"task must be one of {', '.join(KINDS)}, got {name!r}")
    module, _, attribute = KINDS[name].partition(":")
    return getattr(import_module(module), attribute)


def guess_kind(path: Path | None) -> str:
    """The kind that the data at `path` is obviously for; text is for a language model.

    Of a table its columns tell: a label beside a text or values to classify, a timestamp and a
    value for a stream of one series; any other is forecast.
    """
    if path is None or not path.exists():
        return "lm"
    if path.is_file() and path.suffix.lower() in TABLES:
        return _kind_of_table(set(column_names(path)))
    inside = [*path.iterdir(), *path.glob("*/*")] if path.is_dir() else [path]
    names = {p.name.lower().removesuffix(".gz") for p in inside}
    for suffix, kind in _OBVIOUS.items():
        if any(n.endswith(suffix) for n in names):
            return kind
    return "translate" if names >= _PARALLEL else "lm"


def _kind_of_table(columns: set[str]) -> str:
    if columns >= {"timestamp", "value"}:
        return "anomaly"
    return "classify" if "label" in columns else "forecast"
