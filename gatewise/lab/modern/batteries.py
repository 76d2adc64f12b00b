"""What came after 1997: tasks that tell apart LSTM, GRU, simple networks and Transformers.

The recipe is the one of the benchmarks for every recurrent cell. Layers have equal numbers of
weights. Where `reach` is set, success asks for right answers at a length never trained on, and a
network learns on until it gives them.
"""

from __future__ import annotations

from dataclasses import replace

from gatewise.lab.experiment import Experiment, Published
from gatewise.lab.families import FAMILIES
from gatewise.lab.modern.network import TRANSFORMER
from gatewise.lab.modern.table import ATTENTION
from gatewise.lab.modern.trial import TRACK, Settings

TRIALS = 5
CLAIMED = 10  # where somebody says that a network fails: five could not confirm it
LIMIT = 150_000
# Where at LIMIT networks are still getting better.
_LONGER = {
    "spikes-20": 400_000,
    "s5-16": 400_000,
    "selective-copy-40": 300_000,
    "recall-8": 400_000,
}

# Name of a row -> cell, layers.
_NETWORKS: dict[str, tuple[str, int]] = {
    "lstm": ("lstm", 1),
    "1997": ("lstm-1997-tanh", 1),
    "peephole": ("lstm-peephole", 1),
    "gru": ("gru", 1),
    "rnn": ("rnn", 1),
    "transformer": ("transformer", 2),
}
_FOUR = ("lstm", "gru", "rnn", "transformer")

# Task -> what it asks, settings, the networks that are compared.
_BATTERIES: dict[str, tuple[str, Settings, tuple[str, ...]]] = {
    "continual-reber": (
        "Who needs no reset between strings?",
        Settings("continual-reber", 8, further=(64,), reach=64),
        ("lstm", "1997", "gru", "rnn"),
    ),
    "delays-20": (
        "Who measures the distance of spikes to the step?",
        Settings("delays", 20),
        ("lstm", "peephole", "gru", "rnn"),
    ),
    "spikes-20": (
        "Who makes spikes at the right steps?",
        Settings("spikes", 20),
        ("lstm", "peephole", "gru", "rnn"),
    ),
    "counts-2": (
        "Who counts aⁿbⁿ beyond the n of training?",
        Settings("counts-2", 16, further=(32, 64), reach=32),
        ("peephole", *_FOUR),
    ),
    "counts-3": (
        "Who counts aⁿbⁿcⁿ beyond the n of training?",
        Settings("counts-3", 16, further=(32, 64), reach=32),
        ("peephole", *_FOUR),
    ),
    "copy-20": (
        "Who repeats five symbols after 20 steps?",
        Settings("copy", 20, hidden=64),
        _FOUR,
    ),
    "selective-copy-40": (
        "Who repeats the five symbols that stood among blanks?",
        Settings("selective-copy", 40, hidden=64),
        _FOUR,
    ),
    "parity-32": (
        "Who tracks parity beyond the length of training?",
        Settings("parity", 32, further=(64, 256), reach=256),
        _FOUR,
    ),
    "s3-32": (
        "Who tracks permutations of three objects beyond the length of training?",
        Settings("s3", 32, further=(64, 256), reach=256),
        _FOUR,
    ),
    "s5-16": (
        "Who tracks permutations of five objects beyond the length of training?",
        Settings("s5", 16, hidden=64, further=(32, 64), reach=64),
        _FOUR,
    ),
    "recall-8": (
        "Who finds the values of eight keys?",
        Settings("recall", 8, hidden=64, further=(4, 16)),
        _FOUR,
    ),
}


_GERS_2000 = "Gers, Schmidhuber & Cummins (2000), in words: needs forget gates"
_GERS_2002 = "Gers, Schraudolph & Schmidhuber (2002), in words: needs peepholes"
_WEISS = "Weiss, Goldberg & Yahav (2018), in words: a GRU does not count"
_DELETANG = "Delétang et al. (2023), in words: no parity beyond the lengths of training"
_LIU = "Liu et al. (2023), in words: shortcuts, not right beyond the lengths of training"
_MERRILL = "Merrill, Petty & Sabharwal (2024), in words: state that no fixed depth tracks"

# Who is said to fail at what, and by whom.
_FAILS = {
    ("continual-reber", "1997"): _GERS_2000,
    ("spikes-20", "lstm"): _GERS_2002,
    ("counts-2", "gru"): _WEISS,
    ("counts-3", "gru"): _WEISS,
    ("parity-32", "transformer"): _DELETANG,
    ("s3-32", "transformer"): _LIU,
    ("s5-16", "transformer"): _MERRILL,
}


def _row(battery: str, network: str) -> Experiment:
    asks, settings, _ = _BATTERIES[battery]
    cell, layers = _NETWORKS[network]
    recipe = ATTENTION if cell == TRANSFORMER else settings.recipe
    claimed = _FAILS.get((battery, network))
    reach = f", and 99 % right at length {settings.reach}" if settings.reach else ""
    return Experiment(
        name=f"later/{battery}/{network}",
        track=TRACK.name,
        asks=asks,
        settings=replace(settings, cell=cell, layers=layers, recipe=recipe),
        trials=CLAIMED if claimed else TRIALS,
        limit=_LONGER.get(battery, LIMIT),
        criterion=FAMILIES[settings.task].words + reach,
        published=(Published("successes", 0, claimed),) if claimed else (),
        tags=("later", battery, network),
    )


EXPERIMENTS: tuple[Experiment, ...] = tuple(
    _row(battery, network) for battery, (_, _, rows) in _BATTERIES.items() for network in rows
)
