"""What a translator says: the likeliest next subword each time, or the best of several beams.

T = steps, B = sentences, K = beams, V = subwords.
"""

from __future__ import annotations

from typing import Any

import torch

from gatewise.models.translator import BEGIN, END, PAD, Memory, Translator

_NEVER = float("-inf")
_MOST = 1000  # beams: memory grows with their number


def check_beams(beams: Any) -> int:
    """`beams`, where it is a number of beams; ValueError otherwise."""
    if isinstance(beams, bool) or not isinstance(beams, int) or not 1 <= beams <= _MOST:
        raise ValueError(f"beams must be between 1 and {_MOST}, got {beams!r}")
    return beams


@torch.no_grad()
def greedy(
    model: Translator, memory: Memory, longest: torch.Tensor | int
) -> tuple[list[list[int]], torch.Tensor | None]:
    """The likeliest subword at every step until END, and the attention maps [T, B, S].

    None has more than `longest`, one number or [B]: what is said depends on no other sentence.
    """
    batch = len(memory.lengths)
    longest = torch.as_tensor(longest).expand(batch)
    token, state = torch.full((1, batch), BEGIN), memory.state
    done, said, maps = torch.zeros(batch, dtype=torch.bool), [], []
    while not done.all():
        logits, state, weights = model.decode(token, state, memory)
        token = _allowed(logits).argmax(-1).where(~done, PAD)
        said.append(token[0])
        done = done | (token[0] == END) | (len(said) >= longest)
        if weights is not None:
            maps.append(weights[0])
    return _sentences(torch.stack(said, 1)), torch.stack(maps) if maps else None


@torch.no_grad()
def beam_search(
    model: Translator,
    memory: Memory,
    longest: torch.Tensor | int,
    beams: int = 5,
    length_power: float = 1.0,
) -> list[list[int]]:
    """The best of `beams` sentences kept side by side, by log P / length^`length_power`.

    A finished sentence keeps its place while others grow; one beam is greedy search. `longest` is
    as for `greedy`.
    """
    check_beams(beams)
    batch = len(memory.lengths)
    copies = torch.arange(batch).repeat_interleave(beams)  # [B·K]: which sentence
    memory, longest = memory.rows(copies), torch.as_tensor(longest).expand(batch)[copies]
    state, said = memory.state, torch.full((batch * beams, 1), BEGIN)
    total = torch.full((batch, beams), _NEVER)
    total[:, 0] = 0.0  # the beams begin alike: only one of them counts
    done = torch.zeros(batch * beams, dtype=torch.bool)
    while not done.all():
        logits, state, _ = model.decode(said[:, -1:].T, state, memory)
        step = _allowed(logits)[0].log_softmax(-1)  # [B·K, V]
        step = step.masked_fill(done[:, None], _NEVER)
        step[done, PAD] = 0.0
        size = step.shape[1]
        total, best = (total[:, :, None] + step.view(batch, beams, size)).flatten(1).topk(beams)
        rows = (torch.arange(batch)[:, None] * beams + best // size).flatten()
        said = torch.cat([said[rows], (best % size).view(-1, 1)], 1)
        state = tuple(s[:, rows] for s in state)
        done = done[rows] | (said[:, -1] == END) | (said.shape[1] > longest)
    lengths = (said[:, 1:] != PAD).sum(1).view(batch, beams)
    winner = (total / lengths**length_power).argmax(1) + torch.arange(batch) * beams
    return _sentences(said[winner, 1:])


def _allowed(logits: torch.Tensor) -> torch.Tensor:
    never = torch.zeros(logits.shape[-1], dtype=torch.bool)
    never[[PAD, BEGIN]] = True
    return logits.masked_fill(never, _NEVER)


def _sentences(said: torch.Tensor) -> list[list[int]]:
    return [[t for t in row if t not in (PAD, END)] for row in said.tolist()]
