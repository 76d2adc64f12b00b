"""Which executor runs a request, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from gatewise.executors import checkpoint, cpu, reference, rounding, scan
from gatewise.executors.request import Request, Result

EXECUTORS = ("auto", "cpu", "scan", "reference")


@dataclass(frozen=True)
class Explanation:
    """Which executor runs, how, and what keeps the faster one from running (empty: nothing)."""

    executor: str
    reasons: tuple[str, ...] = ()
    note: str = ""  # what else is worth knowing of the run

    def __str__(self) -> str:
        text = f"runs on {self.executor}" + (f" {self.note}" if self.note else "")
        return text + (": " + "; ".join(self.reasons) if self.reasons else "")


class SlowPathError(RuntimeError):
    """strict=True and no fast executor can run this request."""


def choose(request: Request, executor: str = "auto", strict: bool = False) -> Explanation:
    """The executor that will run `request`.

    Raises ValueError for an unknown executor or one that cannot run the request, and
    SlowPathError where `strict` refuses the reference.
    """
    if executor not in EXECUTORS:
        raise ValueError(f"executor must be one of {', '.join(EXECUTORS)}, got {executor!r}")
    rounding.refuse_training(request)
    if executor == "reference":
        chosen = Explanation("reference", ("executor='reference' was asked for",))
    elif executor == "auto":
        chosen = _fastest(request)
    else:
        reasons = _OBSTACLES[executor](request)
        if reasons:
            raise ValueError(f"executor={executor!r} cannot run this: " + "; ".join(reasons))
        chosen = Explanation(executor)
    if strict and chosen.executor == "reference":
        raise SlowPathError(
            "strict=True refuses the reference executor: " + "; ".join(chosen.reasons)
        )
    if request.held == "full" and not request.checkpoint:  # the usual case costs nothing
        return chosen
    return replace(chosen, note=_note(request, chosen.executor))


def _note(request: Request, executor: str) -> str:
    """How else than asked, or than usual, the request is run."""
    widened = cpu.note(request) if executor == "cpu" else ""
    notes = (rounding.note(request), widened, checkpoint.note(request))
    return ", ".join(n for n in notes if n)


def _fastest(request: Request) -> Explanation:
    """The kernel where it can run; then the scan over time, which suits a few cells; then the loop.

    On two CPU cores the scan took 0.6 to 6 times the kernel's time; it was the faster of the two
    only for single sequences with 1000 units (and, in training, 256): not enough to choose by
    shape. Elsewhere it saves a loop over time.
    """
    reasons = tuple(cpu.obstacles(request))
    if not reasons:
        return Explanation("cpu")
    return Explanation("reference" if scan.obstacles(request) else "scan", reasons)


_OBSTACLES: dict[str, Callable[[Request], list[str]]] = {
    "cpu": cpu.obstacles,
    "scan": scan.obstacles,
}
_RUN: dict[str, Callable[[Request], Result]] = {
    "cpu": cpu.run,
    "scan": scan.run,
    "reference": reference.run,
}


def run(request: Request, executor: str = "auto", strict: bool = False) -> Result:
    """Run the request on the executor that `choose` names."""
    return _execute(request, choose(request, executor, strict).executor)


def _execute(request: Request, executor: str) -> Result:
    execute = _RUN[executor]
    return checkpoint.run(request, execute) if checkpoint.applies(request) else execute(request)


def run_both(
    requests: tuple[Request, Request], executor: str = "auto", strict: bool = False
) -> tuple[torch.Tensor, list[Result]]:
    """Two requests on one input: their outputs side by side, [T, B, 2·O], and their results."""
    executors = [choose(r, executor, strict).executor for r in requests]
    if _joined(requests, executors):
        return cpu.run_together(requests)
    results = [_execute(r, e) for r, e in zip(requests, executors, strict=True)]
    return torch.cat([r.output for r in results], -1), results


def _joined(requests: tuple[Request, Request], executors: list[str]) -> bool:
    """Are both computed in one call of the kernel?"""
    return (
        executors == ["cpu", "cpu"]
        and not any(map(checkpoint.applies, requests))
        and cpu.same_kernel(requests)
    )


def choose_both(requests: tuple[Request, Request], executor: str = "auto") -> list[Explanation]:
    """`choose` for two requests on one input, and whether they run side by side."""
    chosen = [choose(r, executor) for r in requests]
    if not _joined(requests, [c.executor for c in chosen]):
        return chosen
    beside = cpu.beside(requests)
    return [replace(c, note=", ".join(n for n in (c.note, beside) if n)) for c in chosen]
