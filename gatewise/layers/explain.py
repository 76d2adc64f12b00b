"""Which executor each direction of each layer would run on, and why; nothing is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gatewise.executors import Explanation, Request, Result, choose, choose_both
from gatewise.executors.rerun import transformed, wants_gradient
from gatewise.layers.recurrent import Recurrent


@dataclass(frozen=True)
class StackExplanation:
    """An `Explanation` for every layer and direction, printable."""

    parts: tuple[tuple[str, Explanation], ...]  # ("layer 0", ...) or ("layer 0 reverse", ...)

    @property
    def executor(self) -> str:
        """The slowest executor of any part: "reference" if one part runs on it."""
        names = {part.executor for _, part in self.parts}
        return "reference" if "reference" in names else names.pop()

    @property
    def reasons(self) -> tuple[str, ...]:
        """Every part's reasons, each once."""
        return tuple(dict.fromkeys(r for _, part in self.parts for r in part.reasons))

    def __str__(self) -> str:
        return "\n".join(f"{name}: {part}" for name, part in self.parts)


def explain(layer: Recurrent, input: Any, state: Any = None, **call: Any) -> StackExplanation:
    """Which executor `layer(input, state, **call)` would run on, and why.

    Args:
        layer: a `Recurrent`, `LSTM`, `GRU` or `RNN`.
        input: as in the call, likewise `state`.
        call: the call's keyword arguments: lengths, resets, record, seed, offset.

    Returns:
        a `StackExplanation`; print it, or ask its `executor` and `reasons`.

    Raises:
        TypeError, ValueError: what the call itself would refuse. A layer with `strict=True` is
            explained too; only its call raises SlowPathError.

    >>> import torch
    >>> import gatewise as gw
    >>> print(gw.explain(gw.GRU(3, 5, executor="reference"), torch.zeros(7, 2, 3)))
    layer 0: runs on reference: executor='reference' was asked for
    """
    if not isinstance(layer, Recurrent):
        raise TypeError(f"layer must be a gatewise layer, got {type(layer).__name__}")
    requests: list[Request] = []

    def note(request: Request) -> Result:
        requests.append(request)
        return _blank(request)

    layer.dry_run(note, input, state, **call)
    found: list[Explanation] = []
    if layer.bidirectional:
        for pair in zip(requests[::2], requests[1::2], strict=True):
            found += choose_both(pair, layer.executor)
    else:
        found = [choose(r, layer.executor) for r in requests]
    names = [
        f"layer {d.index // layer.num_directions}" + " reverse" * d.reverse
        for d in layer.directions
    ]
    return StackExplanation(tuple(zip(names, found, strict=True)))


def _blank(request: Request) -> Result:
    """A result of the right shape for the layer above; only its shape and dtype are looked at."""
    size = request.state[request.trace.output].shape[-1]
    output = request.x.new_zeros(*request.x.shape[:2], size)
    if wants_gradient(request) and not transformed(output):
        output.requires_grad_()
    return Result(output, request.state)
