"""Which executor runs a request, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gatewise.executors import cpu, reference
from gatewise.executors.request import Request, Result

EXECUTORS = ("auto", "cpu", "reference")


@dataclass(frozen=True)
class Explanation:
    """Which executor runs, and what keeps the faster one from running (empty: nothing)."""

    executor: str
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.reasons:
            return f"runs on {self.executor}"
        return f"runs on {self.executor}: " + "; ".join(self.reasons)


class SlowPathError(RuntimeError):
    """strict=True and no fast executor can run this request."""


def choose(request: Request, executor: str = "auto", strict: bool = False) -> Explanation:
    """The executor that will run `request`.

    Raises ValueError for an unknown executor or one that cannot run the request, and
    SlowPathError where `strict` refuses the reference.
    """
    if executor not in EXECUTORS:
        raise ValueError(f"executor must be one of {', '.join(EXECUTORS)}, got {executor!r}")
    if executor == "reference":
        chosen = Explanation("reference", ("executor='reference' was asked for",))
    else:
        reasons = tuple(cpu.obstacles(request))
        chosen = Explanation("reference", reasons) if reasons else Explanation("cpu")
    if executor == "cpu" and chosen.executor != "cpu":
        raise ValueError("executor='cpu' cannot run this: " + "; ".join(chosen.reasons))
    if strict and chosen.executor == "reference":
        raise SlowPathError(
            "strict=True refuses the reference executor: " + "; ".join(chosen.reasons)
        )
    return chosen


_RUN: dict[str, Callable[[Request], Result]] = {"cpu": cpu.run, "reference": reference.run}


def run(request: Request, executor: str = "auto", strict: bool = False) -> Result:
    """Run the request on the executor that `choose` names."""
    return _RUN[choose(request, executor, strict).executor](request)
