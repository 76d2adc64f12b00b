"""What a trial may spend, in words."""

from __future__ import annotations

from collections.abc import Sequence


def either(values: Sequence[float]) -> str:
    """Alternatives.

    >>> either([0.01, 0.003, 0.001]), either([64])
    ('0.01, 0.003 or 0.001', '64')
    """
    *before, last = (f"{v:g}" for v in values)
    return f"{', '.join(before)} or {last}" if before else last
