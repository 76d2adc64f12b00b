"""A language model streamed token by token equals the model on whole texts."""

from __future__ import annotations

import pytest
import torch

from gatewise.models import LanguageModel, LanguageModelConfig

T, B, SYMBOLS = 7, 3, 37


def make(cell: str = "lstm", **changes: object) -> LanguageModel:
    sizes = {"embedding_size": 5, "hidden_size": 12, "num_layers": 2} | changes
    return LanguageModel(LanguageModelConfig(SYMBOLS, cell, **sizes)).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("cell", ["lstm", "gru-reset-before", "lstm-1997"])
@pytest.mark.parametrize("batch", [1, B])
def test_steps_equal_the_whole_text(cell: str, batch: int) -> None:
    model = make(cell)
    stepper = model.stream(batch)
    assert stepper.obstacles == []
    tokens = torch.randint(SYMBOLS, (T, batch))
    logits = torch.stack([stepper(row) for row in tokens])
    expected, _ = model(tokens)
    assert logits.shape == (T, batch, SYMBOLS)
    torch.testing.assert_close(logits, expected.detach(), rtol=1e-5, atol=1e-6)


def test_an_int_is_a_batch_of_one() -> None:
    model = make(dropout=0.5)
    first, second = model.stream(), model.stream(threads=2)
    for token in (3, 1, 36):
        logits = first(token)
        assert logits.shape == (SYMBOLS,)
        assert not logits.requires_grad
        assert torch.equal(logits, second(torch.tensor([token]))[0])


def test_where_the_kernel_cannot_run_the_layer_does() -> None:
    model = make()
    model.recurrent.executor = "reference"
    slow, tokens = model.stream(B), torch.randint(SYMBOLS, (T, B))
    assert slow.obstacles
    logits = torch.stack([slow(row) for row in tokens])
    torch.testing.assert_close(logits, model(tokens)[0].detach(), rtol=1e-5, atol=1e-6)


def test_state_can_be_read_set_and_reset_by_row() -> None:
    model = make()
    stepper, tokens = model.stream(B), torch.randint(SYMBOLS, (T, B))
    for row in tokens[:4]:
        stepper(row)
    held = stepper.state
    torch.testing.assert_close(held.c, model(tokens[:4])[1].c.detach(), rtol=1e-5, atol=1e-6)
    onward = stepper(tokens[4])
    stepper.state = held
    assert torch.equal(stepper(tokens[4]), onward)
    stepper.state = held
    stepper.reset(torch.tensor([True, False, False]))
    mixed, fresh = stepper(tokens[4]), model.stream(B)(tokens[4])
    assert torch.equal(mixed[1:], onward[1:])
    assert torch.equal(mixed[0], fresh[0])


def test_changed_weights_are_noticed_in_every_part() -> None:
    model = make()
    weights = dict(model.named_parameters())
    for weight in map(weights.get, ("embedding.weight", "recurrent.weight_hh_l1", "head.bias")):
        assert weight is not None
        stepper = model.stream()
        stepper(1)
        with torch.no_grad():
            weight.add_(0.5)
        stepper.reset()
        stepper(4)
        expected = model(torch.tensor([[4], [2]]))[0][1, 0].detach()
        torch.testing.assert_close(stepper(2), expected, rtol=1e-5, atol=1e-6)


def test_what_is_no_token_is_refused() -> None:
    one, three = make().stream(), make().stream(3)
    for token in (-1, SYMBOLS):
        with pytest.raises(ValueError, match=f"token must be in 0…36, got {token}"):
            one(token)
    with pytest.raises(ValueError, match=r"token must be in 0…36, got \[0, 37, 0\]"):
        three(torch.tensor([0, 37, 0]))
    with pytest.raises(ValueError, match=r"token must be \[3\], got \[2\]"):
        three(torch.tensor([0, 1]))
    with pytest.raises(TypeError, match="int64 tensor, or an int for batch 1, got int"):
        three(5)
    with pytest.raises(TypeError, match=r"got torch\.float32"):
        one(torch.tensor([0.5]))


def test_a_fused_optimiser_is_noticed_in_the_embedding_the_layer_and_the_head() -> None:
    model = make()
    table = model.embedding.weight.detach()
    model.embedding.weight = torch.nn.Parameter(table.T.clone().T)  # as one loaded column by column
    for part in (model.embedding, model.recurrent, model.head):
        stepper = model.stream()
        before = stepper(3)
        model.zero_grad()
        model(torch.tensor([[3]]))[0][..., 1].sum().backward()
        torch.optim.Adam(part.parameters(), fused=True).step()
        stepper.reset()
        after = stepper(3)
        assert not torch.equal(after, before)
        torch.testing.assert_close(after, model(torch.tensor([[3]]))[0][0, 0].detach())
