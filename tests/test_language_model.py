"""The language model: shapes, carried state, tied weights, configuration, recorded gates."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn.functional import cross_entropy

from gatewise import Cell, tanh
from gatewise.models import LanguageModel, LanguageModelConfig
from gatewise.models.corpus import IGNORED

CELLS = ["lstm", "gru", "rnn", "lstm-1997", "lstm-layernorm"]


@pytest.mark.parametrize("cell", CELLS)
def test_chunks_with_carried_state_equal_the_whole(cell: str) -> None:
    config = LanguageModelConfig(9, cell, embedding_size=4, hidden_size=6, num_layers=2)
    model = LanguageModel(config, dtype=torch.float64)
    tokens = torch.randint(9, (12, 3))
    whole, _ = model(tokens)
    state, parts = None, []
    for chunk in tokens.split(5):
        logits, state = model(chunk, state)
        parts.append(logits)
    assert whole.shape == (12, 3, 9)
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-12, atol=1e-12)


def test_it_is_torch_s_lstm_between_an_embedding_and_a_head() -> None:
    config = LanguageModelConfig(9, embedding_size=4, hidden_size=6, num_layers=2)
    model = LanguageModel(config, dtype=torch.float64)
    lstm = torch.nn.LSTM(4, 6, 2, dtype=torch.float64)
    lstm.load_state_dict(model.recurrent.state_dict())
    tokens = torch.randint(9, (5, 3))
    expected = model.head(lstm(model.embedding(tokens))[0])
    torch.testing.assert_close(model(tokens)[0], expected, rtol=1e-10, atol=1e-12)


def test_tied_weights_are_one_parameter() -> None:
    config = LanguageModelConfig(9, embedding_size=6, hidden_size=6, tied=True)
    model = LanguageModel(config)
    assert model.head.weight is model.embedding.weight
    assert sum(p.shape == (9, 6) for p in model.parameters()) == 1


def test_tied_weights_of_another_size_are_reached_by_a_linear_map() -> None:
    config = LanguageModelConfig(9, embedding_size=4, hidden_size=6, tied=True)
    model = LanguageModel(config).eval()
    assert model.head.weight is model.embedding.weight
    assert model.projection is not None
    tokens = torch.randint(9, (5, 3))
    output, _ = model.recurrent(model.embedding(tokens))
    expected = (output @ model.projection.weight.T) @ model.embedding.weight.T + model.head.bias
    torch.testing.assert_close(model(tokens)[0], expected)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("weights", ["full", "bf16"])
def test_surprisal_is_the_cross_entropy_of_the_logits(tied: bool, weights: str) -> None:
    config = LanguageModelConfig(9, embedding_size=4, hidden_size=6, tied=tied, weights=weights)
    model, tokens = LanguageModel(config), torch.randint(9, (5, 3))
    targets = torch.randint(IGNORED, 9, (5, 3))
    output, _ = model.hidden(tokens)
    total = model.surprisal(output, targets)
    expected = cross_entropy(
        model.logits(output).flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    torch.testing.assert_close(total, expected)
    found = torch.autograd.grad(total, model.head.weight, retain_graph=True)
    torch.testing.assert_close(found, torch.autograd.grad(expected, model.head.weight))


@pytest.mark.parametrize("rate", LanguageModelConfig.dropouts)
def test_dropout_acts_in_training_only(rate: str) -> None:
    config = LanguageModelConfig(9, embedding_size=8, hidden_size=8, **{rate: 0.5})
    model, tokens = LanguageModel(config), torch.randint(9, (5, 3))
    assert not torch.equal(model(tokens)[0], model(tokens)[0])
    model.eval()
    assert torch.equal(model(tokens)[0], model(tokens)[0])


def test_a_user_s_cell() -> None:
    class Leaky(Cell):
        gates = ("new",)
        states = ("h",)

        def step(self, gate, state):
            return {"h": 0.9 * state.h + 0.1 * tanh(gate.new)}

    config = LanguageModelConfig(9, "mine.py:Leaky", embedding_size=4, hidden_size=6)
    logits, state = LanguageModel(config, cell=Leaky())(torch.randint(9, (5, 3)))
    assert logits.shape == (5, 3, 9)
    assert isinstance(state, torch.Tensor)


def test_activity_records_gates_and_states_of_every_layer() -> None:
    config = LanguageModelConfig(9, embedding_size=4, hidden_size=6, num_layers=2)
    model = LanguageModel(config).eval()
    tokens = torch.randint(9, (7,))
    found = model.activity(tokens, ["forget", "h"])
    assert found["forget"].shape == found["h"].shape == (2, 7, 6)
    assert 0 < found["forget"].min() < found["forget"].max() < 1
    torch.testing.assert_close(model.head(found["h"][-1]), model(tokens.unsqueeze(1))[0][:, 0])


def test_configuration_survives_json() -> None:
    config = LanguageModelConfig(100, "gru", 16, 32, 3, 0.25)
    assert LanguageModelConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 0}, "hidden_size must be between 1 and"),
        ({"hidden_size": 2.5}, r"hidden_size must be an int, got 2\.5"),
        ({"num_layers": True}, "num_layers must be an int, got True"),
        ({"num_layers": 10**12}, "num_layers must be between 1 and"),
        ({"dropout": 1.0}, r"dropout must be at least 0 and below 1, got 1\.0"),
        ({"weight_dropout": 1.0}, r"weight_dropout must be at least 0 and below 1, got 1\.0"),
        ({"num_layers": 1, "hidden_dropout": 0.1}, "hidden_dropout is between layers, num_layers"),
        ({"weights": "int8"}, "weights must be full or bf16, got 'int8'"),
        ({"cell": 3}, "cell must be a name, got 3"),
        ({"surprise": 1}, "must have exactly"),
    ],
)
def test_configurations_that_cannot_be(change: dict, message: str) -> None:
    data = LanguageModelConfig(10).to_json() | change
    with pytest.raises((ValueError, TypeError), match=message):
        LanguageModelConfig.from_json(data)
