"""Two classes of noisy sequences on one input line."""

from __future__ import annotations

from gatewise.executors.lanes import Task
from gatewise.tasks.text import code


def two_classes(
    length: int = 100,
    information: int = 3,
    noisy_information: bool = False,
    noisy_targets: bool = False,
) -> Task:
    """Which class the first elements tell, after noise (1997, experiments 3a, 3b and 3c).

    The first `information` elements are +1 (class 1) or -1 (class 2), the rest normal deviates of
    variance 0.2; length … length·1.1 steps; the target at the end is 1 or 0.

    Args:
        length: shortest length.
        information: elements that tell the class.
        noisy_information: they carry the same noise (3b).
        noisy_targets: targets 0.2 and 0.8 with noise of variance 0.1 in training, without in
            tests (3c).

    Raises:
        ValueError: no information, or no room after it.

    >>> x, lengths, target = two_classes(100, 3).sequences(2)
    >>> bool((x[:3, :, 0] == 2 * target.T - 1).all())
    True
    """
    if information < 1:
        raise ValueError(f"information must be positive, got {information}")
    if length <= information:
        raise ValueError(f"length must be above information = {information}, got {length}")
    kind = ", noisy information" * noisy_information + ", noisy targets" * noisy_targets
    options = {"NOISY_INFORMATION": int(noisy_information), "NOISY_TARGETS": int(noisy_targets)}
    return Task(
        f"two classes {length} {information}{kind}",
        code("two_classes.c", **options),
        (float(length), float(information)),
        inputs=1,
        outputs=1,
    )
