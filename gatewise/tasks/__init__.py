"""The tasks of the long-time-lag experiments: each is one C file, drawn by training and Python."""

from gatewise.tasks.adding import adding, multiplication
from gatewise.tasks.symbols import long_lag, temporal_order, two_sequences

__all__ = ["adding", "long_lag", "multiplication", "temporal_order", "two_sequences"]
