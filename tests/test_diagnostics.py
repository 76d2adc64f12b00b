"""Gradient flow against autograd, and what it must show."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch

import gatewise as gw
from gatewise.cli import run
from gatewise.diagnostics import gradient_flow, plot_gradient_flow, study
from gatewise.diagnostics.gradient_flow import cell_names

T, B, I, H = 9, 3, 2, 4  # noqa: E741


def test_flow_of_a_plain_network_is_its_jacobians_product() -> None:
    """∂h_T/∂h_t is the product of diag(1 - h²) U over the steps between."""
    torch.manual_seed(0)
    layer = gw.RNN(I, H, dtype=torch.float64)
    x = torch.randn(T, 1, I, dtype=torch.float64)
    flow = gradient_flow(layer, x, seed=3)
    with torch.no_grad():
        h = layer(x)[0][:, 0]
        v = torch.randn(H, generator=torch.Generator().manual_seed(3)).double()
        v = v / v.norm()
        for lag in range(1, T):
            t = T - lag
            v = ((1 - h[t] ** 2) * v) @ layer.weight_hh_l0
            assert flow.states["h"][lag - 1] == pytest.approx(float(v.norm()), rel=1e-10)


def test_the_carousel_of_1997_keeps_an_error_constant() -> None:
    """With every recurrent edge cut nothing is left but the self-weight of 1."""
    torch.manual_seed(0)
    layer = gw.Recurrent("lstm-1997", I, H, dtype=torch.float64)
    flow = gradient_flow(layer, torch.randn(T, B, I, dtype=torch.float64), cut=True)
    first, *rest = flow.states["c"]
    assert first > 0 and rest == pytest.approx([first] * len(rest), rel=1e-12)
    assert set(flow.states["h"]) == {0.0}


def test_the_forget_gate_scales_the_carousel_by_its_value() -> None:
    torch.manual_seed(0)
    layer = gw.Recurrent("lstm", I, 1, dtype=torch.float64)
    x = torch.randn(T, 1, I, dtype=torch.float64)
    flow = gradient_flow(layer, x, cut=True)
    f = layer(x, record=("forget",))[2]["forget"][0, :, 0, 0].detach()
    assert flow.forgotten == pytest.approx(flow.states["c"], rel=1e-10)
    for k, (near, far) in enumerate(pairwise(flow.states["c"])):
        # the error by c_{t-1} is that by c_t times f_t
        assert far == pytest.approx(near * float(f[T - 2 - k]), rel=1e-10)


def test_the_product_of_forget_gates_is_the_direct_path() -> None:
    """Unit by unit, over many units and rows; with the products with U it is not the whole."""
    torch.manual_seed(0)
    layer = gw.LSTM(I, H, dtype=torch.float64, init="uniform(1.5)")
    x = torch.randn(T, B, I, dtype=torch.float64)
    direct = gradient_flow(layer, x, cut=True)
    assert direct.forgotten == pytest.approx(direct.states["c"], rel=1e-10)
    whole = gradient_flow(layer, x)
    assert whole.forgotten != pytest.approx(whole.states["c"], rel=1e-2)
    assert gradient_flow(layer, x[:2], cut=True).forgotten == pytest.approx(
        gradient_flow(layer, x[:2], cut=True).states["c"]
    )
    assert gradient_flow(gw.GRU(I, H), x.float()).forgotten is None


def test_the_layer_is_left_as_it_was() -> None:
    layer = gw.LSTM(I, H)
    before = {n: p.clone() for n, p in layer.named_parameters()}
    gradient_flow(layer, torch.randn(T, B, I))
    assert all(torch.equal(p, before[n]) for n, p in layer.named_parameters())
    assert all(p.grad is None for p in layer.parameters())


def test_study_shows_vanishing_exploding_and_clipping(tmp_path: Path) -> None:
    flows = {f.label: f for f in study(["rnn", "lstm1997"], steps=40, hidden=16, training=2)}
    assert list(flows)[:3] == ["rnn, initial", "rnn, edges cut", "rnn, trained"]
    vanishing, carousel = flows["rnn, initial"], flows["lstm-1997, edges cut"]
    assert vanishing.states["h"][-1] < 1e-6 < carousel.states["c"][-1]
    exploding = flows["rnn, gain 2, initial"]
    assert exploding.states["h"][-1] > 10 and exploding.weight_norm > 10
    assert exploding.clipped_norm == 1.0
    trained = flows["rnn, gain 2, trained"]
    assert trained.updates and len(trained.updates) == 2 and trained.updates[0] > 10
    assert trained.wrong is not None and 0 <= trained.wrong <= 1
    by_bias = [flows[f"lstm, forget bias {b}, initial"].states["c"][-1] for b in (-2, 0, 2)]
    assert by_bias == sorted(by_bias)
    plot_gradient_flow([*flows.values()], tmp_path / "flow.png")
    assert (tmp_path / "flow.png").read_bytes().startswith(b"\x89PNG")


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "flow.png"
    command = ["gradients", "--cells", "gru", "--T", "12", "--hidden", "4", "--training", "1"]
    assert run([*command, "--plot", str(picture)]) == 0
    told = capsys.readouterr().out
    assert "gru, initial" in told and "lag 10" in told and picture.exists()
    assert run([*command, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["label"] == "gru, initial" and len(rows[0]["states"]["h"]) == 11


def test_a_cell_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("from gatewise.cells import GRU\n\n\nclass Mine(GRU):\n    pass\n")
    flows = study([f"{file}:Mine"], steps=5, hidden=4, training=1)
    first = [next(flows) for _ in range(3)]
    assert first == [f for f, _ in zip(study([f"{file}:Mine"], 5, 4, 1), first, strict=False)]
    assert [f.label for f in first] == [
        "Mine, initial",
        "Mine, edges cut",
        "Mine, trained",
    ]


def test_errors_name_what_is_wrong() -> None:
    x = torch.zeros(T, B, I)
    with pytest.raises(ValueError, match="a single layer of one direction"):
        gradient_flow(gw.LSTM(I, H, 2), x)
    with pytest.raises(ValueError, match=r"x must be \[T, B, I\] with T > 1"):
        gradient_flow(gw.LSTM(I, H), x[:1])
    with pytest.raises(ValueError, match=r"cells must be of .*, got 'lstm2000'"):
        cell_names(["lstm2000"])
    with pytest.raises(FileNotFoundError, match=r"no cell file nowhere\.py"):
        cell_names(["nowhere.py:Cell"])
    with pytest.raises(ValueError, match="T must be at least 2, got 1"):
        next(study(["rnn"], steps=1))
    with pytest.raises(ValueError, match="hidden must be positive, got 0"):
        next(study(["rnn"], hidden=0))
