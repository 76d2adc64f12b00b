"""The tasks, each defined once: one C file, or random numbers turned into sequences by PyTorch."""

from gatewise.tasks.adding import adding, multiplication
from gatewise.tasks.classes import two_classes
from gatewise.tasks.continual import ContinualReber
from gatewise.tasks.copying import copy, selective_copy
from gatewise.tasks.counting import equal_counts
from gatewise.tasks.groups import parity, permutation_products
from gatewise.tasks.reber import embedded_reber, embedded_reber_sets
from gatewise.tasks.recall import associative_recall
from gatewise.tasks.symbols import long_lag, temporal_order, two_sequences
from gatewise.tasks.timing import spike_delays, timed_spikes

__all__ = [
    "ContinualReber",
    "adding",
    "associative_recall",
    "copy",
    "embedded_reber",
    "embedded_reber_sets",
    "equal_counts",
    "long_lag",
    "multiplication",
    "parity",
    "permutation_products",
    "selective_copy",
    "spike_delays",
    "temporal_order",
    "timed_spikes",
    "two_classes",
    "two_sequences",
]
