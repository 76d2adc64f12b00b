"""Every place that takes a seed refuses what is none, before any work, in the same words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import gatewise as gw
from gatewise.executors.lanes import Lanes, Network
from gatewise.lab import Options
from gatewise.models import LanguageModel, LanguageModelConfig
from gatewise.models.anomaly import DetectorConfig
from gatewise.models.drift import measure_drift
from gatewise.models.settings import Settings
from gatewise.tasks import ContinualReber, adding, copy, embedded_reber, embedded_reber_sets

X = torch.zeros(2, 1, 3)


def layer() -> gw.LSTM:
    return gw.LSTM(3, 4, zoneout=0.1)


def model() -> LanguageModel:
    return LanguageModel(LanguageModelConfig(5, embedding_size=3, hidden_size=4)).eval()


def drift(seed: Any) -> object:
    return measure_drift(model(), model(), torch.zeros(200, dtype=torch.int64), 50, 1, seed=seed)


TAKERS: dict[str, Callable[[Any], object]] = {
    "layer": lambda seed: layer()(X, seed=seed),
    "replicas": lambda seed: gw.replicate(layer, [0, 1])(X, seed=(0, seed)),
    "replicate": lambda seed: gw.replicate(layer, [0, seed]),
    "lanes": lambda seed: Lanes(Network(gw.cells.LSTM(), 1, 2, 1), 1, 0.1, seed=seed),
    "task": lambda seed: adding(26).sequences(1, seed),
    "possible": lambda seed: embedded_reber().possible(1, seed),
    "sets": lambda seed: embedded_reber_sets(seed=seed),
    "drawn": lambda seed: copy(5).sequences(1, seed),
    "continual": lambda seed: ContinualReber(2).sequences(1, seed),
    "training": lambda seed: Settings(steps=1, seed=seed),
    "sampling": lambda seed: model().sample([1], 1, seed=seed),
    "drift": drift,
    "detector": lambda seed: DetectorConfig(seed=seed),
    "lab": lambda seed: Options(seed=seed),
}


@pytest.mark.parametrize("take", TAKERS.values(), ids=TAKERS.keys())
def test_what_is_no_seed_is_refused(take: Callable[[Any], object]) -> None:
    for given in (-1, 2**63, 2**64):
        with pytest.raises(ValueError, match=rf"seed.* must be in 0…2\^63 - 1, got {given}"):
            take(given)
    for given in (1.0, True, "1"):
        with pytest.raises(TypeError, match=rf"seed.* must be an int, got {given!r}"):
            take(given)


@pytest.mark.parametrize("take", [TAKERS[n] for n in ("layer", "replicas", "task", "sampling")])
def test_the_largest_seed_is_one(take: Callable[[Any], object]) -> None:
    take(2**63 - 1)


def test_numpys_whole_numbers_are_seeds() -> None:
    many = gw.replicate(layer, np.arange(2))
    x = torch.zeros(2, 2, 1, 3)
    assert torch.equal(many(x, seed=tuple(np.arange(2)))[0], many(x, seed=(0, 1))[0])
    assert adding(26).sequences(2, np.int64(3)).x.equal(adding(26).sequences(2, 3).x)
