"""gatewise: gated recurrent networks from their equations."""

from gatewise import learning
from gatewise.cells.registry import get_cell
from gatewise.equations.cell import Cell
from gatewise.equations.functions import (
    constant,
    exp,
    hard_sigmoid,
    hard_tanh,
    identity,
    log,
    mean,
    normalise,
    relu,
    sigmoid,
    silu,
    softplus,
    sqrt,
    tanh,
)
from gatewise.executors.choose import SlowPathError
from gatewise.layers import GRU, LSTM, RNN, Recurrent, ShapeError, explain
from gatewise.layers import initialise as init
from gatewise.learning import OnlineLearner

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Cell",
    "OnlineLearner",
    "Recurrent",
    "ShapeError",
    "SlowPathError",
    "constant",
    "exp",
    "explain",
    "get_cell",
    "hard_sigmoid",
    "hard_tanh",
    "identity",
    "init",
    "learning",
    "log",
    "mean",
    "normalise",
    "relu",
    "sigmoid",
    "silu",
    "softplus",
    "sqrt",
    "tanh",
]
