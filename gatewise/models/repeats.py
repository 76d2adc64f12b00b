"""A training repeated: with several seeds, or with every part of the data left out in turn."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from gatewise.equations.cell import Cell
from gatewise.models import processes, runs
from gatewise.models.checkpoint import write_atomically
from gatewise.models.evaluation import Figures
from gatewise.models.kinds import find_kind
from gatewise.models.runs import Run
from gatewise.models.settings import Settings
from gatewise.models.task import Source, check_cell, options_from

_FILE = "repeats.json"
_MOST = 100  # trainings
_OWN = {"seed", "leave_out"}  # what parts may differ in


@dataclass(frozen=True)
class Plan:
    """A training that has not begun: the kind of model, its data, how to train."""

    kind: str
    source: Source
    test: Path | None  # what the best checkpoint is evaluated on in the end
    options: Any  # of the kind
    settings: Settings

    def begin(self, out: Path, cell: Cell | None, executor: str) -> Run:
        """A new run; see `runs.begin`."""
        run = runs.begin(out, self.kind, self.source, self.options, self.settings, cell, executor)
        if self.test is not None:
            run.trainer.origin["test"] = str(self.test.resolve())
        return run

    def to_json(self) -> dict[str, Any]:
        paths = {"path": self.source.path, "held_out": self.source.held_out, "test": self.test}
        return {
            "kind": self.kind,
            **{n: None if p is None else str(p.resolve()) for n, p in paths.items()},
            "options": asdict(self.options),
            "settings": asdict(self.settings),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Plan:
        path, held_out, test = (
            None if data[n] is None else Path(data[n]) for n in ("path", "held_out", "test")
        )
        options = options_from(find_kind(data["kind"]).Options, data["options"])
        settings = Settings(**data["settings"])
        return cls(data["kind"], Source(path, held_out), test, options, settings)


@dataclass(frozen=True)
class Repeats:
    """Trainings that differ from one plan in little, each in its own folder."""

    plan: Plan
    parts: dict[str, dict[str, Any]]  # folder -> the option or setting that is its own
    threads: int

    def run(self, out: Path, part: str, cell: Cell | None, executor: str) -> Run:
        """The run of a part: the one in its folder, or a new one."""
        folder, own, plan = out / part, self.parts[part], self.plan
        if runs.can_resume(folder):
            source = plan.source
            return runs.resume(folder, source.path, cell, executor, source.held_out, plan.test)
        if "seed" in own:
            plan = replace(plan, settings=replace(plan.settings, **own))
        else:
            plan = replace(plan, options=replace(plan.options, **own))
        return plan.begin(folder, cell, executor)

    def moved(self, path: Path | None, held_out: Path | None, test: Path | None) -> Repeats:
        """The same with the data that is given in place of where it was."""
        plan, source = self.plan, self.plan.source
        if test is None and plan.test == source.path:  # parts of the same data are left out
            test = path
        source = Source(path or source.path, held_out or source.held_out)
        return replace(self, plan=replace(plan, source=source, test=test or plan.test))

    def save(self, out: Path) -> None:
        """Write the plan, so that `load_repeats` can go on."""
        out.mkdir(parents=True, exist_ok=True)
        told = {"plan": self.plan.to_json(), "parts": self.parts, "threads": self.threads}
        write_atomically(out / _FILE, json.dumps(told, indent=1).encode())


def load_repeats(out: Path, cell: Cell | None = None) -> Repeats | None:
    """The repeats that were begun in `out`, if any.

    Raises ValueError where their file is damaged, or asks for a cell that is neither known nor
    given: it runs no code.
    """
    path = out / _FILE
    if not path.exists():
        return None
    _check_alone()
    try:
        data = json.loads(path.read_bytes())
        parts = {str(n): dict(own) for n, own in data["parts"].items()}
        odd = [n for n, own in parts.items() if not re.fullmatch(r"[\w-]+", n) or len(own) != 1]
        if odd or not parts:
            raise ValueError(f"no part can be called {odd}")
        if not all(own.keys() <= _OWN for own in parts.values()):
            raise ValueError(f"parts differ in {' or '.join(sorted(_OWN))} alone")
        found = Repeats(Plan.from_json(data["plan"]), parts, int(data["threads"]))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    try:
        check_cell(found.plan.options, cell)
    except ValueError as error:
        raise ValueError(f"{out} cannot be continued: {error}") from None
    return found


def _check_alone() -> None:
    if processes.count() > 1:
        raise ValueError("seeds and folds train in one process, not under torchrun")


def repeated(plan: Plan, seeds: int | None, folds: str | None) -> Repeats | None:
    """The plan with several seeds or by folds; None where neither is wanted.

    Raises ValueError where it cannot be repeated so.
    """
    if seeds is None and folds is None:
        return None
    if seeds is not None and folds is not None:
        raise ValueError("seeds and folds cannot both be given")
    _check_alone()
    if folds is not None:
        if plan.source.path is None or not hasattr(plan.options, "leave_out"):
            raise ValueError("folds is for data with examples to leave out: classify, speech")
        if plan.options.leave_out:
            raise ValueError(
                "folds and leave_out cannot both be given: a fold leaves out examples of its own"
            )
        path = plan.source.path
        names = [example.name for example in plan.options.reader(path).read(path)]
        plan = replace(plan, test=plan.test or path)
        return Repeats(plan, of_folds(names, folds), torch.get_num_threads())
    if plan.test is None:
        raise ValueError("seeds needs --test, the data that the models are compared on")
    parts = of_seeds(seeds or 0, plan.settings.seed)
    return Repeats(plan, parts, torch.get_num_threads())


def of_seeds(count: int, first: int) -> dict[str, dict[str, Any]]:
    """Parts that differ in their seed: `count` of them, from `first` on."""
    if not 2 <= count <= _MOST:
        raise ValueError(f"seeds must be between 2 and {_MOST}, got {count}")
    return {f"seed-{k}": {"seed": k} for k in range(first, first + count)}


def of_folds(names: Sequence[str], pattern: str) -> dict[str, dict[str, Any]]:
    """Parts that each leave out the examples in whose names `pattern` finds the same text.

    >>> list(of_folds(["7_ann_0.wav", "7_bob_0.wav", "8_ann_0.wav"], "_[a-z]+_"))
    ['ann', 'bob']

    Raises ValueError where it finds nothing in a name, the same everywhere, more than 100 texts,
    or a text that stands in a name of another fold too.
    """
    try:
        found = [re.search(pattern, n) for n in names]
    except re.error as error:
        raise ValueError(f"folds {pattern!r} is no regular expression: {error}") from None
    texts = [f.group(0) if f else "" for f in found]
    if "" in texts:
        raise ValueError(f"folds {pattern!r} finds nothing in the name {names[texts.index('')]}")
    different = sorted(set(texts))
    if not 2 <= len(different) <= _MOST:
        raise ValueError(
            f"folds {pattern!r} must find between 2 and {_MOST} texts, it finds {len(different)}"
        )
    for text in different:
        mixed = [n for n, own in zip(names, texts, strict=True) if text in n and own != text]
        if mixed:
            raise ValueError(f"folds {pattern!r}: {text!r} is in {mixed[0]}, of another fold")
    folders = [re.sub(r"\W", "", t).strip("_") or f"fold{k}" for k, t in enumerate(different)]
    if len(set(folders)) < len(folders):
        folders = [f"fold{k}" for k in range(len(different))]
    return {f: {"leave_out": re.escape(t)} for f, t in zip(folders, different, strict=True)}


def spread(found: Figures) -> Mapping[str, tuple[float, float]]:
    """Mean and standard deviation of every figure that all have."""
    first, *others = found.values()
    common = [n for n in first if all(n in o for o in others)]
    values = {n: [f[n] for f in found.values()] for n in common}
    return {n: (mean(v), stdev(v)) for n, v in values.items()}
