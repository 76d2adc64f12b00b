"""Experiment 1's learning against equations 19-28 of the 1997 paper, written out in NumPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from gatewise.executors.lanes import Lanes
from gatewise.lab.experiment import Work
from gatewise.lab.faithful import initial, network_of, task_of
from gatewise.lab.paper1997 import ROWS

Weights = dict[str, np.ndarray]


def logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def learn(
    w: Weights, string: list[tuple[int, int]], size: int, rate: float, stepwise: bool
) -> None:
    """One string: (symbol, next symbol) per step; changes `w`, which has a row for each unit."""
    cells, blocks = len(w["cell"]), len(w["in"])
    of_cell = np.arange(cells) // size  # its block
    y_cell, y_in, y_out, s = np.zeros(cells), np.zeros(blocks), np.zeros(blocks), np.zeros(cells)
    s_in, s_c = np.zeros((2, cells, w["in"].shape[1]))
    change = {n: np.zeros_like(v) for n, v in w.items()}
    for t, (symbol, following) in enumerate(string):
        source = np.concatenate([np.eye(7)[symbol], y_cell, y_in, y_out, [1.0]])
        y_in, y_out = logistic(w["in"] @ source), logistic(w["out"] @ source)
        f = logistic(w["cell"] @ source)
        gate, g = y_in[of_cell], 4 * f - 2
        s = s + gate * g
        h = 2 * logistic(s) - 1
        y_cell = y_out[of_cell] * h
        y = logistic(w["head"] @ y_cell)
        s_in += np.outer(g * gate * (1 - gate), source)
        s_c += np.outer(4 * f * (1 - f) * gate, source)
        e = y * (1 - y) * (np.eye(7)[following] - y)
        back = w["head"].T @ e
        e_s = y_out[of_cell] * (1 - h * h) / 2 * back
        change["head"] += np.outer(e, y_cell)
        for j in range(blocks):
            own = of_cell == j
            error = y_out[j] * (1 - y_out[j]) * (h[own] @ back[own])
            change["out"][j] += error * source
            change["in"][j] += e_s[own] @ s_in[own]
        change["cell"] += e_s[:, None] * s_c
        change["cell"][:, -1] = 0  # cells have no bias
        if stepwise or t == len(string) - 1:
            for n in w:
                w[n] += rate * change[n]
                change[n][:] = 0


@pytest.mark.parametrize("stepwise", [False, True])
@pytest.mark.parametrize("row", ["1-2", "1-4"])
def test_a_hundred_strings(row: str, stepwise: bool) -> None:
    s = replace(ROWS[row].settings, stepwise=stepwise)
    task = task_of(s)
    network = network_of(s, task)
    start = initial(s, network, Work(0, 0, 1, 1), 0)
    lanes = Lanes(network, 1, s.rate, task, seed=5, dtype=torch.float64)
    lanes.load(start)
    lanes.train(100)

    def by_unit(p: dict[str, torch.Tensor]) -> Weights:
        cells, zero = s.blocks * s.size, torch.zeros(s.blocks * s.size)
        bias = torch.cat([p["bias"][: s.blocks], zero, p["bias"][s.blocks :]])
        rows = torch.cat([p["weight_ih"], p["weight_hh"], bias[:, None]], 1).double()
        parts = zip(("in", "cell", "out"), rows.split([s.blocks, cells, s.blocks]), strict=True)
        return {n: v.numpy() for n, v in parts} | {"head": p["head_weight"].double().numpy()}

    w, before = by_unit(start), by_unit(start)
    x, lengths, target = task.sequences(100, seed=5)
    for k, n in enumerate(lengths.tolist()):
        string = list(zip(x[:n, k].tolist(), target[:n, k].tolist(), strict=True))
        learn(w, string, s.size, s.rate, stepwise)
    after = by_unit({n: v[0] for n, v in lanes.parameters().items()})
    for n, right in w.items():
        assert np.abs(right - before[n]).max() > 0.1
        # float64 in another order of summation, over a hundred changes
        np.testing.assert_allclose(after[n], right, rtol=0, atol=1e-11)
