"""Learning while a real stream runs, through a drift."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import gatewise as gw
from gatewise.learning import OnlineLearner, prequential

ETTH1 = Path(__file__).parents[1] / "../shared/data/ett/ETTh1.csv"
DAY = 24  # hours: the season


def learner(inputs: int, hidden: int, rate: float) -> OnlineLearner:
    layer, head = gw.LSTM(inputs, hidden), nn.Linear(hidden, 1)
    optimizer = torch.optim.Adam([*layer.parameters(), *head.parameters()], lr=rate)
    return OnlineLearner(layer, head, nn.functional.mse_loss, optimizer)


def test_a_frozen_copy_predicts_with_what_was_known() -> None:
    torch.manual_seed(0)
    online = learner(2, 4, 0.01)
    x, y = torch.randn(20, 1, 2), torch.randn(20, 1, 1)
    found = prequential(online, x, y, freeze=8)
    assert found.frozen[:8].isnan().all() and not found.frozen[8:].isnan().any()
    assert not found.online.isnan().any()
    assert found.frozen[8] == found.online[8]  # the same weights still
    torch.manual_seed(0)
    again = learner(2, 4, 0.01)
    for k in range(8):
        again.step(x[k], y[k])
    with torch.no_grad():
        again.predict(x[8])
        expected = (again.predict(x[9]) - y[9]).square().mean()
    assert found.frozen[9] == pytest.approx(float(expected), rel=1e-5)


def test_errors_name_what_is_wrong() -> None:
    x = torch.zeros(3, 1, 2)
    with pytest.raises(ValueError, match="targets must have 3 steps as inputs, got 2"):
        prequential(learner(2, 4, 0.1), x, torch.zeros(2, 1, 1))
    with pytest.raises(ValueError, match=r"freeze must be in 0…3, got 4"):
        prequential(learner(2, 4, 0.1), x, torch.zeros(3, 1, 1), freeze=4)


@pytest.mark.skipif(not ETTH1.exists(), reason="../shared/data/ett is absent")
def test_hourly_series_with_a_drift() -> None:
    """One hour ahead; from the drift on, every sensor arrives in its neighbour's place."""
    data = np.loadtxt(ETTH1, delimiter=",", skiprows=1, usecols=range(1, 8), max_rows=2401)
    scaled = (data - data[:800].mean(0)) / data[:800].std(0)
    values = torch.tensor(scaled, dtype=torch.float32)
    truth = values[:, 6]
    freeze, drift = 800, 1600
    seen = values.clone()
    seen[drift:] = values[drift:].roll(1, 1)
    torch.manual_seed(0)
    found = prequential(
        learner(7, 16, 3e-3), seen[:-1].unsqueeze(1), truth[1:].view(-1, 1, 1), freeze
    )
    seasonal = (truth[DAY:] - truth[:-DAY]).square().double()  # of the last N - 23 predictions

    def mean(errors: torch.Tensor, start: int) -> float:
        return float(errors[start - (2400 - len(errors)) :].mean())

    # After a third of the stream: better than yesterday's value, before and after the drift,
    # and far better than a model that no longer learns.
    for start in (freeze, drift):
        assert mean(found.online, start) < 0.8 * mean(seasonal, start)
    assert mean(found.online, drift) < 0.3 * mean(found.frozen, drift)
