"""The cache of what was just read: by its definition, causal, and where there is nothing in it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from gatewise.cli import run
from gatewise.models import LanguageModel, LanguageModelConfig, Vocabulary
from gatewise.models.neural_cache import NeuralCache, _plain, _read, choose, score
from gatewise.models.vocabulary import Encoded

V = 8


def make(**more: object) -> LanguageModel:
    torch.manual_seed(0)
    config = LanguageModelConfig(V, embedding_size=5, hidden_size=6, init_range=1.0, **more)  # type: ignore[arg-type]
    return LanguageModel(config).eval()


def text(n: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(V, (n,), generator=torch.Generator().manual_seed(seed))


def held(ids: torch.Tensor) -> Encoded:
    return Encoded(ids, len(ids) - 1, 0.0)


@torch.no_grad()
def by_definition(model: LanguageModel, ids: torch.Tensor, cache: NeuralCache) -> float:
    """Perplexity, one token after the other, from the equations of the docstring."""
    output, _ = model.hidden(ids[:-1, None])
    read = model.projected(output)[:, 0].double()
    own = model.logits(output)[:, 0].double().softmax(-1)
    nats = 0.0
    for t in range(len(ids) - 1):
        p = own[t]
        past = range(max(0, t - cache.window), t)
        if past:
            alike = [math.exp(cache.sharpness * float(read[t] @ read[i])) for i in past]
            copied = torch.zeros(V, dtype=torch.float64)
            for i, weight in zip(past, alike, strict=True):
                copied[ids[i + 1]] += weight / sum(alike)
            assert copied.sum().item() == pytest.approx(1)
            p = (1 - cache.share) * p + cache.share * copied
        nats -= math.log(p[ids[t + 1]])
    return math.exp(nats / (len(ids) - 1))


@pytest.mark.parametrize("window", [1, 7, 300])
@pytest.mark.parametrize("more", [{}, {"tied": True, "num_layers": 2}])
def test_as_it_is_defined(window: int, more: dict[str, object]) -> None:
    model, ids, cache = make(**more), text(330), NeuralCache(0.3, 0.7, window)  # over two chunks
    found = score(model, held(ids), cache)
    assert found.perplexity == pytest.approx(by_definition(model, ids, cache), rel=1e-5)
    assert found.without == pytest.approx(
        by_definition(model, ids, NeuralCache(0, 0.7, window)), rel=1e-5
    )
    assert found.bits_per_character == pytest.approx(math.log2(found.perplexity))


def test_the_future_changes_nothing() -> None:
    model, ids = make(), text(400)
    other = torch.cat([ids[:300], text(100, seed=2)])
    found, changed = (_read(model, t, 50, (1.0, 2.0), _plain) for t in (ids, other))
    for a, b in zip(found, changed, strict=True):
        assert torch.equal(a[..., :299], b[..., :299])
    assert not torch.equal(found[1], changed[1])


def test_two_tokens_have_nothing_in_the_cache() -> None:
    found = score(make(), held(text(2)), NeuralCache(0.9, 1.0))
    assert found.perplexity == found.without


def test_what_is_repeated_is_found() -> None:
    ids = text(60).repeat(8)
    cache = choose(make(), ids, window=100)
    found = score(make(), held(ids), cache)
    assert cache.share > 0.5
    assert found.perplexity < 0.9 * found.without


def test_random_text_gets_the_least_cache() -> None:
    """Where nothing can be copied the choice is a small share, and little is lost."""
    model = make()
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.zero_()
    cache = choose(model, text(3000), window=20)
    assert cache.share <= 0.1
    assert score(model, held(text(3000, 5)), cache).perplexity < 8.2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((1.0, 1.0), "share must be at least 0 and below 1, got 1.0"),
        ((math.nan, 1.0), "share must be"),
        ((0.1, 0.0), "sharpness must be above 0, got 0.0"),
        ((0.1, math.inf), "sharpness must be"),
        ((0.1, 1.0, 0), "window must be between 1 and"),
    ],
)
def test_what_is_no_cache(values: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NeuralCache(*values)


def test_not_while_it_learns() -> None:
    with pytest.raises(RuntimeError, match="evaluation mode"):
        score(make().train(), held(text(10)), NeuralCache(0.1, 1.0))
    with pytest.raises(TypeError, match="window must be an int"):
        choose(make(), text(10), window=2.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least two tokens"):
        choose(make(), text(1))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = [tmp_path / f"{name}.txt" for name in "abc"]
    for k, path in enumerate(texts):
        path.write_text(f"{k} to be or not to be, that is the question\n" * 30)
    out = str(tmp_path / "model")
    train = ["train", str(texts[0]), "--out", out, "--hidden", "8", "--steps", "3"]
    assert run([*train, "--level", "word"]) == 0
    capsys.readouterr()
    command = ["neural-cache", out, str(texts[1])]
    more = ["--tune", str(texts[2]), "--window", "50"]
    assert run([*command, *more, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["perplexity"] < found["without"]
    assert found["cache"]["window"] == 50
    assert run([*command, *more]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("without a cache:") and "chosen on c.txt" in lines[1]
    assert run([*command, "--tune", str(texts[1])]) == 2
    assert "must be another text" in capsys.readouterr().err
    assert run([*command, "--tune", str(tmp_path / "none.txt")]) == 2
    assert "none.txt" in capsys.readouterr().err
    assert run([*command, *more, "--window", "0"]) == 2
    assert "window must be between 1" in capsys.readouterr().err


def test_unknown_words_pay_for_their_spelling() -> None:
    vocabulary = Vocabulary.build("a b a b", "space")
    assert len(vocabulary) < V
    known, unknown = (vocabulary.measure(t) for t in ("a b a b a", "a b zz b a"))
    model, cache = make(), NeuralCache(0.2, 1.0)
    nats = 4 * math.log(score(model, unknown, cache).perplexity)
    found = score(model, unknown, cache).bits_per_character
    assert found == pytest.approx((nats / math.log(2) + 24) / unknown.characters)
    assert (known.spelled_bits, unknown.spelled_bits) == (0, 24)  # "zz "
