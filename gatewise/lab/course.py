"""What one trial is given to learn, length after length, and when it has learnt it.

A course begins with short sequences; those of twice the length follow as soon as nearly all of the
latest were right, until the length asked for. There the family's own rule decides.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gatewise.executors.lanes import Criterion
from gatewise.lab.curve import Curves
from gatewise.lab.experiment import State
from gatewise.lab.families import Family
from gatewise.lab.judge import Judge
from gatewise.lab.kept import under
from gatewise.lab.objective import Asked, Source, draw, part

_AHEAD = 8  # batches that are drawn at once: a call costs as much as 30 sequences
_STEPS = 2**18  # but no more steps than these, if that is a batch


class Course:
    """One trial's way through the lengths of a task family.

    Args:
        family: what is learnt.
        lengths: of the sequences, in the order they come.
        seed: of the data.
        batch: sequences of an update.
        climb: share of the latest `latest` sequences that must be right for the next length.
        latest: see `climb`.
    """

    def __init__(
        self,
        family: Family,
        lengths: Sequence[int],
        seed: int,
        batch: int,
        climb: float = 0.9,
        latest: int = 200,
    ) -> None:
        self.family, self.lengths, self.seed, self.batch = family, list(lengths), seed, batch
        self.latest, self.most_wrong = latest, int((1 - climb) * latest)
        self.stages: list[Source] = [family.make(n) for n in lengths]
        self.stage = self.sequences = 0
        self.curve = Curves(1)
        self.judge = self._judge()
        self._drawn: tuple[tuple[int, int], Asked] | None = None  # (stage, block), its sequences

    def _judge(self) -> Judge:
        """The family's rule at the last length, the one for climbing before it."""
        rule = self.family.criterion
        if not self.last:
            rule = Criterion(rule.tolerance, window=self.latest, most_wrong=self.most_wrong)
        return Judge(rule)

    @property
    def task(self) -> Source:
        """What is learnt now."""
        return self.stages[self.stage]

    @property
    def length(self) -> int:
        """Of the sequences it has come to."""
        return self.lengths[self.stage]

    @property
    def last(self) -> bool:
        """Has it come to the length asked for?"""
        return self.stage == len(self.stages) - 1

    def draw(self) -> Asked:
        """The next batch."""
        at_once = _STEPS // (self.batch * max(1, self.length))
        ahead = self.batch * max(1, min(_AHEAD, at_once))
        block, first = divmod(self.sequences, ahead)
        if self._drawn is None or self._drawn[0] != (self.stage, block):
            given = draw(self.task, ahead, self.seed, block * ahead)
            self._drawn = (self.stage, block), given
        return part(self.task, self._drawn[1], first, self.batch)

    def see(self, errors: torch.Tensor) -> bool:
        """The |t - y| of the batch [B, O]: is the family's rule met, at the last length?"""
        met = self.judge.see(errors)
        self.sequences += len(errors)
        self.curve.add(0, self.sequences, self.judge.error)
        if met and not self.last:
            self.stage += 1
            self.judge = self._judge()
            return False
        return met

    def insist(self) -> None:
        """The rule was met, but it was no success: as many sequences more are looked at."""
        self.judge = self._judge()

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Everything the course goes on from."""
        found = {f"judge.{n}": t.clone() for n, t in self.judge.state_dict().items()}
        found["at"] = torch.tensor([self.stage, self.sequences])
        return found | {"curve": self.curve.points.clone()}

    def load_state_dict(self, state: State) -> None:
        """See `state_dict`."""
        self.stage, self.sequences = state["at"].tolist()
        self.judge = self._judge()  # of this stage
        self.judge.load_state_dict(under(state, "judge"))
        self.curve.points = state["curve"].clone()
