"""Run any cell over time: the reference, the C kernels, and the choice between them."""

from gatewise.executors.choose import (
    EXECUTORS,
    Explanation,
    SlowPathError,
    choose,
    choose_both,
    run,
    run_both,
)
from gatewise.executors.request import Request, Result, Zoneout

__all__ = [
    "EXECUTORS",
    "Explanation",
    "Request",
    "Result",
    "SlowPathError",
    "Zoneout",
    "choose",
    "choose_both",
    "run",
    "run_both",
]
