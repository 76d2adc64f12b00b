"""What a network did over a sequence, against what it must do by construction."""

from __future__ import annotations

import pytest
import torch

from gatewise.cells import LSTM1997
from gatewise.executors.lanes import Network
from gatewise.lab.activity import activity
from gatewise.tasks import adding


def test_an_input_gate_that_is_wired_to_the_marker() -> None:
    """Two blocks of two cells; the first input gate sees the marker alone, the rest nothing."""
    network = Network(LSTM1997(block_size=2), 2, 4, 1, head_bias=True)
    own = {n: torch.zeros(shape) for n, shape in network.shapes().items()}
    own["weight_ih"][0, 1] = 8.0  # rows: 2 input gates, 4 candidates, 2 output gates
    own["bias"][0] = -4.0
    own["bias"][2] = 1.0  # the candidate of the first cell
    task = adding(100)
    given = task.sequences(1, seed=3)
    found = activity(network, own, given, "adding")
    x = given.x[: int(given.lengths[0]), 0]
    assert found.marks == tuple(t for t, m in enumerate(x[:, 1].tolist()) if m == 1)
    assert len(found.marks) == 2 and len(found.lines) == 8
    gate = torch.sigmoid(8 * x[:, 1] - 4)
    assert found.lines["input gate 1"] == pytest.approx(gate.tolist(), abs=1e-6)
    assert found.lines["input gate 2"] == pytest.approx([0.5] * len(x))
    candidate = 4 * torch.sigmoid(torch.tensor(1.0)) - 2
    cell = (gate * candidate).cumsum(0)  # the carousel adds, and forgets nothing
    assert found.lines["cell 1"] == pytest.approx(cell.tolist(), rel=1e-5)
    assert found.lines["cell 2"] == [0.0] * len(x)
