"""The one table of experiments and the one table of tracks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gatewise.lab.experiment import Experiment, Track, from_file

# A track's module gives its `TRACK` (or several) and its `EXPERIMENTS`; they are listed here.
TRACKS: dict[str, Track] = {}
EXPERIMENTS: dict[str, Experiment] = {}


def add(track: Track, experiments: Iterable[Experiment]) -> None:
    """Put a track and its experiments into the tables.

    Raises ValueError for a name that is there already, or an experiment of another track.
    """
    if TRACKS.setdefault(track.name, track) is not track:
        raise ValueError(f"track {track.name} is there already")
    for e in experiments:
        if e.name in EXPERIMENTS:
            raise ValueError(f"experiment {e.name} is there already")
        if e.track != track.name:
            raise ValueError(f"experiment {e.name} must be of the track {track.name}")
        EXPERIMENTS[e.name] = e


def check(experiment: Experiment) -> None:
    """Raise ValueError or TypeError, before any work, for an experiment that cannot be run."""
    if experiment.track not in TRACKS:
        known = ", ".join(TRACKS)
        raise ValueError(f"track must be one of {known}, got {experiment.track!r}")
    TRACKS[experiment.track].check(experiment.settings)


def select(names: Sequence[str]) -> list[Experiment]:
    """Experiments by name, tag, track or `FILE.py:NAME`, each once, in the table's order.

    Raises:
        ValueError: a word that selects nothing, or an experiment that `check` refuses.
    """
    chosen: dict[str, Experiment] = {}
    for word in names:
        if ".py:" in word:
            found = from_file(word)
            for e in found:
                check(e)
        else:
            found = [e for e in EXPERIMENTS.values() if word in (e.name, e.track, *e.tags)]
        if not found:
            tags = sorted({t for e in EXPERIMENTS.values() for t in (e.track, *e.tags)})
            raise ValueError(
                f"{word} is no experiment of `gatewise lab list` and no tag ({', '.join(tags)})"
            )
        chosen |= {e.name: e for e in found}
    order = list(EXPERIMENTS)
    return sorted(chosen.values(), key=lambda e: order.index(e.name) if e.name in order else -1)
