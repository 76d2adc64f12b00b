"""A training run in a folder: begun, resumed, finished with its pictures."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from gatewise.equations.cell import Cell
from gatewise.models.checkpoint import CheckpointError, has_checkpoint, load_checkpoint
from gatewise.models.kinds import KINDS, find_kind
from gatewise.models.saved import load_settings
from gatewise.models.settings import Settings
from gatewise.models.task import Source, Task, check_cell, options_from
from gatewise.models.training import Trainer


@dataclass(frozen=True)
class Run:
    """A trainer with its task."""

    trainer: Trainer

    @property
    def task(self) -> Task[Any]:
        return self.trainer.task

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.task.model.parameters())


def check_empty(out: str | Path) -> None:
    """Raise ValueError where `out` holds anything that a new run would mix with."""
    path = Path(out)
    if path.exists() and not path.is_dir():
        raise ValueError(f"--out must name a folder, {out} is a file")
    if path.is_dir() and any(path.iterdir()):
        raise ValueError(f"{out} is not empty: continue with --resume or name another folder")


def begin(
    out: str | Path,
    kind: str,
    source: Source,
    options: Any,
    settings: Settings,
    cell: Cell | None = None,
    executor: str = "auto",
) -> Run:
    """A new run; nothing is written before training starts.

    `options` are those of the kind, `find_kind(kind).Options`. Raises ValueError, TypeError or
    OSError for what cannot be trained.
    """
    task_type = find_kind(kind)
    if not isinstance(options, task_type.Options):
        raise TypeError(f"options must be {task_type.Options.__name__}, got {options!r}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        task = task_type.begin(source, options, settings, cell, executor)
    origin = {
        "path": None if source.path is None else str(source.path.resolve()),
        "held_out": None if source.held_out is None else str(source.held_out.resolve()),
        "options": asdict(options),
    }
    return Run(Trainer(task, settings, out, origin))


def resume(
    out: str | Path,
    path: str | Path | None = None,
    cell: Cell | None = None,
    executor: str = "auto",
    held_out: str | Path | None = None,
    test: str | Path | None = None,
) -> Run:
    """The run in `out`, where its latest checkpoint left it.

    `path`, `held_out` and `test` are for data that has moved. It is begun again from the same data
    and settings, then its numbers are put back. Raises CheckpointError where there is none, it is
    damaged or the data has changed.
    """
    checkpoint = load_checkpoint(out)
    record, where = checkpoint.record, checkpoint.path
    kind, origin = record.get("kind"), record.get("origin")
    if not isinstance(kind, str) or kind not in KINDS or not isinstance(origin, dict):
        raise CheckpointError(f"{where} is damaged: it does not say what it was trained on")
    places = {"path": path, "held_out": held_out}
    paths = [origin.get(n) if p is None else str(p) for n, p in places.items()]
    if not all(isinstance(p, str | None) for p in paths):
        raise CheckpointError(f"{where} is damaged: its source is no path")
    settings = load_settings(record)
    try:
        options = options_from(find_kind(kind).Options, origin["options"])
    except (TypeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{where} is damaged: {error}") from None
    try:
        check_cell(options, cell)
    except ValueError as error:
        raise CheckpointError(f"{out} cannot be used: {error}") from None
    source = Source(*(None if p is None else Path(p) for p in paths))
    run = begin(out, kind, source, options, settings, cell, executor)
    run.trainer.origin = {**origin, **run.trainer.origin}  # where the data is now, if it moved
    if test is not None:
        run.trainer.origin["test"] = str(Path(test).resolve())
    run.trainer.restore(checkpoint)
    return run


def can_resume(out: str | Path) -> bool:
    """Is there a completed checkpoint in `out`?"""
    return has_checkpoint(out)


def picture(run: Run) -> list[Path]:
    """Draw the learning curve, and what this kind of model can show; the files written."""
    from gatewise.models.plots import plot_learning_curve

    out, task = run.trainer.out, run.task
    curve, best = out / "learning_curve.png", run.trainer.progress.best_step
    names = (task.loss_name, task.metric)
    plot_learning_curve(run.trainer.history, curve, task.title(), *names, best)
    return [curve, *task.pictures(out)]


def summary(run: Run) -> dict[str, Any]:
    """What came out, for people and programs: the figures are those of the best checkpoint."""
    p, task, history = run.trainer.progress, run.task, run.trainer.history
    best = next((h for h in history if h["step"] == p.best_step), {})
    return {
        "out": str(run.trainer.out),
        "task": task.kind,
        "data": task.name,
        "about": task.about(),
        "parameters": run.parameters,
        "steps": p.step,
        "planned_steps": p.total,
        "seconds": round(p.seconds, 3),
        f"{task.items}_seen": round(p.items),
        f"{task.items}_per_second": round(p.items / p.seconds) if p.seconds else None,
        "finished": p.finished,
        "stopped_early": p.finished and p.total is not None and p.step < p.total,
        "best_step": p.best_step if best else None,
        **{name: v for name, v in best.items() if name.startswith("held_out_")},
    }
