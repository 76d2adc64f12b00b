"""Regularised language models: what is dropped and where, penalties, recipes by name."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewise.cli import run
from gatewise.models import LanguageModel, LanguageModelConfig, LanguageOptions, Settings, Source
from gatewise.models.language_task import LanguagePredictor, LanguageTask
from gatewise.models.recipes import RECIPES, find_recipe
from gatewise.models.regularise import (
    activation_penalty,
    change_penalty,
    locked_dropout,
    word_dropout,
)
from gatewise.models.task import options_from
from gatewise.models.vocabulary import UNKNOWN, Encoded, Vocabulary

T, B, H, WORDS = 6, 5, 40, 30


def test_locked_dropout_drops_the_same_numbers_at_every_step() -> None:
    x = torch.randn(T, B, H, dtype=torch.float64)
    factor = locked_dropout(x, 0.25, training=True) / x
    torch.testing.assert_close(factor, factor[:1].expand_as(factor))
    assert factor.abs().round(decimals=9).unique().tolist() == pytest.approx([0, 4 / 3])
    assert not torch.equal(factor[0, 0], factor[0, 1])  # each row its own
    assert locked_dropout(x, 0.25, training=False) is x


def test_a_dropped_word_is_dropped_wherever_it_stands() -> None:
    tokens = torch.randint(WORDS, (50, B))
    x = torch.ones(50, B, 3, dtype=torch.float64)
    factor = word_dropout(x, tokens, WORDS, 0.4, training=True)
    for word in tokens.unique().tolist():
        assert len(factor[tokens == word].unique()) == 1
    assert factor.unique().tolist() == pytest.approx([0, 1 / 0.6])
    assert word_dropout(x, tokens, WORDS, 0.4, training=False) is x


def test_dropped_words_are_rows_of_the_embedding() -> None:
    """The definition of Gal & Ghahramani: a mask on the rows of the matrix, before it is read."""
    embedding, tokens = torch.nn.Embedding(WORDS, H), torch.randint(WORDS, (T, B))
    torch.manual_seed(1)
    found = word_dropout(embedding(tokens), tokens, WORDS, 0.5, training=True)
    torch.manual_seed(1)
    mask = torch.nn.functional.dropout(torch.ones(WORDS, 1), 0.5)
    expected = torch.nn.functional.embedding(tokens, embedding.weight * mask)
    assert torch.equal(found, expected)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 6))
def test_penalties_by_their_sums(steps: int, rows: int, units: int) -> None:
    h = torch.randn(steps, rows, units, dtype=torch.float64)
    squares = changes = 0.0
    for t in range(steps):
        for b in range(rows):
            for j in range(units):
                squares += float(h[t, b, j]) ** 2
                changes += float(h[t, b, j] - h[t - 1, b, j]) ** 2 if t else 0.0
    assert float(activation_penalty(h)) == pytest.approx(squares / h.numel())
    count = (steps - 1) * rows * units
    assert float(change_penalty(h)) == pytest.approx(changes / count if count else 0.0)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "numbers.txt"
    file.write_text("".join(f"{k} and {k + 1} make {2 * k + 1}\n" for k in range(60)))
    return file


def begin(text: Path, **options: object) -> LanguageTask:
    sizes = {"embedding_size": 4, "hidden_size": 6, "num_layers": 2, "chunk": 16, "restart": 0.0}
    given = LanguageOptions(**(sizes | options))  # type: ignore[arg-type]
    torch.manual_seed(0)
    return LanguageTask.begin(Source(text), given, Settings(steps=5, batch=3), executor="reference")


def test_the_penalty_of_a_batch_is_that_of_its_activations(text: Path) -> None:
    task = begin(text, ar=2.0, tar=0.5).model
    loss = begin(text, ar=2.0, tar=0.5)
    found = loss.loss(0, 0)
    inputs, _ = loss._streams.chunk(0)
    h, _ = task.recurrent(task.embedding(inputs))
    expected = 2.0 * h.square().mean() + 0.5 * (h[1:] - h[:-1]).square().mean()
    torch.testing.assert_close(found.penalty / found.count, expected)
    assert begin(text).loss(0, 0).penalty == 0
    torch.testing.assert_close(begin(text).loss(0, 0).total, found.total)  # no part of the figure


def test_ar_sees_what_is_left_by_dropout_and_tar_what_there_was(text: Path) -> None:
    task = begin(text, ar=1.0, tar=1.0, output_dropout=0.5)
    output = torch.randn(4, 2, 6)
    dropped = torch.zeros_like(output)
    assert torch.equal(torch.as_tensor(task.penalty(output, dropped)), change_penalty(output))


def test_a_drawn_chunk_s_rate_is_in_proportion_to_its_length(text: Path) -> None:
    task = begin(text, chunk_spread=4.0)
    for batch in range(4):
        span = task._cuts.span(0, batch)
        assert task.loss(0, batch).share == (span.stop - span.start) / 16
    assert begin(text).loss(0, 0).share == 1.0


def test_the_future_never_changes_the_past() -> None:
    rates = dict.fromkeys(("input_dropout", "hidden_dropout", "output_dropout"), 0.3)
    rates |= dict.fromkeys(("weight_dropout", "embedding_dropout", "recurrent_dropout"), 0.3)
    config = LanguageModelConfig(
        WORDS, embedding_size=4, hidden_size=6, num_layers=2, tied=True, **rates
    )
    model = LanguageModel(config, dtype=torch.float64)
    tokens = torch.randint(WORDS, (T, B))
    changed = tokens.clone()
    changed[3:] = (changed[3:] + 1) % WORDS
    torch.manual_seed(2)
    before, _ = model(tokens)
    torch.manual_seed(2)
    after, _ = model(changed)
    torch.testing.assert_close(before[:3], after[:3], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(before[3], after[3])


def test_streams_of_tied_models_of_two_sizes_equal_the_whole() -> None:
    config = LanguageModelConfig(WORDS, embedding_size=5, hidden_size=12, num_layers=2, tied=True)
    model, tokens = LanguageModel(config).eval(), torch.randint(WORDS, (T, B))
    stepper = model.stream(B)
    assert stepper.obstacles == []
    logits = torch.stack([stepper(row) for row in tokens])
    torch.testing.assert_close(logits, model(tokens)[0].detach(), rtol=1e-5, atol=1e-6)
    assert stepper.state_bytes == 2 * 2 * B * 12 * 4  # layers, h and c, rows, units, float32


def test_products_in_bf16_are_near_those_in_full_and_round_only_in_training() -> None:
    sizes = {"embedding_size": 8, "hidden_size": 12, "num_layers": 2, "tied": True}
    models = [
        LanguageModel(LanguageModelConfig(WORDS, **sizes, weights=w), executor="reference")
        for w in ("full", "bf16")
    ]
    models[1].load_state_dict(models[0].state_dict())
    tokens = torch.randint(WORDS, (T, B))
    full, rounded = (m(tokens)[0] for m in models)
    assert rounded.dtype == torch.float32
    # Numbers of 8 bits: 2^-9 of each at most, four products one after the other.
    assert 0 < (rounded - full).norm() / full.norm() < 4 * 2**-9
    for logits in (full, rounded):
        logits.square().sum().backward()
    for name, p in models[0].named_parameters():
        other = models[1].get_parameter(name).grad
        assert p.grad is not None and other is not None
        assert (other - p.grad).norm() / p.grad.norm() < 8 * 2**-8, name  # backward rounds again
    output = torch.randn(T, B, 12)
    head = [m.eval().logits(output) for m in models]
    assert torch.equal(*head)


def test_streams_that_have_read_before_score_as_one_does() -> None:
    """Without that, each of the streams would begin with an empty state."""
    model = LanguageModel(LanguageModelConfig(WORDS, embedding_size=4, hidden_size=6)).eval()
    with torch.no_grad():
        model.head.weight.mul_(8)  # so that the state makes a difference
    vocabulary = Vocabulary("char", [UNKNOWN, *map(chr, range(97, 97 + WORDS - 1))])
    ids = torch.randint(1, WORDS, (3000,))
    held = Encoded(ids, len(ids) - 1, 0.0)
    with torch.no_grad():
        logits, _ = model(ids[:-1, None])
    nats = torch.nn.functional.cross_entropy(logits[:, 0], ids[1:]).item()
    scores = LanguagePredictor(model, vocabulary).score(held)
    assert scores["perplexity"] == pytest.approx(math.exp(nats), rel=1e-5)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_options_that_there_are(name: str) -> None:
    values = RECIPES[name].values
    how = Settings(**{n: v for n, v in values.items() if n in Settings.__dataclass_fields__})
    rest = {n: v for n, v in values.items() if n not in Settings.__dataclass_fields__}
    assert options_from(LanguageOptions, rest).level == "space"
    assert how.evaluations <= (how.epochs or 0)


def test_the_small_setting_of_zaremba_in_our_mean_loss() -> None:
    """Section 4.1 of the paper: sums over 20 steps there, means here."""
    values = find_recipe("zaremba-small").values
    how = Settings(**{n: v for n, v in values.items() if n in Settings.__dataclass_fields__})
    assert [20 * how.clip, how.learning_rate / 20] == pytest.approx([5, 1])
    rates = [how.learning_rate_at(epoch * 2324, 13 * 2324, epoch) / 20 for epoch in range(13)]
    assert rates == pytest.approx([1.0] * 4 + [0.5**k for k in range(1, 10)])
    assert (how.optimizer, how.batch, values["chunk"], values["init_range"]) == ("sgd", 20, 20, 0.1)


def test_the_command(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    how = ["--recipe", "awd", "--hidden", "6", "--embedding", "4", "--layers", "2", "--steps", "3"]
    out = ["--out", str(tmp_path / "run"), "--evaluations", "1", "--seq", "12"]
    assert run(["train", str(text), *how, *out, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 3
    record = json.loads(next(tmp_path.glob("run/checkpoints/*3/record.json")).read_text())
    assert record["settings"]["average"] == 5
    assert record["settings"]["epochs"] is None
    assert record["origin"]["options"]["weight_dropout"] == 0.5
    assert record["origin"]["options"]["chunk"] == 12

    out = ["--out", str(tmp_path / "other")]
    assert run(["train", str(text), *out, "--recipe", "best"]) == 2
    assert "--recipe must be one of zaremba-small, zaremba-medium" in capsys.readouterr().err
    assert run(["train", str(text), *out, "--recipe", "awd", "--task", "tag"]) == 2
    assert "--recipe awd is for the task lm, not for tag" in capsys.readouterr().err
    assert run(["tasks", "--json"]) == 0
    rows = {r["name"]: r for r in json.loads(capsys.readouterr().out)}
    assert list(rows["lm"]["recipes"]) == list(RECIPES)
    assert rows["tag"]["recipes"] == {}


def test_the_table_of_tasks_names_recipes(capsys: pytest.CaptureFixture) -> None:
    assert run(["tasks"]) == 0
    assert "--recipe awd: Merity, Keskar & Socher" in " ".join(capsys.readouterr().out.split())
