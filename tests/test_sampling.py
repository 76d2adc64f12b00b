"""Sampling: what may be drawn, with which probability; streams repeat and keep only a state."""

from __future__ import annotations

import gc
import itertools
import math

import pytest
import torch

from gatewise.models import LanguageModel, LanguageModelConfig, Sampling
from gatewise.models.sampling import with_own

LOGITS = torch.tensor([0.3, 2.0, -1.0, 1.1, 0.9, -3.0])


def expected(
    temperature: float = 1.0, top_k: int | None = None, top_p: float = 1.0, min_p: float = 0.0
) -> list[float]:
    """The definition, in plain Python over (probability, token) pairs."""
    weights = [math.exp(x / temperature) for x in LOGITS.tolist()]
    pairs = sorted(((w / sum(weights), k) for k, w in enumerate(weights)), reverse=True)
    pairs = pairs[:top_k]
    total = sum(p for p, _ in pairs)
    nucleus, held = [], 0.0
    for p, k in pairs:
        if held >= top_p:
            break
        nucleus.append((p, k))
        held += p / total
    kept = [(p, k) for p, k in nucleus if p >= min_p * nucleus[0][0]]
    total = sum(p for p, _ in kept)
    result = [0.0] * len(LOGITS)
    for p, k in kept:
        result[k] = p / total
    return result


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 3.0},
        {"top_k": 1},
        {"top_k": 3},
        {"top_k": 99},
        {"top_p": 0.5},
        {"top_p": 0.9},
        {"top_p": 1e-9},
        {"min_p": 0.3},
        {"min_p": 1.0},
        {"temperature": 1.7, "top_k": 4, "top_p": 0.8, "min_p": 0.4},
    ],
)
def test_distribution_is_the_definition(options: dict) -> None:
    found = Sampling(**options).distribution(LOGITS)
    torch.testing.assert_close(
        found, torch.tensor(expected(**options), dtype=torch.float64), rtol=1e-6, atol=1e-9
    )  # the logits are float32


def test_greedy_is_the_limit_of_temperature_zero() -> None:
    greedy = Sampling(greedy=True).distribution(LOGITS)
    for temperature in (1e-2, 1e-6, 1e-300):
        torch.testing.assert_close(Sampling(temperature).distribution(LOGITS), greedy)
    assert Sampling(greedy=True).draw(LOGITS) == 1


def test_draws_follow_the_distribution() -> None:
    how, generator = Sampling(temperature=1.5, top_k=4), torch.Generator().manual_seed(0)
    draws = torch.tensor([how.draw(LOGITS, generator) for _ in range(4000)])
    found = torch.bincount(draws, minlength=6) / 4000
    # Five standard deviations of a frequency, sqrt(p(1-p)/n) <= 0.008.
    torch.testing.assert_close(found.double(), how.distribution(LOGITS), rtol=0, atol=0.04)
    assert set(draws.tolist()) == {0, 1, 3, 4}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature must be positive, got 0.0"),
        ({"temperature": float("nan")}, "temperature must be positive"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"top_p": 0.0}, "top_p must be above 0"),
        ({"top_p": 1.1}, "top_p must be above 0 and at most 1, got 1.1"),
        ({"min_p": -0.1}, "min_p must be between 0 and 1, got -0.1"),
    ],
)
def test_values_out_of_range_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampling(**options)


@pytest.fixture(params=["lstm", "gru"])
def model(request: pytest.FixtureRequest) -> LanguageModel:
    config = LanguageModelConfig(7, request.param, embedding_size=4, hidden_size=8, num_layers=2)
    return LanguageModel(config).eval()


def test_greedy_stream_equals_running_the_whole_text(model: LanguageModel) -> None:
    prompt = [1, 2, 3]
    drawn = list(model.sample(prompt, 12, Sampling(greedy=True)))
    text = [*prompt, *drawn]
    logits, _ = model(torch.tensor(text).unsqueeze(1))
    assert drawn == logits[len(prompt) - 1 : -1, 0].argmax(-1).tolist()


def test_a_long_prompt_is_read_in_pieces_with_the_same_result(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = torch.randint(7, (50,))
    whole = list(model.sample(prompt, 20, seed=3))
    monkeypatch.setattr("gatewise.models.token_model._PROMPT_CHUNK", 7)
    assert list(model.sample(prompt, 20, seed=3)) == whole


def test_a_seed_repeats_and_another_differs(model: LanguageModel) -> None:
    first = list(model.sample([1], 40, seed=5))
    torch.rand(3)  # the global random state must not matter
    assert list(model.sample([1], 40, seed=5)) == first
    assert list(model.sample([1], 40, seed=6)) != first


def test_forbidden_tokens_are_never_drawn(model: LanguageModel) -> None:
    assert not {0, 4} & set(model.sample([1], 200, Sampling(5.0), seed=0, forbidden=(0, 4)))


def test_an_endless_stream_keeps_nothing_but_the_state(model: LanguageModel) -> None:
    def tensors() -> int:
        gc.collect()
        return sum(type(o) is torch.Tensor for o in gc.get_objects())

    stream = model.sample([1], None, seed=0)
    counts = []
    for _ in range(3):
        list(itertools.islice(stream, 50))
        counts.append(tensors())
    assert counts[0] == counts[1] == counts[2]


def test_gradients_are_on_again_between_the_tokens(model: LanguageModel) -> None:
    for _ in model.sample([1], 2, seed=0):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()


def test_a_stream_refuses_what_it_cannot_do(model: LanguageModel) -> None:
    with pytest.raises(ValueError, match="prompt must have at least one token"):
        model.sample([], 3)
    with pytest.raises(ValueError, match="length must not be negative, got -1"):
        model.sample([1], -1)
    with pytest.raises(RuntimeError, match=r"call model\.eval\(\)"):
        model.train().sample([1], 3)


def test_scheduled_sampling_reads_guesses_in_their_places() -> None:
    inputs, guesses = torch.arange(12).view(4, 3), 100 + torch.arange(12).view(4, 3)
    assert torch.equal(with_own(inputs, guesses, 0.0), inputs)
    whole = with_own(inputs, guesses, 1.0)
    assert torch.equal(whole[0], inputs[0])
    assert torch.equal(whole[1:], guesses[:-1])  # what followed step t-1 is read at step t
    many, other = torch.zeros(200, 50, dtype=torch.int64), torch.ones(200, 50, dtype=torch.int64)
    share = with_own(many, other, 0.3)[1:].float().mean().item()
    assert share == pytest.approx(0.3, abs=0.025)  # five standard deviations


def test_where_every_token_is_forbidden() -> None:
    model = LanguageModel(LanguageModelConfig(3, embedding_size=2, hidden_size=2)).eval()
    for how in (Sampling(), Sampling(greedy=True)):
        with pytest.raises(ValueError, match="every token is forbidden"):
            list(model.sample([0], 2, how, seed=1, forbidden=(0, 1, 2)))
