"""The Transformer: causal, chunks and streams equal the whole, its cache ends at the window."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gatewise.cells import get_cell
from gatewise.cli import run
from gatewise.models import CheckpointError, Settings, Source, load
from gatewise.models.sampling import Sampling
from gatewise.models.transformer_model import TransformerConfig, TransformerModel
from gatewise.models.transformer_task import TransformerOptions
from tests.resuming import whole_and_resumed

T, B, SYMBOLS = 20, 3, 11


def make(window: int = 64, **changes: object) -> TransformerModel:
    sizes = {"hidden_size": 16, "num_layers": 2, "heads": 2, "window": window} | changes
    torch.manual_seed(0)
    return TransformerModel(TransformerConfig(SYMBOLS, **sizes)).double().eval()  # type: ignore[arg-type]


def assert_same(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)  # float64, another order of sums


@pytest.mark.parametrize("window", [1, 4, 64])
def test_the_future_never_changes_the_past(window: int) -> None:
    model, tokens = make(window), torch.randint(SYMBOLS, (T, B))
    changed = tokens.clone()
    changed[12:] = (changed[12:] + 1) % SYMBOLS
    before, after = model(tokens)[0], model(changed)[0]
    assert_same(before[:12], after[:12])
    assert not torch.allclose(before[12], after[12])


def test_nothing_comes_from_before_the_windows_of_all_layers() -> None:
    model, tokens = make(4), torch.randint(SYMBOLS, (T, B))
    changed = tokens.clone()
    changed[0] = (changed[0] + 1) % SYMBOLS
    before, after = model(tokens)[0], model(changed)[0]
    reach = 2 * (4 - 1)
    assert_same(before[reach + 1 :], after[reach + 1 :])
    assert not torch.allclose(before[reach], after[reach])


@pytest.mark.parametrize("window", [1, 4, 64])
@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_chunks_with_carried_state_equal_the_whole(window: int, chunk: int) -> None:
    model, tokens = make(window), torch.randint(SYMBOLS, (T, B))
    state, parts = None, []
    for piece in tokens.split(chunk):
        logits, state = model(piece, state)
        parts.append(logits)
    whole, last = model(tokens)
    assert_same(torch.cat(parts), whole)
    assert state is not None
    for ours, theirs in zip(state, last, strict=True):
        assert ours.read == theirs.read == T
        assert_same(ours.keys, theirs.keys)


@pytest.mark.parametrize("window", [1, 4, 64])
@pytest.mark.parametrize("steps", [20, 80])  # beyond the room of a new cache
def test_a_stream_equals_the_whole(window: int, steps: int) -> None:
    model, tokens = make(window), torch.randint(SYMBOLS, (steps, B))
    stepper = model.stream(B)
    logits = torch.stack([stepper(row) for row in tokens])
    whole, state = model(tokens)
    assert_same(logits, whole.detach())
    for ours, theirs in zip(stepper.state, state, strict=True):
        assert_same(ours.values, theirs.values.detach())


def test_the_cache_grows_to_the_window_and_no_further() -> None:
    model = make(10)
    stepper, sizes = model.stream(), []
    for _ in range(50):
        stepper(1)
        sizes.append(stepper.state_bytes)
    step = 2 * 2 * 16 * 8  # keys and values of two layers, float64
    assert sizes[:9] == [step * k for k in range(1, 10)]
    assert set(sizes[9:]) == {9 * step}
    assert sum(c.keys.nbytes + c.values.nbytes for c in stepper.state) == 9 * step


def test_it_learns_and_samples() -> None:
    model = make().float().train()
    tokens = (torch.arange(24) % 4)[:, None]
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(model(tokens[:-1])[0][:, 0], tokens[1:, 0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    drawn = list(model.eval().sample([0, 1, 2], 5, Sampling(greedy=True)))
    assert drawn == [3, 0, 1, 2, 3]


def test_it_is_trained_resumed_and_sampled_like_any_language_model(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "a.txt").write_text("to be or not to be, " * 60)
    options = TransformerOptions(hidden_size=16, heads=2, num_layers=1, window=20, chunk=8)
    settings, source = Settings(steps=24, batch=4, evaluations=2), Source(tmp_path / "a.txt")
    whole, resumed = whole_and_resumed(tmp_path, "transformer", source, options, settings, stop=9)
    assert whole == resumed
    key = "held_out_bits_per_character"
    assert whole[1][key] < whole[0][key]
    assert run(["sample", str(tmp_path / "whole"), "--prompt", "to", "--length", "9"]) == 0
    assert len(capsys.readouterr().out) == 2 + 9 + 1
    with pytest.raises(CheckpointError, match="a Transformer has no cell"):
        load(tmp_path / "whole", cell=get_cell("lstm"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 10}, "hidden_size must be an even multiple of heads = 2, got 10"),
        ({"window": 0}, "window must be between 1 and"),
        ({"num_layers": 1.5}, "num_layers must be an int"),
        ({"dropout": 1.0}, "dropout must be"),
    ],
)
def test_configurations_that_cannot_be(change: dict, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make(**change)
