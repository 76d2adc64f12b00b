"""Learning curves of lanes in bounded memory."""

from __future__ import annotations

import torch


class Curves:
    """(sequences, error) of some lanes, at most 128 points each.

    When a lane has that many, every second is dropped, and from then on every second, fourth, …
    point that comes. So what is kept depends on how many came, and on nothing else.
    """

    MOST = 128

    def __init__(self, lanes: int) -> None:
        # [lanes, 1 + MOST, 2]: how many points came and every which is kept; then the points
        self.points = torch.zeros(lanes, 1 + self.MOST, 2, dtype=torch.float64)

    def add(self, lane: int, sequences: int, error: float) -> None:
        """The next point of a lane."""
        own = self.points[lane]
        came, stride = int(own[0, 0]), max(1, int(own[0, 1]))
        kept, beside = divmod(came, stride)
        if not beside:
            if kept == self.MOST:
                kept //= 2
                stride *= 2
                own[1 : 1 + kept] = own[1::2].clone()
            own[1 + kept] = torch.tensor([sequences, error], dtype=own.dtype)
        own[0] = torch.tensor([came + 1, stride], dtype=own.dtype)

    def of(self, lane: int) -> tuple[tuple[int, float], ...]:
        """A lane's points."""
        came, stride = (int(n) for n in self.points[lane, 0].tolist())
        kept = -(-came // max(1, stride))
        return tuple((int(n), e) for n, e in self.points[lane, 1 : 1 + kept].tolist())
