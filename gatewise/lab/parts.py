"""The parts of the lab: experiments that answer one question together, in the order of reading."""

from __future__ import annotations

from dataclasses import dataclass

from gatewise.lab.experiment import Experiment
from gatewise.lab.table import TRACKS


@dataclass(frozen=True)
class Part:
    """A tag or track, and what its experiments have in common.

    Args:
        tag: `gatewise lab run TAG` repeats the part.
        title: a line.
        says: a sentence or two.
    """

    tag: str
    title: str
    says: str = ""


PARTS = (
    Part(
        "paper1997",
        "The 1997 paper, row by row",
        "Hochreiter & Schmidhuber's experiments with their networks, learning rule, stopping rules "
        "and numbers of trials. What the paper leaves open is read literally.",
    ),
    Part(
        "readings",
        "Other readings of the paper",
        "What the paper does not say, or says in two ways, one change at a time; beside them the "
        "figures of the row that is read otherwise.",
    ),
    Part(
        "ablations",
        "The 1997 LSTM on eight benchmarks, whole and with a part replaced",
        "S is a table of success rates that circulates as the paper's results and is not in it. "
        "Networks, learning rule and stopping rules are the paper's.",
    ),
    Part(
        "claims",
        "Who else learns long time lags",
        "S says that these methods fail. Each trial searches its own rates or sizes, with the "
        "budget that its row states, and goes on with the best. Controls have a short lag.",
    ),
    Part(
        "eight",
        "An LSTM of today on the same eight benchmarks",
        "Mini-batches, Adam, chrono initialisation and a curriculum of lengths: one recipe for all "
        "tasks, with the paper's stopping rules. S's figures are those it gives for the LSTM.",
    ),
    Part("long", "Further: 5,000 and 10,000 steps", "The same recipe, unchanged."),
    Part(
        "cells",
        "Other cells by the same recipe",
        "As many weights as the LSTM of 32 units; the recipe was found for that LSTM.",
    ),
    Part(
        "search",
        "The search that found the recipe",
        "Each row changes one ingredient, on random numbers that no other row uses.",
    ),
    Part(
        "later",
        "What came after 1997",
        "Tasks that tell gates, peepholes, simple networks and attention apart; where a length is "
        "named, right answers are demanded at lengths never trained on. What others say of these "
        "networks has a verdict too; theirs were trained in other ways.",
    ),
)


def part_of(experiment: Experiment) -> Part:
    """The first part that one of its tags, or its track, names; else its track as a part."""
    words = (*experiment.tags, experiment.track)
    found = next((p for p in PARTS if p.tag in words), None)
    track = TRACKS.get(experiment.track)
    return found or Part(experiment.track, track.title if track else experiment.track)
