"""A hidden Markov model per class, by hmmlearn: the likeliest one says the class."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gatewise.executors.lanes import Sequences
from gatewise.lab.baselines.budget import either
from gatewise.lab.benchmarks import ALL
from gatewise.lab.experiment import Outcome, Progress, Work
from gatewise.lab.objective import Source


@dataclass(frozen=True)
class Hidden:
    """What is tried: numbers of hidden states, each from several random starts.

    Args:
        benchmark: a name in `benchmarks.ALL`, of symbols and classes.
        states: numbers of hidden states.
        starts: random starts of each.
        sequences: of the training set, all classes together.
        iterations: of expectation and maximisation.
        test: fresh sequences.
        most_wrong: of these, for success; the paper's LSTM has 1 of 2560 on experiment 6a.
    """

    benchmark: str
    states: tuple[int, ...] = (8, 12)
    starts: int = 3
    sequences: int = 400
    iterations: int = 30
    test: int = 2560
    most_wrong: int = 1

    def budget(self, _limit: int) -> str:
        """What a trial may spend, in words."""
        return (
            f"The best of {either(self.states)} hidden states from {self.starts} starts each, with "
            f"{self.iterations} iterations on {self.sequences} sequences"
        )

    def __post_init__(self) -> None:
        task = ALL[self.benchmark].task()
        if not (task.symbols and task.target_symbols):
            raise ValueError(f"benchmark must be one of classes, got {self.benchmark}")


def run(settings: Hidden, work: Work) -> Iterator[Progress | Outcome]:
    """One trial: the best of all that is tried, by the training set; each counts its sequences."""
    [trial] = work.trials
    seed = work.seed_of(trial) % 2**31
    task = ALL[settings.benchmark].task()
    given = task.sequences(settings.sequences, seed)
    tried = [(n, k) for n in settings.states for k in range(settings.starts)]
    best: list[Any] = []
    fewest, drawn = settings.sequences + 1, 0
    curve = []
    for number, (states, start) in enumerate(tried):
        models = [
            _fit(settings, task, _of_class(given, c), states, seed + start)
            for c in range(task.outputs)
        ]
        drawn += settings.sequences * settings.iterations
        wrong = _wrong(models, given)
        curve.append((drawn, wrong / settings.sequences))
        if wrong < fewest:
            best, fewest = models, wrong
        yield Progress((number + 1) / len(tried), f"{fewest} of {settings.sequences} wrong")
        if drawn >= work.limit:
            break
    wrong = _wrong(best, task.sequences(settings.test, seed, purpose=1))
    found = {
        "weights": float(sum(m.transmat_.size + m.emissionprob_.size for m in best)),
        "test_wrong": float(wrong),
        "test_count": float(settings.test),
    }
    yield Outcome(trial, wrong <= settings.most_wrong, drawn, found, tuple(curve))


def _fit(settings: Hidden, task: Source, rows: list[np.ndarray], states: int, seed: int) -> Any:
    try:
        hmm = importlib.import_module("hmmlearn.hmm")
    except ImportError:
        raise ValueError("this baseline needs hmmlearn: pip install 'gatewise[lab]'") from None
    model = hmm.CategoricalHMM(
        states, n_features=task.inputs, n_iter=settings.iterations, random_state=seed
    )
    with warnings.catch_warnings():
        # A state that is never left has an empty row; it is left as it is, which is right.
        warnings.simplefilter("ignore")
        model.fit(np.concatenate(rows).reshape(-1, 1), [len(r) for r in rows])
    return model


def _of_class(given: Sequences, c: int) -> list[np.ndarray]:
    columns = (given.target == c).nonzero().flatten().tolist()
    return [given.x[: int(given.lengths[b]), b].numpy() for b in columns]


def _wrong(models: list[Any], given: Sequences) -> int:
    rows = [given.x[: int(n), b].numpy().reshape(-1, 1) for b, n in enumerate(given.lengths)]
    likely = torch.tensor([[m.score(row) for m in models] for row in rows])
    return int((likely.argmax(1) != given.target).sum())
