"""The 1997 LSTM with a part replaced, on the faithful track; and whole, where S claims figures.

Everything else is a row of the paper: its task, rate, biases, criterion and limit. S is a table
that circulates as the results of Hochreiter & Schmidhuber (1997); see `claims`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from gatewise.cells import LSTM1997
from gatewise.equations import Cell
from gatewise.equations.functions import constant, sigmoid
from gatewise.lab.claims import TRIALS, S
from gatewise.lab.experiment import Experiment, Published
from gatewise.lab.paper1997 import NAME, ROWS, Settings, criterion

_ONE = constant(1.0)


@dataclass(frozen=True)
class Ablated(Settings):
    """A row of the paper whose cell has another part.

    Args:
        part: a name in PARTS.
        forget_bias: of the forget gates, where there are any.
    """

    part: str = "full"
    forget_bias: tuple[float, ...] = ()

    @property
    def listed(self) -> dict[str, tuple[float, ...]]:
        return super().listed | {"forget": self.forget_bias}

    def make(self) -> Cell:
        """The cell."""
        return PARTS[self.part](self)


def _with(**parts: Any) -> Callable[[Ablated], Cell]:
    return lambda s: LSTM1997(**{"block_size": s.size, "biased": s.biased} | parts)


PARTS: dict[str, Callable[[Ablated], Cell]] = {
    "full": _with(),
    "no-input-gate": _with(input=_ONE),
    "no-output-gate": _with(output=_ONE),
    "raw-cec": _with(input=_ONE, output=_ONE),
    "self-weight-0.9": _with(self_weight=0.9),
    "self-weight-1.1": _with(self_weight=1.1),
    "gates-per-cell": _with(block_size=1),
    # Gers et al. (2000): one forget gate a block, nothing else changed.
    "forget-gate-1": _with(forget=sigmoid),
    "forget-gate-5": _with(forget=sigmoid),
}
_WORDS = {
    "full": "as it is",
    "no-input-gate": "without input gates",
    "no-output-gate": "without output gates",
    "raw-cec": "without gates, the raw carousel",
    "self-weight-0.9": "with the carousel's self-weight 0.9",
    "self-weight-1.1": "with the carousel's self-weight 1.1",
    "gates-per-cell": "with gates of its own for every cell",
    "forget-gate-1": "with forget gates of bias 1",
    "forget-gate-5": "with forget gates of bias 5",
}

# Benchmark -> the row of the paper it stands on, and the length where it is another one.
_BASES: dict[str, tuple[str, int]] = {
    "reber": ("1-2", 0),
    "adding-100": ("4-1", 100),
    "multiplication-100": ("5-1", 100),
    "order-100": ("6a", 100),
    "order-3-100": ("6b", 100),
    "order-1000": ("6a", 1000),
    "adding-1000": ("4-3", 1000),
    "multiplication-1000": ("5-1", 1000),
}
_FULL = dict(zip(_BASES, (10, 10, 10, 10, 8, 9, 6, 5), strict=True))
_THREE = ("reber", "adding-100", "order-1000")
_STATED: dict[str, tuple[int, int, int]] = {  # successes of ten, on those three
    "no-input-gate": (4, 0, 0),
    "no-output-gate": (6, 3, 1),
    "self-weight-0.9": (8, 0, 0),
    "self-weight-1.1": (0, 0, 0),
    "gates-per-cell": (10, 10, 9),
}


def _experiment(part: str, benchmark: str, stated: int | None) -> Experiment:
    base, length = _BASES[benchmark]
    row = ROWS[base]
    plain = {n: getattr(row.settings, n) for n in row.settings.__dataclass_fields__}
    settings = Ablated(**plain, part=part)
    if length:
        settings = replace(settings, arguments=settings.arguments | {"length": length})
    if part == "gates-per-cell":
        biases = {n: getattr(settings, n) for n in ("input_bias", "output_bias")}
        every = {n: tuple(v for v in b for _ in range(settings.size)) for n, b in biases.items()}
        settings = replace(settings, **every)
    if part.startswith("forget-gate"):
        settings = replace(
            settings,
            biased=("forget", *settings.biased),
            forget_bias=(float(part[-1]),) * settings.blocks,
        )
    published = () if stated is None else (Published("successes", stated, S, TRIALS),)
    return Experiment(
        f"{part}/{benchmark}",
        NAME,
        f"Does the 1997 LSTM {_WORDS[part]} learn {benchmark}?",
        settings,
        TRIALS,
        row.limit,
        criterion(settings),
        published,
        ("ablations", "S", part, benchmark) if stated is not None else ("ablations", part),
    )


EXPERIMENTS: tuple[Experiment, ...] = (
    *(_experiment("full", b, stated) for b, stated in _FULL.items()),
    *(_experiment(p, b, n) for p, row in _STATED.items() for b, n in zip(_THREE, row, strict=True)),
    *(_experiment(p, b, None) for p in PARTS if p not in ("full", *_STATED) for b in _THREE),
)
