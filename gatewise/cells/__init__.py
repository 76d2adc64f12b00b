"""The shipped cells, one file each, and their registry."""

from gatewise.cells.coupled import CoupledLSTM
from gatewise.cells.elementwise import ELSTM, MinGRU, MinLSTM
from gatewise.cells.gru import GRU, GRUReset
from gatewise.cells.layernorm import LayerNormLSTM
from gatewise.cells.lstm import LSTM
from gatewise.cells.lstm1997 import LSTM1997
from gatewise.cells.peephole import PeepholeLSTM
from gatewise.cells.registry import REGISTRY, Entry, get_cell
from gatewise.cells.rnn import RNN

__all__ = [
    "ELSTM",
    "GRU",
    "LSTM",
    "LSTM1997",
    "REGISTRY",
    "RNN",
    "CoupledLSTM",
    "Entry",
    "GRUReset",
    "LayerNormLSTM",
    "MinGRU",
    "MinLSTM",
    "PeepholeLSTM",
    "get_cell",
]
