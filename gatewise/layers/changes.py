"""Have the parameters of some modules changed? A look at every step of a stream must cost little.

Reading all weights would cost as much as the step. So this asks what PyTorch counts: a parameter's
version, where its numbers lie, and the steps of optimisers, because those with `fused=True` count
no version. What is written into `parameter.data` or through NumPy shows in none of these.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

_steps = 0  # of all optimisers, since the first watch


@functools.cache
def _count_steps() -> None:
    def count(*_: Any) -> None:
        global _steps
        _steps += 1

    register_optimizer_step_post_hook(count)


class Watch:
    """Tells whether parameters or buffers of `modules` may be other ones than at the last look."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        _count_steps()
        self._modules = tuple(modules)
        self.look()

    def look(self) -> None:
        """Take what there is as known."""
        parts = [m for top in self._modules for m in top.modules()]
        owners: list[Mapping[str, torch.Tensor | None]] = [
            d for m in parts for d in (m._parameters, m._buffers)
        ]
        held = [(d, name, t) for d in owners for name, t in d.items() if t is not None]
        self._seen: list[Any] = [(d, name, t._version, t.data_ptr()) for d, name, t in held]
        self._steps = _steps
        # What is put in their place later cannot lie where these numbers do.
        self._alive = [t.detach() for _, _, t in held]

    def changed(self) -> bool:
        """Is there anything new since the last look?"""
        for owner, name, version, place in self._seen:
            t = owner.get(name)
            if t is None or t._version != version or t.data_ptr() != place:
                return True
        return self._steps != _steps
