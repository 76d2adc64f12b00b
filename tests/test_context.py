"""The bidirectional language model: what each direction may see; its states as features."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gatewise.cli import run
from gatewise.models import CheckpointError, Settings, Source, load, runs
from gatewise.models.bilm import BidirectionalLanguageModel
from gatewise.models.bilm_task import ContextOptions, ContextPredictor, load_encoder
from gatewise.models.context import ContextConfig, ContextEncoder, ContextFeatures, flipped
from gatewise.models.index import Index
from gatewise.models.tag_task import TagOptions, TagPredictor
from tests.resuming import whole_and_resumed

LETTERS = Index(sorted("abcdefgh"))
SMALL = ContextConfig(character_embedding=4, character_size=3, hidden_size=5, num_layers=2)
TAGS = TagOptions(
    embedding_size=4, character_embedding=4, character_size=4, hidden_size=6, num_layers=1
)


def make(seed: int = 0, **changes: object) -> BidirectionalLanguageModel:
    torch.manual_seed(seed)
    config = ContextConfig(**{**asdict(SMALL), **changes})
    return BidirectionalLanguageModel(config, Index(["a", "bad", "head"]), LETTERS).double().eval()


def assert_same(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)  # float64, another order of sums


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_neither_direction_sees_the_other_side(cell: str) -> None:
    encoder = make(cell=cell).encoder
    one, other = (
        encoder.levels(encoder.speller.batch([["a", "bad", word, "head", "fee"]]))[:, :, 0]
        for word in ("cab", "dig")
    )
    ahead, back = slice(0, 5), slice(5, 10)
    assert_same(one[:, :2, ahead], other[:, :2, ahead])
    assert_same(one[:, 3:, back], other[:, 3:, back])
    for level in range(3):
        assert not torch.allclose(one[level, 2], other[level, 2]), "the word itself"
    assert not torch.allclose(one[1:, 3:, ahead], other[1:, 3:, ahead]), "what comes after it"
    assert not torch.allclose(one[1:, :2, back], other[1:, :2, back])
    assert_same(one[0, 3:], other[0, 3:])  # the lowest level knows the word alone


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_padding_never_changes_a_result(lengths: list[int]) -> None:
    model = make()
    words = ["a", "bad", "head", "cage", "fee", "dig"]
    sentences = [words[:n] for n in lengths]
    levels = model.encoder.levels(model.encoder.speller.batch(sentences))
    total = model.nats(model.batch(sentences))
    for row, sentence in enumerate(sentences):
        alone = model.encoder.levels(model.encoder.speller.batch([sentence]))[:, :, 0]
        assert_same(levels[:, : len(sentence), row], alone)
    assert_same(total, sum(model.nats(model.batch([s])) for s in sentences))


def test_nats_forwards_by_hand() -> None:
    """Each word from the words before it, one step after the other."""
    model, sentence = make(num_layers=1), ["bad", "cage", "a"]
    encoder = model.encoder
    x = encoder.project(encoder.speller(encoder.speller.batch([sentence])))
    read, state, nats = encoder.border[0].view(1, 1, -1), None, 0.0
    for t, number in enumerate([1 + 2, 1 + 0, 1 + 1, 0]):  # cage is unknown; then the border
        h, state = encoder.ahead(read, state)
        p = model.head.log_prob(h[0]).exp()[0]
        assert p.sum().item() == pytest.approx(1)
        nats -= math.log(p[number].item())
        read = x[t : t + 1] if t < 3 else read
    assert model.nats(model.batch([sentence]))[0].item() == pytest.approx(nats)


def test_backwards_is_forwards_from_the_other_end() -> None:
    model = make()
    sentences = [["bad", "cage", "a"], ["head"]]
    _, back = model.nats(model.batch(sentences))
    encoder = model.encoder
    encoder.ahead, encoder.back = encoder.back, encoder.ahead
    encoder.border.data = encoder.border.data.flip(0)
    ahead, _ = model.nats(model.batch([s[::-1] for s in sentences]))
    assert_same(ahead, back)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4))
def test_flipped_twice_is_as_before(lengths: list[int]) -> None:
    x, n = torch.randn(2, 5, len(lengths), 3), torch.tensor(lengths)
    once = flipped(x, n)
    assert torch.equal(flipped(once, n), x)
    for row, length in enumerate(lengths):
        assert torch.equal(once[:, :length, row], x[:, :length, row].flip(1))
        assert torch.equal(once[:, length:, row], x[:, length:, row])


def test_features_are_a_weighed_mean_of_the_levels() -> None:
    features = ContextFeatures(make().encoder).double()
    spelled = features.encoder.speller.batch([["bad", "cage"], ["a"]])
    torch.nn.init.normal_(features.scores)
    features.scale.data.fill_(3.0)
    weights = features.scores.exp() / features.scores.exp().sum()
    levels = features.encoder.levels(spelled)
    assert_same(features(spelled), 3 * sum(w * h for w, h in zip(weights, levels, strict=True)))
    assert features.weights().sum().item() == pytest.approx(1)


def test_a_frozen_encoder_drops_nothing_and_has_no_gradient() -> None:
    features = ContextFeatures(make(dropout=0.5).encoder).double().train()
    spelled = features.encoder.speller.batch([["bad", "cage"]])
    assert torch.equal(features(spelled), features(spelled))
    features(spelled).sum().backward()
    assert features.scale.grad is not None
    assert all(p.grad is None for p in features.encoder.parameters())
    tuned = ContextFeatures(make(dropout=0.5).encoder, frozen=False).double().train()
    assert not torch.equal(tuned(spelled), tuned(spelled))
    tuned(spelled).sum().backward()
    assert all(p.grad is not None for p in tuned.encoder.parameters())


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Words that follow each other in a circle: each is known from either neighbour."""
    circle = ["a", "bad", "cage", "head", "fee"]
    lines = [" ".join(circle[(k + t) % 5] for t in range(3 + k % 4)) for k in range(60)]
    path = tmp_path_factory.mktemp("circle") / "train.txt"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def trained(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("bilm") / "run"
    options = ContextOptions(
        character_embedding=6, character_size=6, hidden_size=12, num_layers=1, dropout=0.0
    )
    how = Settings(steps=90, batch=16, learning_rate=3e-2, warmup=5, evaluations=2)
    begun = runs.begin(out, "bilm", Source(text.parent), options, how)
    for _ in begun.trainer.run():
        pass
    assert [p.name for p in runs.picture(begun)] == ["learning_curve.png"]
    return out


def test_it_learns_both_directions(trained: Path, text: Path) -> None:
    predictor = load(trained).predictor
    assert isinstance(predictor, ContextPredictor)
    scores = predictor.evaluate(text)
    # Of five predictions or so the first is one of five, the last three uncertain; else known.
    assert scores["perplexity_forward"] < 2.2
    assert scores["perplexity_backward"] < 2.2
    rows = list(predictor.predict(text))
    assert rows[1]["words"] == ["bad", "cage", "head", "fee"]
    mixed = predictor.score([["cage", "a", "fee", "bad"]])
    assert mixed["perplexity"] > 3 * rows[1]["perplexity"]


def test_a_stopped_and_resumed_run_is_the_unbroken_one(text: Path, tmp_path: Path) -> None:
    options = ContextOptions(**{**asdict(SMALL), "dropout": 0.3})
    how = Settings(steps=6, batch=16, evaluations=2)
    whole, resumed = whole_and_resumed(tmp_path, "bilm", Source(text), options, how, stop=4)
    assert whole == resumed


@pytest.fixture(scope="module")
def tagged(text: Path) -> Path:
    """The tag of a word is the word after it."""
    rows = []
    for line in text.read_text().splitlines():
        words = line.split()
        rows += [f"{a} {b}" for a, b in zip(words, [*words[1:], "end"], strict=True)] + [""]
    path = text.with_name("data.conll")
    path.write_text("\n".join(rows))
    return path


@pytest.mark.parametrize("tune", [False, True])
def test_a_tagger_keeps_the_features_it_was_trained_with(
    trained: Path, tagged: Path, tmp_path: Path, tune: bool
) -> None:
    moved = shutil.copytree(trained, tmp_path / "features")
    options = replace(TAGS, features=str(moved), tune=tune, cell="gru")
    how = Settings(steps=4, batch=16, evaluations=1)
    before = load_encoder(moved).state_dict()
    begun = runs.begin(tmp_path / "run", "tag", Source(tagged), options, how)
    for _ in begun.trainer.run():
        pass
    predictor = begun.task.predictor
    assert isinstance(predictor, TagPredictor)
    assert predictor.model.context is not None
    after = predictor.model.context.encoder.state_dict()
    same = [torch.equal(t, after[n]) for n, t in before.items()]
    assert not any(same) if tune else all(same)
    assert predictor.model.context.scores.any(), "the weights of the levels are learned"
    shutil.rmtree(moved)
    saved = load(tmp_path / "run").predictor
    assert saved.evaluate(tagged) == predictor.evaluate(tagged)
    with pytest.raises(ValueError, match="no folder"):
        runs.begin(tmp_path / "other", "tag", Source(tagged), options, how)


def test_commands(
    trained: Path, tagged: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "run"
    more = ["--hidden", "6", "--layers", "1", "--steps", "3", "--set", "sentences=20"]
    assert run(["train", str(tagged), "--out", str(out), "--features", str(trained), *more]) == 0
    assert "20 sentences of" in capsys.readouterr().err
    assert run(["train", str(tagged), "--out", str(tmp_path / "x"), "--features", str(out)]) == 2
    assert "holds a model for the task tag, not for bilm" in capsys.readouterr().err
    assert run(["train", str(tagged), "--out", str(tmp_path / "x"), "--set", "tune=true"]) == 2
    assert "tune is for a tagger with features" in capsys.readouterr().err
    assert run(["train", str(tagged), "--out", str(tmp_path / "x"), "--set", "sentences=999"]) == 2
    assert "at most the data's 54, got 999" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
    assert run(["predict", str(trained), str(tagged)]) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith("\ta bad cage")


@pytest.mark.parametrize(
    "change",
    [
        {"context": 3},
        {"context": {"config": {}, "characters": []}},
        {"context": None},
    ],
)
def test_damaged_features_are_refused(
    trained: Path, tagged: Path, tmp_path: Path, change: dict
) -> None:
    out, how = tmp_path / "run", Settings(steps=1, batch=16)
    begun = runs.begin(out, "tag", Source(tagged), replace(TAGS, features=str(trained)), how)
    for _ in begun.trainer.run():
        pass
    for file in out.glob("checkpoints/*/record.json"):
        record = json.loads(file.read_text())
        record["model"] |= change
        file.write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match=r"cannot be used|does not fit"):
        load(out)


def test_an_encoder_is_written_and_read() -> None:
    encoder = make().encoder
    again = ContextEncoder.from_json(json.loads(json.dumps(encoder.to_json())))
    assert again.config == encoder.config
    assert again.speller.characters.names == LETTERS.names
