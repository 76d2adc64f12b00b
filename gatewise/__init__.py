"""gatewise: gated recurrent networks from their equations."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    from gatewise.layers import (
        GRU,
        LSTM,
        RNN,
        Recurrent,
        ShapeError,
        explain,
        replica,
        replicate,
    )
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
    "replica",
    "replicate",
    "sigmoid",
    "silu",
    "softplus",
    "sqrt",
    "tanh",
]

# A name is imported when it is first used (PEP 562): torch and SymPy take two seconds to load,
# and `gatewise --help` needs neither.
_HOMES = {
    "cells.registry": "get_cell",
    "equations.cell": "Cell",
    "equations.functions": "constant exp hard_sigmoid hard_tanh identity log mean normalise relu "
    "sigmoid silu softplus sqrt tanh",
    "executors.choose": "SlowPathError",
    "layers": "GRU LSTM RNN Recurrent ShapeError explain replica replicate",
    "learning": "OnlineLearner",
}
_HOME = {name: home for home, names in _HOMES.items() for name in names.split()}
_MODULES = {
    "init": "layers.initialise",
    **{n: n for n in ("cells", "equations", "executors", "layers", "learning")},
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(f"gatewise.{_HOME[name]}"), name)
    elif name in _MODULES:
        value = import_module(f"gatewise.{_MODULES[name]}")
    else:
        raise AttributeError(f"module 'gatewise' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
