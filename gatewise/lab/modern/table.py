"""The eight benchmarks and longer ones, with one recipe; the search that found it; other cells.

The recipe is `Recipe()`. It was chosen by the rows tagged `search`, on trials of their own; each
changes one thing where the search began. `gatewise lab run search` repeats it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gatewise.lab.benchmarks import BENCHMARKS
from gatewise.lab.experiment import Experiment, Published
from gatewise.lab.families import FAMILIES
from gatewise.lab.modern.network import TRANSFORMER
from gatewise.lab.modern.trial import TRACK, Recipe, Settings

TRIALS = 10
LIMIT = 300_000
# A Transformer's own step size, as usual for it; the rest of the recipe is shared.
ATTENTION = replace(Recipe(), rate=2e-3, decay=2000.0)
_S = "S (a circulating table)"

# Successes of ten that S states for the LSTM.
_STATED = {
    "reber": 10,
    "adding-100": 10,
    "multiplication-100": 10,
    "order-100": 10,
    "order-noisy-1000": 9,
    "order-5-100": 8,
    "adding-1000": 6,
    "multiplication-1000": 5,
}
_LONG = {5000: 5, 10_000: 3}  # trials by length: one takes minutes

# What is compared at equal numbers of weights, cell, layers.
_CELLS: dict[str, tuple[str, int]] = {
    "rnn": ("rnn", 1),
    "1997": ("lstm-1997-tanh", 1),
    "peephole": ("lstm-peephole", 1),
    "coupled": ("lstm-coupled", 1),
    "layernorm": ("lstm-layernorm", 1),
    "gru": ("gru", 1),
    "mingru": ("mingru", 2),
    "minlstm": ("minlstm", 2),
    "elstm": ("elstm", 2),
    "transformer": ("transformer", 2),
}
_FOR_CELLS = ("adding-100", "order-100")


# The search begins with 16 units and changes one thing at a time. Twice the units is what made
# embedded Reber sure: 10 of 10 within 24,000 sequences, where 9 were. It saved sequences elsewhere.
_FEW = 16


def _but(**changes: Any) -> dict[str, Any]:
    return {"recipe": replace(Recipe(), **changes)}


# Changes of settings, by name.
_SEARCHED: dict[str, dict[str, Any]] = {
    "recipe": {},  # none
    "32-units": {"hidden": 32},
    "rate-0.5": _but(rate=Recipe.rate / 2),
    "rate-2": _but(rate=Recipe.rate * 2),
    "decay-0.5": _but(decay=Recipe.decay / 2),
    "decay-2": _but(decay=Recipe.decay * 2),
    "batch-2": _but(batch=Recipe.batch * 2),
    "betas-0.999": _but(betas=(0.9, 0.999)),
    "clip-0.1": _but(clip=Recipe.clip / 10),
    "clip-10": _but(clip=Recipe.clip * 10),
    "forget-bias": _but(init=("orthogonal", "forget_bias(1)")),
    "not-orthogonal": _but(init=("chrono",)),
    "detach-0.25": _but(detach=0.25),
    "no-climb": _but(latest=0),
    "climb-0.9": _but(climb=0.9),
    "climb-0.99": _but(climb=0.99),
}
# At length 1000 what depends on length; everything would take an hour.
_FOR_SEARCH: dict[str, tuple[str, ...]] = {
    "reber": ("recipe", "32-units", "rate-0.5", "rate-2", "betas-0.999"),
    "adding-100": tuple(_SEARCHED),
    "multiplication-100": tuple(_SEARCHED),
    "adding-1000": ("recipe", "rate-0.5", "rate-2", "decay-2", "climb-0.9", "climb-0.99"),
}


def _settings(benchmark: str) -> Settings:
    return Settings(BENCHMARKS[benchmark].family, BENCHMARKS[benchmark].length)


def _experiment(name: str, asks: str, settings: Settings, *tags: str) -> Experiment:
    words = FAMILIES[settings.task].words
    return Experiment(name, TRACK.name, asks, settings, TRIALS, LIMIT, words, tags=tags)


def _benchmark(name: str) -> Experiment:
    found = _experiment(f"modern/{name}", f"Does an LSTM of today learn {name}?", _settings(name))
    if name not in _STATED:
        return found
    stated = Published("successes", _STATED[name], _S, 10)
    return replace(found, published=(stated,), tags=("eight",))


def _long(task: str, length: int) -> Experiment:
    asks = f"Does an LSTM of today learn {task} over {length:,} steps?"
    found = _experiment(f"modern/{task}-{length}", asks, Settings(task, length), "long")
    return replace(found, trials=_LONG[length])


def _cell(name: str, benchmark: str) -> Experiment:
    cell, layers = _CELLS[name]
    asks = f"Does {cell} of the same size, by the same recipe, learn {benchmark}?"
    recipe = ATTENTION if cell == TRANSFORMER else Recipe()
    settings = replace(_settings(benchmark), cell=cell, layers=layers, recipe=recipe)
    found = _experiment(f"modern/{benchmark}/{name}", asks, settings, "cells", name)
    return replace(found, limit=LIMIT // 3)


def _search(name: str, benchmark: str) -> Experiment:
    asks = f"How is {benchmark} learnt where the search begins, with the change {name}?"
    own = {"hidden": _FEW, "series": "search"} | _SEARCHED[name]
    settings = replace(_settings(benchmark), **own)
    found = _experiment(f"search/{benchmark}/{name}", asks, settings, "search")
    return replace(found, trials=TRIALS if benchmark == "reber" else 3, limit=LIMIT // 3)


EXPERIMENTS: tuple[Experiment, ...] = (
    *map(_benchmark, BENCHMARKS),
    *(_long(task, n) for n in _LONG for task in ("order", "adding", "multiplication")),
    *(_cell(c, b) for b in _FOR_CELLS for c in _CELLS),
    *(_search(c, b) for b, changes in _FOR_SEARCH.items() for c in changes),
)
