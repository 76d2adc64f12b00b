"""The lab: experiments as data, run in trials, kept, and reported beside published figures."""

from gatewise.lab import ablations, claims, faithful, modern, paper1997, recall
from gatewise.lab.experiment import (
    Activity,
    Experiment,
    Outcome,
    Progress,
    Published,
    Track,
    Work,
)
from gatewise.lab.results import Results
from gatewise.lab.run import Options, Run, Standing, run
from gatewise.lab.store import Store, Trial, Unfinished
from gatewise.lab.table import EXPERIMENTS, TRACKS, add, check, select

# A module that defines a track gives it and its experiments; they are put into the tables here.
add(faithful.TRACK, (*paper1997.EXPERIMENTS, *ablations.EXPERIMENTS))
add(claims.TRACK, claims.EXPERIMENTS)
add(modern.TRACK, modern.EXPERIMENTS)
add(recall.TRACK, recall.EXPERIMENTS)

__all__ = [
    "EXPERIMENTS",
    "TRACKS",
    "Activity",
    "Experiment",
    "Options",
    "Outcome",
    "Progress",
    "Published",
    "Results",
    "Run",
    "Standing",
    "Store",
    "Track",
    "Trial",
    "Unfinished",
    "Work",
    "add",
    "check",
    "run",
    "select",
]
