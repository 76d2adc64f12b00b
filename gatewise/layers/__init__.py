"""Layers: any cell stacked over time, batch and directions, and torch.nn's three by name."""

from gatewise.layers.check import ShapeError
from gatewise.layers.explain import StackExplanation, explain
from gatewise.layers.named import GRU, LSTM, RNN
from gatewise.layers.recurrent import Recurrent
from gatewise.layers.replicate import join, load_replica, replica, replicate
from gatewise.layers.state import make_state

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Recurrent",
    "ShapeError",
    "StackExplanation",
    "explain",
    "join",
    "load_replica",
    "make_state",
    "replica",
    "replicate",
]
