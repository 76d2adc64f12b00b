"""Tasks on sequences of symbols, each input a symbol's number."""

from __future__ import annotations

from gatewise.executors.lanes import Task
from gatewise.tasks.text import code

# The paper's positions of the marks, at length 100.
_MARKS = {2: ((10, 20), (50, 60)), 3: ((10, 20), (33, 43), (66, 76))}


def temporal_order(
    marks: int = 2, length: int = 100, unmarked: bool = False, noise: float = 0.0
) -> Task:
    """Which of X and Y came first (Hochreiter & Schmidhuber, 1997, experiments 6a and 6b).

    E, symbols of {a, b, c, d} but for X or Y at `marks` positions, B; length … length·1.1 steps.
    The target at the end is one of 2^marks classes. Positions are the paper's, scaled with the
    length.

    Args:
        marks: 2 (6a) or 3 (6b).
        length: shortest length, at least 50; 100 in the paper.
        unmarked: sequences without any X or Y are one class more, as frequent as the others.
        noise: standard deviation of normal deviates on each input, which then are 8 numbers, 1 at
            the symbol's own; 0: inputs are symbols.

    Raises:
        ValueError: another number of marks, a shorter length, negative noise.
    """
    if marks not in _MARKS:
        raise ValueError(f"marks must be 2 or 3, got {marks}")
    if length < 50:
        raise ValueError(f"length must be at least 50, got {length}")
    if not noise >= 0:
        raise ValueError(f"noise must be zero or positive, got {noise}")
    places = [float(p * length // 100) for span in _MARKS[marks] for p in span]
    return Task(
        f"temporal order {marks} {length}"
        + ", unmarked" * unmarked
        + f", noise {noise:g}" * (noise > 0),
        code("temporal_order.c", MARKS=marks, UNMARKED=int(unmarked), NOISE=int(noise > 0)),
        (float(length), float(length + length // 10), float(noise), *places),
        inputs=8,
        outputs=2**marks + unmarked,
        symbols=noise == 0,
        target_symbols=True,
    )


def long_lag(lag: int, distractors: int) -> Task:
    """Remember the second symbol past `lag` distractors and more (experiment 2c).

    b, x or y, then at least `lag` of `distractors` symbols, each step after these ends the
    sequence with probability 0.1 (by the symbol e). The target at the end is x or y.

    Raises:
        ValueError: `lag` negative or no distractors.
    """
    if lag < 0:
        raise ValueError(f"lag must be zero or positive, got {lag}")
    if distractors < 1:
        raise ValueError(f"distractors must be positive, got {distractors}")
    return Task(
        f"long lag {lag} {distractors}",
        code("long_lag.c"),
        (float(lag), float(distractors)),
        inputs=distractors + 4,
        outputs=2,
        symbols=True,
        target_symbols=True,
    )


def two_sequences(lag: int = 100, random_middle: bool = False, end_alone: bool = False) -> Task:
    """Predict every next symbol of two sequences that differ in their ends (2a and 2b).

    (y, a1 … a_{p-1}, y) or (x, a1 … a_{p-1}, x), p = `lag`. With `random_middle` (2b) the symbols
    between are random, and only the last prediction counts for success. With `end_alone` no other
    is asked for.

    Raises:
        ValueError: `lag` below 2.
    """
    if lag < 2:
        raise ValueError(f"lag must be at least 2, got {lag}")
    return Task(
        f"two sequences {lag}" + ", random middle" * random_middle + ", end alone" * end_alone,
        code("two_sequences.c", MIDDLE_RANDOM=int(random_middle), END_ALONE=int(end_alone)),
        (float(lag),),
        inputs=lag + 1,
        outputs=lag + 1,
        symbols=True,
        every_step=not end_alone,
        target_symbols=True,
        judge_end=random_middle and not end_alone,
    )
