"""The mean of a model's weights over the steps of training, in place of the last of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


class Average:
    """The running mean of the weights since it was begun (Polyak & Juditsky, 1992).

    mean_n = mean_{n-1} + (w_n - mean_{n-1}) / n
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self.count = 0  # steps in the mean; 0: not begun
        self.mean: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def add(self) -> None:
        """Take the weights as they are now into the mean."""
        self.count += 1
        for name, parameter in self._model.named_parameters():
            if self.count == 1:
                self.mean[name] = parameter.detach().clone()
            else:
                self.mean[name].lerp_(parameter, 1 / self.count)

    @contextmanager
    def applied(self) -> Iterator[dict[str, torch.Tensor]]:
        """The model has the mean's weights meanwhile; yields its own ones. Before: nothing."""
        own = {n: p.detach().clone() for n, p in self._model.named_parameters() if n in self.mean}
        self._write(self.mean)
        try:
            yield own
        finally:
            self._write(own)

    def restore(self, own: dict[str, torch.Tensor], count: int) -> None:
        """Put back what `applied` gave, the model having the mean's weights."""
        self.count = count
        self.mean = {n: p.detach().clone() for n, p in self._model.named_parameters() if n in own}
        self._write(own)

    @torch.no_grad()
    def _write(self, weights: dict[str, torch.Tensor]) -> None:
        for name, parameter in self._model.named_parameters():
            if name in weights:
                parameter.copy_(weights[name])


def stalled(values: Sequence[float], recent: int) -> bool:
    """Is the last value worse than the lowest, leaving out the `recent` ones before it?

    The trigger of averaging in AWD-LSTM (Merity, Keskar & Socher, 2018).

    >>> stalled([5, 4, 3, 2, 1], recent=2), stalled([3, 2, 3, 3, 3], recent=2)
    (False, True)
    """
    before = values[: max(0, len(values) - 1 - recent)]
    return bool(before) and values[-1] > min(before)
