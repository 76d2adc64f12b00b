"""The suite of contexts: what is kept is counted right, and the picture is drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gatewise import benchmark
from gatewise.benchmark import Budget, Runner, Shape, context, machine, report

BRIEF = Budget(seconds=0.0, least=2, most=2, shortest=0.0)


def test_what_is_kept_and_its_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "load", lambda: 0.0)
    monkeypatch.setattr(report, "sgemm_rate", lambda: 1e9)
    cases = [
        replace(c, shape=Shape(3 * (k // 2) + 4, 1, 4, 8))
        for k, c in enumerate(context.cases()[:4])
    ]
    runner = Runner(BRIEF)
    rows = list(runner.run(cases))
    assert [r.case.work for r in rows] == ["token", "state"] * 2
    for row in rows:
        assert row.measured is not None
        if row.case.work == "state":
            assert row.measured.ours.median == 2 * 8 * 4 / 1e6  # h and c, units, float32
            kept = row.case.shape.T - 1  # and the next step's own
            cache = 3 * 2 * 96 * kept * 4  # layers, keys and values, width, float32
            assert row.measured.peer.median == cache / 1e6
    benchmark.plot(runner.report(rows), tmp_path / "context.png")
    assert (tmp_path / "context.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match="nothing to plot"):
        context.plot(runner.report([]), tmp_path / "none.png")
