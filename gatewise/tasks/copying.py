"""Symbols to be repeated after a delay."""

from __future__ import annotations

import torch

from gatewise.executors.lanes import Sequences
from gatewise.tasks.drawn import UNASKED, Drawn, Make, below, check_range, steps_of

SYMBOLS = 8  # to be remembered; then the blank and the signal to repeat
BLANK, SIGNAL = SYMBOLS, SYMBOLS + 1


def copy(length: int, shortest: int | None = None, items: int = 10) -> Drawn:
    """Repeat `items` symbols after blanks.

    The symbols, blanks, then the signal at each of the last `items` steps, where the symbols are to
    be predicted in their order. The number of blanks is uniform in `shortest` … `length`, by
    default always `length`.

    Source: Hochreiter & Schmidhuber, 1997; Arjovsky, Shah & Bengio, Unitary evolution recurrent
    neural networks, 2016 (who signal once).

    Raises:
        ValueError: no items, or not 0 <= shortest <= length.
    """
    shortest = length if shortest is None else shortest
    _check_items(items)
    check_range(length, shortest, 0)

    def make(u: torch.Tensor) -> Sequences:
        blanks = shortest + below(u[:, 0], length - shortest + 1)
        remember = below(u[:, 1:], SYMBOLS).T  # [items, B]
        x = torch.full((items + length, len(u)), BLANK)
        x[:items] = remember
        return _with_answer(x, items + blanks, remember)

    return _task(f"copy {length}", make, 1 + items)


def selective_copy(length: int, shortest: int | None = None, items: int = 10) -> Drawn:
    """Repeat the `items` symbols that stand somewhere among blanks.

    As `copy`, with the symbols at random places of the first steps, whose number is uniform in
    `shortest` … `length`, by default always `length`.

    Source: Jing et al., Gated orthogonal recurrent units, 2019.

    Raises:
        ValueError: no items, or not items <= shortest <= length.
    """
    shortest = length if shortest is None else shortest
    _check_items(items)
    check_range(length, shortest, items)

    def make(u: torch.Tensor) -> Sequences:
        steps = shortest + below(u[:, 0], length - shortest + 1)
        remember = below(u[:, 1 : 1 + items], SYMBOLS).T
        order = u[:, 1 + items :].T  # the `items` steps with the largest numbers hold a symbol
        order = torch.where(torch.arange(length).unsqueeze(1) < steps, order, -1.0)
        places = order.topk(items, 0).indices.sort(0).values
        x = torch.full((length, len(u)), BLANK).scatter_(0, places, remember)
        return _with_answer(x, steps, remember)

    return _task(f"selective copy {length}", make, 1 + items + length)


def _with_answer(x: torch.Tensor, before: torch.Tensor, remember: torch.Tensor) -> Sequences:
    """`x` up to each row's `before` steps, then the signals, and the targets."""
    items, rows = remember.shape
    time = steps_of(before + items)
    place = time - before  # of the answer's symbol
    asked = (place >= 0) & (place < items)
    padded = torch.cat([x, x.new_zeros(items, rows)])[: len(time)]
    shown = torch.where(place < 0, padded, torch.where(asked, SIGNAL, 0))
    answer = remember.gather(0, place.clamp(0, items - 1))
    return Sequences(shown, before + items, torch.where(asked, answer, UNASKED))


def _task(name: str, make: Make, numbers: int) -> Drawn:
    return Drawn(name, make, numbers, SYMBOLS + 2, SYMBOLS, symbols=True, target_symbols=True)


def _check_items(items: int) -> None:
    if items < 1:
        raise ValueError(f"items must be positive, got {items}")
