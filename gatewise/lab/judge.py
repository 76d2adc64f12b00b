"""The paper's stopping rule for training in mini-batches."""

from __future__ import annotations

import torch

from gatewise.executors.lanes import Criterion


class Judge:
    """Watches the last `window` training sequences; judged after each batch, before it is learnt.

    >>> judge = Judge(Criterion(tolerance=0.1, window=4))
    >>> right, wrong = torch.zeros(2, 1), torch.ones(2, 1)
    >>> judge.see(wrong), judge.see(right), judge.see(right), judge.sequences
    (False, False, True, 6)
    """

    def __init__(self, criterion: Criterion) -> None:
        self.criterion = criterion
        self._wrong = torch.zeros(0, dtype=torch.bool)
        self._error = torch.zeros(0)
        self.sequences = 0

    def see(self, errors: torch.Tensor) -> bool:
        """The |t - y| of a batch [B, O]: is the criterion met?"""
        c = self.criterion
        wrong = ~(errors.amax(1) <= c.tolerance)  # NaN is wrong
        error = errors.square().mean(1) if c.measure == "squared" else errors.mean(1)
        self._wrong = torch.cat([self._wrong, wrong])[-c.window :]
        self._error = torch.cat([self._error, error.float()])[-c.window :]
        self.sequences += len(errors)
        full = self.sequences >= c.window
        return full and int(self._wrong.sum()) <= c.most_wrong and self.error < c.error

    @property
    def error(self) -> float:
        """Mean error over the window; not a number where the network is not."""
        return float(self._error.mean())

    @property
    def wrong(self) -> int:
        """Wrong sequences in the window."""
        return int(self._wrong.sum())

    def state_dict(self) -> dict[str, torch.Tensor]:
        """To continue from."""
        return {
            "wrong": self._wrong,
            "error": self._error,
            "sequences": torch.tensor(self.sequences),
        }

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """See `state_dict`."""
        self._wrong, self._error = state["wrong"].clone(), state["error"].clone()
        self.sequences = int(state["sequences"])
