"""Ablations are the paper's networks but for one part."""

from __future__ import annotations

import pytest

from gatewise import lab
from gatewise.equations import trace
from gatewise.lab.ablations import Ablated
from gatewise.lab.experiment import Outcome, Work
from gatewise.lab.faithful import cell_of, initial, network_of, task_of
from gatewise.lab.paper1997 import Settings


def settings(part: str) -> Ablated:
    found = lab.EXPERIMENTS[f"{part}/adding-100"].settings
    assert isinstance(found, Ablated)
    return found


# Rows of weights times their sources (2 inputs, fed-back cells and gates, bias); 5 of the output.
@pytest.mark.parametrize(
    ("part", "weights"),
    [
        ("full", 8 * (2 + 8 + 1) + 5),
        ("no-input-gate", 6 * (2 + 6 + 1) + 5),
        ("no-output-gate", 6 * (2 + 6 + 1) + 5),
        ("raw-cec", 4 * (2 + 4 + 1) + 5),
        ("self-weight-0.9", 93),
        ("self-weight-1.1", 93),
        ("gates-per-cell", 12 * (2 + 12 + 1) + 5),
        ("forget-gate-1", 10 * (2 + 10 + 1) + 5),
        ("forget-gate-5", 10 * (2 + 10 + 1) + 5),
    ],
)
def test_weights(part: str, weights: int) -> None:
    s = settings(part)
    assert network_of(s, task_of(s)).weights == weights


def run(experiment: lab.Experiment, of: Settings) -> list[Outcome]:
    found = lab.TRACKS[experiment.track].run(of, Work(0, 0, 2, 500))
    return [o for o in found if isinstance(o, Outcome)]


def test_the_whole_network_is_the_row_of_the_paper() -> None:
    row, full = lab.EXPERIMENTS["4-1"], lab.EXPERIMENTS["full/adding-100"]
    assert run(full, full.settings) == run(row, row.settings)


@pytest.mark.parametrize("weight", [0.9, 1.1])
def test_the_carousel_s_weight(weight: float) -> None:
    traced = trace(cell_of(settings(f"self-weight-{weight}")))
    c = next(s for s in traced.new_states["c"].free_symbols if str(s) == "c_prev")
    assert float(traced.new_states["c"].diff(c)) == weight


@pytest.mark.parametrize("part", ["gates-per-cell", "forget-gate-1", "forget-gate-5"])
def test_listed_biases_go_to_every_cell_s_gates(part: str) -> None:
    s = settings(part)
    bias = initial(s, network_of(s, task_of(s)), Work(0, 0, 1, 1), 0)["bias"]
    if part == "gates-per-cell":
        assert bias[:4].tolist() == [-3, -3, -6, -6]  # as the blocks' in experiment 4
    else:
        assert bias[:4].tolist() == [-3, -6, float(part[-1]), float(part[-1])]
        assert bias[4:].abs().max() <= 0.1
