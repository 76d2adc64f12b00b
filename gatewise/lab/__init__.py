"""The lab: experiments as data, run in trials, kept, and reported beside published figures."""

from gatewise.lab.experiment import (
    Activity,
    Experiment,
    Outcome,
    Progress,
    Published,
    Track,
    Work,
)
from gatewise.lab.table import EXPERIMENTS, TRACKS, add, select

# A module that defines a track adds it and its experiments here:
#     add(paper1997.TRACK, paper1997.EXPERIMENTS)

__all__ = [
    "EXPERIMENTS",
    "TRACKS",
    "Activity",
    "Experiment",
    "Outcome",
    "Progress",
    "Published",
    "Track",
    "Work",
    "add",
    "select",
]
