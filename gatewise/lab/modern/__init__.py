"""The modern track: any cell, mini-batches, one recipe of today; and what came after 1997."""

from gatewise.lab.modern.batteries import EXPERIMENTS as BATTERIES
from gatewise.lab.modern.table import EXPERIMENTS as BENCHMARKS
from gatewise.lab.modern.trial import TRACK

EXPERIMENTS = (*BENCHMARKS, *BATTERIES)

__all__ = ["EXPERIMENTS", "TRACK"]
