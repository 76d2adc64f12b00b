"""gatewise: gated recurrent networks from their equations."""

from gatewise.equations.cell import Cell
from gatewise.equations.functions import (
    constant, exp, hard_sigmoid, hard_tanh, identity, log, mean, normalise, relu, sigmoid, silu,
    softplus, sqrt, tanh,
)

__all__ = [
    "Cell", "constant", "exp", "hard_sigmoid", "hard_tanh", "identity", "log", "mean",
    "normalise", "relu", "sigmoid", "silu", "softplus", "sqrt", "tanh",
]
