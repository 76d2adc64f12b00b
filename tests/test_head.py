"""The loss of a linear head, in chunks: the same number, the same gradients, the same errors."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from gatewise.models import head as module
from gatewise.models.head import negative_log_likelihood

IGNORED = -1


@pytest.fixture(autouse=True)
def few_logits_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOGITS", 300)


def case(
    rows: int, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, nn.Linear, torch.Tensor]:
    x = torch.randn(rows, 8, dtype=dtype, requires_grad=True)
    return x, nn.Linear(8, 30, dtype=dtype), torch.randint(IGNORED, 30, (rows,))


def plain(
    x: torch.Tensor, head: nn.Linear, target: torch.Tensor, smoothing: float = 0.0
) -> torch.Tensor:
    return cross_entropy(
        head(x), target, ignore_index=IGNORED, reduction="sum", label_smoothing=smoothing
    )


@pytest.mark.parametrize("rows", [1, 10, 11, 61, 100])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_it_is_cross_entropy_of_the_head_s_logits(
    rows: int, smoothing: float, dtype: torch.dtype
) -> None:
    x, head, target = case(rows, dtype)
    asked = (x, *head.parameters())
    loss = negative_log_likelihood(x, head, target, IGNORED, smoothing)
    expected = plain(x, head, target, smoothing)
    torch.testing.assert_close(loss, expected)
    for _ in range(2):  # a graph that is kept may be gone back twice
        found = torch.autograd.grad(loss * 0.3, asked, retain_graph=True)
        torch.testing.assert_close(
            found, torch.autograd.grad(expected * 0.3, asked, retain_graph=True)
        )


def test_second_derivatives_are_those_of_the_whole() -> None:
    x, head, target = case(40)
    asked = (x, *head.parameters())

    def curved(loss: torch.Tensor) -> tuple[torch.Tensor, ...]:
        first = torch.autograd.grad(loss, asked, create_graph=True)
        total = torch.stack([g.square().sum() for g in first]).sum()
        return torch.autograd.grad(total, asked)

    torch.testing.assert_close(
        curved(negative_log_likelihood(x, head, target, IGNORED, 0.1)),
        curved(plain(x, head, target, 0.1)),
    )


def test_only_what_learns_has_a_gradient() -> None:
    x, head, target = case(40)
    head.weight.requires_grad_(False)
    loss = negative_log_likelihood(x, head, target, IGNORED)
    loss.backward()
    assert x.grad is not None and head.bias.grad is not None and head.weight.grad is None
    (again,) = torch.autograd.grad(
        negative_log_likelihood(x, head, target, IGNORED), x, create_graph=True
    )
    torch.testing.assert_close(again, x.grad)


def test_without_gradients_none_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    x, head, target = case(40)
    monkeypatch.setattr(torch.Tensor, "addmm_", None)  # what gathers the weight's gradient
    with torch.no_grad():
        loss = negative_log_likelihood(x, head, target, IGNORED)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, plain(x, head, target).detach())


def test_rows_that_do_not_count_have_no_part() -> None:
    x, head, _ = case(40)
    loss = negative_log_likelihood(x, head, torch.full((40,), IGNORED), IGNORED)
    loss.backward()
    assert loss.item() == 0.0 and x.grad is not None and not x.grad.any()


def test_a_class_that_there_is_not_is_refused() -> None:
    x, head, _ = case(40)
    with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
        negative_log_likelihood(x, head, torch.full((40,), 30))


def test_the_logits_never_stand_in_memory_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = module.log_softmax
    monkeypatch.setattr(module, "log_softmax", lambda t, d: (seen.append(t.numel()), real(t, d))[1])
    x, head, target = case(95)
    negative_log_likelihood(x, head, target, IGNORED).backward()
    assert len(seen) > 5 and max(seen) <= 300
