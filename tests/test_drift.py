"""Drift: models whose own output is known, measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from gatewise.cli import run
from gatewise.models import LanguageModel, LanguageModelConfig, Sampling
from gatewise.models.drift import _repeated, measure_drift


def make(favourite: int | None = None) -> LanguageModel:
    """A model that says everything with equal probability, or nearly always one token."""
    torch.manual_seed(0)
    model = LanguageModel(LanguageModelConfig(8, embedding_size=4, hidden_size=6)).eval()
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.zero_()
        if favourite is not None:
            model.head.bias[favourite] = 30.0
    return model


TEXT = torch.randint(8, (700,), generator=torch.Generator().manual_seed(1))


def test_a_model_that_says_one_token_repeats_it() -> None:
    found = measure_drift(make(favourite=3), make(), TEXT, length=50, rows=2)
    assert found.steps == [5 * k for k in range(1, 11)]
    assert found.own.perplexity == pytest.approx([8.0] * 10)  # for a judge that knows nothing
    assert found.own.repetition[1:] == [1.0] * 9
    assert max(found.text.repetition) < 0.5
    assert all(n > 0 for n in (*found.own.state_norm, *found.text.state_norm))


def test_what_the_judge_does_not_expect_is_perplexing() -> None:
    surprised = measure_drift(make(favourite=3), make(favourite=2), TEXT, length=20, rows=2)
    agreeing = measure_drift(make(favourite=3), make(favourite=3), TEXT, length=20, rows=2)
    assert min(surprised.own.perplexity) > 1e6
    assert agreeing.own.perplexity == pytest.approx([1.0] * 10)
    assert surprised.own.state_norm == agreeing.own.state_norm  # the judge does not touch it


def test_the_same_seed_the_same_drift() -> None:
    how = Sampling(0.7)
    one, two, other = (
        measure_drift(make(), make(1), TEXT, 30, 3, how, seed, forbidden=(0,)) for seed in (4, 4, 5)
    )
    assert one == two
    assert one.own != other.own
    assert one.text == other.text


def test_the_state_is_no_gate() -> None:
    """A 1997 cell feeds its gates back beside h and c: none of these is its memory."""
    config = LanguageModelConfig(8, cell="lstm-1997", embedding_size=4, hidden_size=6)
    model, tokens = LanguageModel(config).eval(), TEXT[:150, None]
    found = measure_drift(model, make(), TEXT[:150], length=49, rows=1).text.state_norm
    with torch.no_grad():
        cells = model.activity(tokens[:, 0], ["c"])["c"][-1]  # [T, H]
    norms = cells.square().mean(1).sqrt()
    assert found[-1] == pytest.approx(norms[144:149].mean().item(), rel=1e-4)


def test_repetition_by_hand() -> None:
    assert _repeated([1, 2, 3, 4, 1, 2, 3, 4, 5]).tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 0]


def test_a_text_that_is_too_short() -> None:
    with pytest.raises(ValueError, match="text must have at least 132 tokens, got 100"):
        measure_drift(make(), make(), TEXT[:100], length=30, rows=2)
    with pytest.raises(ValueError, match="length must be at least 10 and rows 1, got 3 and 2"):
        measure_drift(make(), make(), TEXT, length=3, rows=2)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    text = tmp_path / "a.txt"
    text.write_text("to be or not to be, that is the question\n" * 30)
    for name, more in {"one": [], "two": ["--seed", "1"], "sampled": ["--set", "own=0.5"]}.items():
        out = ["--out", str(tmp_path / name), "--hidden", "8", "--steps", "3"]
        assert run(["train", str(text), *out, *more]) == 0
    capsys.readouterr()
    more = ["--judge", str(tmp_path / "two"), "--length", "20", "--rows", "2"]
    more += ["--beside", str(tmp_path / "sampled")]
    plot = ["--plot", str(tmp_path / "drift.png")]
    assert run(["drift", str(tmp_path / "one"), str(text), *more, *plot, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["one", "sampled"]
    for drift in found.values():
        assert len(drift["own"]["perplexity"]) == len(drift["steps"]) == 10
    assert (tmp_path / "drift.png").stat().st_size > 5000
    assert run(["drift", str(tmp_path / "one"), str(text), *more]) == 0
    lines = capsys.readouterr().out.splitlines()
    figures = ["perplexity", "(text)", "repetition", "(text)", "state norm", "(text)"]
    assert re.split(r"  +", lines[0].strip()) == ["model", "tokens", *figures]
    assert len(lines) == 1 + 2 * 10
    nowhere = ["--plot", str(tmp_path / "none" / "drift.png")]
    assert run(["drift", str(tmp_path / "one"), str(text), *more, *nowhere]) == 2
    assert "no folder" in capsys.readouterr().err
    again = ["--beside", str(tmp_path / "one")]
    assert run(["drift", str(tmp_path / "one"), str(text), *more, *again]) == 2
    assert "two folders are called one" in capsys.readouterr().err
