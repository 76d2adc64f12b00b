"""What becomes of a language model that reads its own output, beside the same model on real text.

N = tokens after the prompt, B = rows read in parallel, V = vocabulary, W = windows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch

from gatewise.equations.trace import trace
from gatewise.executors.counter import checked_seed
from gatewise.models.language_model import LanguageModel
from gatewise.models.sampling import Sampling
from gatewise.models.token_model import TokenModel

_PROMPT = 100  # tokens of real text before the model is on its own
_GRAM = 4  # tokens that count as repeated together
_WINDOWS = 10


@dataclass(frozen=True)
class Course:
    """Means over rows and over each window of steps after the prompt."""

    perplexity: list[float]  # of the tokens, under the judge
    repetition: list[float]  # share of places whose last four tokens stood in the row before
    state_norm: list[
        float
    ]  # root of the mean square of the last layer's last state that is no gate


@dataclass(frozen=True)
class Drift:
    """The model on its own output, and on the text that really follows the prompts."""

    steps: list[int]  # the last step of each window
    own: Course
    text: Course

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def measure_drift(
    model: LanguageModel,
    judge: TokenModel,
    text: torch.Tensor,
    length: int = 1000,
    rows: int = 16,
    sampling: Sampling | None = None,
    seed: int = 0,
    forbidden: Sequence[int] = (),
) -> Drift:
    """Let the model continue pieces of a text it has not seen, and measure what it says.

    Args:
        model: in evaluation mode.
        judge: another model of the same tokens, trained on other text or from another seed: what
            is unlikely for both is bad text, not one model's taste.
        text: [·] tokens; `rows` pieces of 100 + `length` are taken from it at equal distances.
        length: N, tokens the model says after each prompt of 100.
        rows: B.
        sampling: how tokens are drawn.
        seed: of the draws.
        forbidden: tokens that are never drawn.

    Raises ValueError where the text is too short, or a number too small; TypeError, ValueError
    for a seed that is no int in 0…2^63 - 1.
    """
    if length < _WINDOWS or rows < 1:
        raise ValueError(f"length must be at least {_WINDOWS} and rows 1, got {length} and {rows}")
    if len(text) < _PROMPT + length + rows:
        raise ValueError(
            f"text must have at least {_PROMPT + length + rows} tokens, got {len(text)}"
        )
    seed = checked_seed(seed)
    starts = torch.linspace(0, len(text) - _PROMPT - length, rows).long().tolist()
    truth = torch.stack([text[s : s + _PROMPT + length] for s in starts], 1)  # [100 + N, B]
    own = _continued(model, truth[:_PROMPT], length, sampling or Sampling(), seed, forbidden)
    borders = [_PROMPT + length * k // _WINDOWS for k in range(_WINDOWS + 1)]
    courses = [_observe(model, judge, tokens, borders) for tokens in (own, truth)]
    return Drift([b - _PROMPT for b in borders[1:]], *courses)


def _continued(
    model: LanguageModel,
    prompts: torch.Tensor,
    length: int,
    sampling: Sampling,
    seed: int,
    forbidden: Sequence[int],
) -> torch.Tensor:
    """The prompts [P, B] with `length` drawn tokens after each."""
    generator = torch.Generator().manual_seed(seed)
    never = torch.tensor(list(forbidden), dtype=torch.int64)
    stepper, said = model.stream(prompts.shape[1]), list(prompts)
    with torch.inference_mode():
        for token in prompts[:-1]:
            stepper(token)
        for _ in range(length):
            logits = stepper(said[-1]).float()
            logits[:, never] = float("-inf")
            said.append(torch.tensor([sampling.draw(row, generator) for row in logits]))
    return torch.stack(said)


@torch.inference_mode()
def _observe(
    model: LanguageModel, judge: TokenModel, tokens: torch.Tensor, borders: Sequence[int]
) -> Course:
    logits, _ = judge(tokens[:-1])
    nats = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), tokens[1:].flatten(), reduction="none"
    ).view(-1, tokens.shape[1])  # of token 1, 2, …
    again = torch.stack([_repeated(row) for row in tokens.T.tolist()], 1)
    stepper, norms = model.stream(tokens.shape[1]), []
    traced = trace(model.recurrent.cell)  # gates that are fed back are no memory
    memory = [k for k, s in enumerate(traced.states) if s not in traced.gates][-1]
    for token in tokens:
        stepper(token)
        state = stepper.state if isinstance(stepper.state, torch.Tensor) else stepper.state[memory]
        norms.append(state[-1].square().mean().sqrt().item())
    windows = list(pairwise(borders))
    return Course(
        [math.exp(nats[a - 1 : b - 1].mean().item()) for a, b in windows],
        [again[a:b].mean().item() for a, b in windows],
        [sum(norms[a:b]) / (b - a) for a, b in windows],
    )


def _repeated(row: Sequence[int]) -> torch.Tensor:
    """For each place, 1 where the last tokens up to it stood together before, else 0."""
    seen, found = set[tuple[int, ...]](), [0.0] * (_GRAM - 1)
    for end in range(_GRAM, len(row) + 1):
        gram = tuple(row[end - _GRAM : end])
        found.append(float(gram in seen))
        seen.add(gram)
    return torch.tensor(found)
