"""An experiment is data; how a trial of it is run belongs to its track.

    experiment  name, what it asks, settings, number of trials, limit, published figures
    track       a function: settings and some trials in, progress and outcomes out

The runner and the report know nothing else, so an experiment of a user is run and reported as the
shipped ones are.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import (
    MISSING,
    asdict,
    dataclass,
    field,
    fields,
    is_dataclass,
    make_dataclass,
    replace,
)
from pathlib import Path
from typing import Any

import torch

State = Mapping[str, torch.Tensor]
FIGURES = ("successes", "sequences", "wrong")


@dataclass(frozen=True)
class Published:
    """A figure somebody has printed, to stand beside ours.

    Args:
        figure: "successes" (of `trials`), "sequences" (mean number to success, of the trials that
            succeeded) or "wrong" (test sequences).
        value: the figure; a claim of a bound is its limit.
        source: who printed it.
        trials: of how many trials it is the result; 0: not said. 0 successes of 0 trials is a
            claim in words: it fails.
        note: what the table should say besides, such as the range.
    """

    figure: str
    value: float
    source: str
    trials: int = 0
    note: str = ""

    def __post_init__(self) -> None:
        if self.figure not in FIGURES:
            raise ValueError(f"figure must be one of {', '.join(FIGURES)}, got {self.figure!r}")
        if self.figure == "successes" and not 0 <= self.value <= self.trials:
            raise ValueError(f"value must be 0…{self.trials} successes, got {self.value}")


@dataclass(frozen=True)
class Experiment:
    """One row of the lab.

    Args:
        name: unique; the paper's own number where it has one ("2c-1").
        track: name of the `Track` that runs it.
        asks: one sentence.
        settings: a frozen dataclass of plain data, read by the track. A field `cell` holds a name
            that `get_cell` knows, and is what `with_cell` replaces.
        trials: how many the full experiment has.
        limit: most training sequences of a trial; a trial that reaches it has failed.
        criterion: success, in words.
        published: figures to compare with.
        tags: further words that select it.
        budget: what a trial may spend on its settings, in words, where it searches them itself.

    Raises:
        TypeError: settings that are no dataclass of plain data.
        ValueError: an empty name, or trials or limit below 1.
    """

    name: str
    track: str
    asks: str
    settings: Any
    trials: int
    limit: int
    criterion: str
    published: tuple[Published, ...] = ()
    tags: tuple[str, ...] = ()
    budget: str = ""

    def __post_init__(self) -> None:
        if not self.name or any(c.isspace() for c in self.name):
            raise ValueError(f"name must be a word, got {self.name!r}")
        for name in ("trials", "limit"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not is_dataclass(self.settings) or isinstance(self.settings, type):
            raise TypeError(f"settings must be a dataclass, got {type(self.settings).__name__}")
        json.dumps(asdict(self.settings))

    @property
    def stamp(self) -> str:
        """What a result depends on besides seed and code, as canonical JSON."""
        found: dict[str, Any] = {
            "name": self.name,
            "track": self.track,
            "settings": asdict(self.settings),
            "limit": self.limit,
        }
        cell = found["settings"].get("cell")
        if isinstance(cell, str) and ".py:" in cell:  # another text is another experiment
            file = Path(cell.rsplit(":", 1)[0])
            found["cell_file"] = hashlib.sha256(file.read_bytes()).hexdigest()
        return json.dumps(found, sort_keys=True, ensure_ascii=False)

    @property
    def key(self) -> str:
        """The stamp's digest: results are filed under it."""
        return hashlib.sha256(self.stamp.encode()).hexdigest()[:16]

    def continues(self, stamp: str) -> bool:
        """Is it the stamp of the same experiment, from before some of its settings existed?

        What was run before a setting existed counts as run with its default.
        """
        if f'"name": {json.dumps(self.name, ensure_ascii=False)}' not in stamp:
            return False  # nearly always; the rest takes a while
        then = json.loads(stamp)
        # As JSON, in which a tuple is a list; a field without a default equals nothing.
        filled = json.dumps(_completed(self.settings, then["settings"]), default=repr)
        return json.loads(self.stamp) == then | {"settings": json.loads(filled)}

    @property
    def details(self) -> str:
        """What it asks, and the budget."""
        return f"{self.asks} {self.budget}.".removesuffix(" .")

    def record(self) -> dict[str, Any]:
        """Everything as plain data; `from_record` reads it back."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Experiment:
        """An experiment to be shown, also where the code that ran it is not there any more."""
        given = dict(record)
        plain = given["settings"]
        settings = make_dataclass("Settings", list(plain), frozen=True)(**plain)
        published = tuple(Published(**p) for p in given["published"])
        parts = {"settings": settings, "published": published, "tags": tuple(given["tags"])}
        return cls(**given | parts)

    def with_cell(self, cell: str) -> Experiment:
        """The same experiment with another cell, under a name of its own.

        Raises:
            ValueError: settings without a cell.
        """
        if "cell" not in {f.name for f in fields(self.settings)}:
            raise ValueError(f"{self.name} has no cell to be replaced")
        if ".py:" in cell:  # a trial may run in a process that stands in another folder
            file, _, name = cell.rpartition(":")
            cell = f"{Path(file).resolve()}:{name}"
        settings = replace(self.settings, cell=cell)
        return replace(self, name=f"{self.name}+{Path(cell).name}", settings=settings, published=())


def _completed(settings: Any, then: dict[str, Any]) -> dict[str, Any]:
    """Older settings, as plain data, with the defaults of the fields they lack."""
    found = dict(then)
    for f in fields(settings):
        own = getattr(settings, f.name)
        if f.name not in then:
            default = f.default if f.default_factory is MISSING else f.default_factory()
            found[f.name] = asdict(default) if is_dataclass(default) else default  # type: ignore
        elif is_dataclass(own) and isinstance(then[f.name], dict):
            found[f.name] = _completed(own, then[f.name])
    return found


@dataclass(frozen=True)
class Work:
    """Trials `first` … `first + count - 1` of one seed, to be run together."""

    seed: int
    first: int
    count: int
    limit: int  # most training sequences of a trial
    state: State | None = None  # where an interrupted run of the same work stood

    @property
    def trials(self) -> range:
        return range(self.first, self.first + self.count)

    def seed_of(self, trial: int, purpose: str = "") -> int:
        """63 bits for a trial's random numbers; other purposes are independent.

        >>> Work(seed=0, first=0, count=1, limit=1).seed_of(0, "weights")
        6114210651174087966
        """
        text = f"{self.seed}/{trial}/{purpose}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1

    def generator(self, trial: int, purpose: str = "") -> torch.Generator:
        """torch's random numbers from `seed_of`."""
        return torch.Generator().manual_seed(self.seed_of(trial, purpose))


@dataclass(frozen=True)
class Spent:
    """Seconds by the clock, and of the processor (None where they were not recorded)."""

    clock: float = 0.0
    cpu: float | None = 0.0

    def __add__(self, other: Spent) -> Spent:
        both = None if self.cpu is None or other.cpu is None else self.cpu + other.cpu
        return Spent(self.clock + other.clock, both)


@dataclass(frozen=True)
class Progress:
    """Where work stands. A track yields one every second or so, and is interrupted only there."""

    done: float  # share of the work at most left, in [0, 1]
    note: str = ""  # for the live table: "3 of 16 solved, error 0.02"
    state: Callable[[], State] | None = None  # to continue from; called only when it is kept


@dataclass(frozen=True)
class Activity:
    """What a solved network did over one test sequence, for a picture.

    `lines` are values by step, of a gate, a state or an output, by name; `marks` the steps that
    carry information, `label` says what the sequence was.
    """

    lines: dict[str, list[float]]
    marks: tuple[int, ...] = ()
    label: str = ""


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Args:
        trial: its number.
        success: was the criterion met within the limit?
        sequences: training sequences drawn, until success or in all.
        numbers: further measurements by name: "weights", "test_wrong" (of "test_count"),
            "test_error", …; the report shows them all.
        curve: (training sequences, error) along the way; some hundred points at most.
        activity: of a solved network, where the track can show it.
    """

    trial: int
    success: bool
    sequences: int
    numbers: dict[str, float] = field(default_factory=dict)
    curve: tuple[tuple[int, float], ...] = ()
    activity: Activity | None = None


@dataclass(frozen=True)
class Track:
    """A way to run trials.

    Args:
        name: what experiments call it.
        title: one line for the report.
        run: settings and work to progress and outcomes. It must give the same outcomes for the
            same work, whether it is interrupted and continued from a state or not; outcomes may
            come in any order, and one that was given before an interruption may come again.
        batch: most trials that one call runs, for given settings. They run in one process.
        check: raises ValueError or TypeError for settings that it cannot run.
    """

    name: str
    title: str
    run: Callable[[Any, Work], Iterator[Progress | Outcome]]
    batch: Callable[[Any], int] = lambda settings: 1
    check: Callable[[Any], object] = lambda settings: None


def from_file(reference: str) -> list[Experiment]:
    """Experiments that a user's file defines: `FILE.py:NAME`, an Experiment or a list of them.

    The file is run. Its track must be one of `gatewise.lab.TRACKS`, or be added to it there.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that cannot be run, or no experiment of that name in it.
    """
    file, _, name = reference.rpartition(":")
    path = Path(file).resolve()
    if not path.is_file():
        raise FileNotFoundError(f"no experiment file {file}")
    spec = importlib.util.spec_from_file_location(f"gatewise_user_experiment_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"{file} cannot be run: {type(error).__name__}: {error}") from error
    found = getattr(module, name, None)
    listed = [found] if isinstance(found, Experiment) else found
    if not isinstance(listed, list | tuple) or not all(isinstance(e, Experiment) for e in listed):
        raise ValueError(f"{file} has no Experiment, or list of them, called {name}")
    return list(listed)
