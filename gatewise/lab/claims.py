"""Claims about who fails at long time lags, each an attempt with a stated search budget.

`S` is a table of success rates, over ten trials each, that circulates as the results of
Hochreiter & Schmidhuber (1997) but is not in that paper. Whatever our trials give is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from gatewise.lab.baselines import search
from gatewise.lab.baselines.search import Search
from gatewise.lab.benchmarks import BENCHMARKS
from gatewise.lab.experiment import Experiment, Outcome, Progress, Published, Track, Work

S = "S (a circulating table)"
TRIALS = 10
LIMIT = 300_000  # training sequences: four times what the paper's LSTM needs on adding, T = 100
LONG = 200_000  # at T = 1000, where each costs ten times as much

# How a trial is run is read off the kind of its settings.
_RUNS: dict[type, Callable[[Any, Work], Iterator[Progress | Outcome]]] = {Search: search.run}


def _run(settings: Any, work: Work) -> Iterator[Progress | Outcome]:
    return _RUNS[type(settings)](settings, work)


TRACK = Track("claims", "Claims about long time lags", _run)

_WHAT = {
    "bptt": "a simple recurrent network by full backpropagation",
    "elman": "a simple recurrent network by Elman's one-step gradient",
    "irnn": "a rectified recurrent network that begins as the identity",
    "mozer": "context units with learnt time constants",
    "narx": "a recurrent network with delayed states as further inputs",
    "tdnn": "a window of past inputs",
    "pascanu": "a simple recurrent network whose vanishing gradient is regularised",
}
_SEARCH = Search("adding-100", "bptt", widths=(64,), rates=(3e-3, 1e-3, 3e-4), probe=30_000)
_METHODS: dict[str, Search] = {
    "bptt": _SEARCH,
    "elman": replace(_SEARCH, method="elman"),
    "irnn": replace(_SEARCH, method="irnn", rates=(1e-3, 3e-4, 1e-4)),
    "mozer": replace(_SEARCH, method="mozer"),
    "narx": replace(_SEARCH, method="narx", rates=(1e-3,), extras=(2, 4, 8)),
    "tdnn": replace(_SEARCH, method="tdnn", rates=(1e-3,), extras=(10, 50, 110)),
    "pascanu": replace(_SEARCH, method="pascanu", rates=(1e-3,), extras=(0.5, 2.0, 8.0)),
}
# Failures in ten trials that S states, by method; other rows test a claim in words.
_S_TABLE = ("bptt", "elman")
_AT_LAG_100 = ("adding-100", "order-100")


def _gradient(method: str, benchmark: str) -> Experiment:
    long = benchmark.endswith("1000")
    s = replace(_METHODS[method], benchmark=benchmark)
    s = replace(s, probe=s.probe // 3) if long else s
    stated = method in _S_TABLE
    source = S if stated else "S: fails at lag 100"
    return Experiment(
        name=f"{method}/{benchmark}",
        track=TRACK.name,
        asks=f"Can {_WHAT[method]} learn {benchmark}?",
        settings=s,
        trials=TRIALS,
        limit=LONG if long else LIMIT,
        criterion=BENCHMARKS[benchmark].words,
        published=() if method == "irnn" else (Published("successes", 0, source, 10),),
        tags=("S", method, benchmark) if stated else (method, benchmark),
    )


EXPERIMENTS: tuple[Experiment, ...] = (
    *(_gradient(m, b) for b in BENCHMARKS for m in _S_TABLE),
    *(_gradient(m, b) for m in _METHODS if m not in _S_TABLE for b in _AT_LAG_100),
)
