"""Products of group elements: tracking a state that every symbol changes."""

from __future__ import annotations

import functools
from itertools import permutations

import torch

from gatewise.executors.lanes import Sequences
from gatewise.tasks.drawn import Drawn, below, check_range


def parity(length: int) -> Drawn:
    """Is the number of ones read so far odd? Asked at every one of `length` steps.

    Raises:
        ValueError: `length` below 1.
    """
    return _products("parity", length, ((0, 1), (1, 0)))


def permutation_products(length: int, objects: int = 3) -> Drawn:
    """Which permutation of S3 (or S5) have the swaps and rotations read so far made?

    Each of `length` symbols is the swap of the first two objects or the rotation of all by one
    place: together they generate the group. Asked at every step; a class is a permutation's number
    in lexicographic order. S5 is not solvable, so no circuit of constant depth tracks it.

    Source: Liu et al., Transformers learn shortcuts to automata, 2023; Merrill, Petty & Sabharwal,
    The illusion of state in state-space models, 2024.

    Raises:
        ValueError: `length` below 1, or fewer than 3 objects.
    """
    if objects < 3:
        raise ValueError(f"objects must be at least 3, got {objects}")
    all_of_them = tuple(permutations(range(objects)))
    number = {p: n for n, p in enumerate(all_of_them)}
    swap = (1, 0, *range(2, objects))
    rotation = (*range(1, objects), 0)
    steps = tuple(
        tuple(number[tuple(p[k] for k in move)] for move in (swap, rotation)) for p in all_of_them
    )
    return _products(f"S{objects}", length, steps)


def _products(name: str, length: int, steps: tuple[tuple[int, ...], ...]) -> Drawn:
    """An automaton from state 0: steps[state][symbol] is the next state, which is the target."""
    check_range(length, length)
    symbols = len(steps[0])
    make = functools.partial(_run, torch.tensor(steps), length)
    return Drawn(
        f"{name} {length}", make, length, symbols, len(steps), symbols=True, target_symbols=True
    )


def _run(steps: torch.Tensor, length: int, u: torch.Tensor) -> Sequences:
    x = below(u, steps.shape[1]).T.contiguous()  # [T, B]
    state = torch.zeros(len(u), dtype=torch.int64)
    states: list[torch.Tensor] = []
    for symbol in x:
        state = steps[state, symbol]
        states.append(state)
    return Sequences(x, torch.full_like(state, length), torch.stack(states))
