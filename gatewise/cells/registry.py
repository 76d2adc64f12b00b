"""The one table of cells: tests, benchmarks, docs and the command line read it."""

from __future__ import annotations

import copy
import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gatewise.cells.coupled import CoupledLSTM
from gatewise.cells.elementwise import ELSTM, MinGRU, MinLSTM
from gatewise.cells.gru import GRU, GRUReset
from gatewise.cells.layernorm import LayerNormLSTM
from gatewise.cells.lstm import LSTM
from gatewise.cells.lstm1997 import LSTM1997
from gatewise.cells.peephole import PeepholeLSTM
from gatewise.cells.rnn import RNN
from gatewise.equations.cell import Cell
from gatewise.equations.functions import constant, identity, relu, sigmoid, silu, tanh


@dataclass(frozen=True)
class Entry:
    """A named cell: how to make it and what makes it that cell."""

    make: Callable[[], Cell]
    summary: str


one = constant(1.0)

REGISTRY: dict[str, Entry] = {
    "rnn": Entry(RNN, "simple recurrent network, tanh"),
    "rnn-relu": Entry(lambda: RNN(relu), "simple recurrent network, relu"),
    "rnn-logistic": Entry(lambda: RNN(sigmoid), "simple recurrent network, logistic"),
    "lstm": Entry(LSTM, "long short-term memory with forget gate"),
    "lstm-silu": Entry(lambda: LSTM(candidate=silu), "LSTM with SiLU candidate"),
    "lstm-peephole": Entry(PeepholeLSTM, "LSTM whose gates see the cell state"),
    "lstm-coupled": Entry(CoupledLSTM, "LSTM with forget gate = 1 - input gate (CIFG)"),
    "lstm-layernorm": Entry(LayerNormLSTM, "LSTM with layer normalisation in the recurrence"),
    "lstm-1997": Entry(LSTM1997, "the 1997 LSTM: no forget gate, gates fed back"),
    "lstm-1997-blocks": Entry(
        lambda: LSTM1997(block_size=2), "the 1997 LSTM, two cells per memory block"
    ),
    "lstm-1997-tanh": Entry(
        lambda: LSTM1997(candidate=tanh, squash=tanh), "the 1997 LSTM with g = h = tanh"
    ),
    "lstm-1997-no-output-gate": Entry(
        lambda: LSTM1997(
            output=one, squash=identity, candidate=sigmoid, recurrent=False, biased=()
        ),
        "the 1997 LSTM of experiment 2a: no output gate, h = identity, g logistic",
    ),
    "cec": Entry(lambda: LSTM1997(input=one, output=one), "raw constant error carousel, no gates"),
    "cec-0.9": Entry(lambda: LSTM1997(self_weight=0.9), "the 1997 LSTM with self-weight 0.9"),
    "cec-1.1": Entry(lambda: LSTM1997(self_weight=1.1), "the 1997 LSTM with self-weight 1.1"),
    "lstm-1997-nig": Entry(lambda: LSTM1997(input=one), "the 1997 LSTM without input gate"),
    "lstm-1997-nog": Entry(lambda: LSTM1997(output=one), "the 1997 LSTM without output gate"),
    "nig": Entry(lambda: PeepholeLSTM(input=one), "peephole LSTM without input gate"),
    "nfg": Entry(lambda: PeepholeLSTM(forget=one), "peephole LSTM without forget gate"),
    "nog": Entry(lambda: PeepholeLSTM(output=one), "peephole LSTM without output gate"),
    "niaf": Entry(
        lambda: PeepholeLSTM(candidate=identity), "peephole LSTM, no input activation function"
    ),
    "noaf": Entry(
        lambda: PeepholeLSTM(squash=identity), "peephole LSTM, no output activation function"
    ),
    "fgr": Entry(lambda: PeepholeLSTM(gate_feedback=True), "peephole LSTM, full gate recurrence"),
    "gru": Entry(GRU, "gated recurrent unit, reset after the product (torch)"),
    "gru-reset-before": Entry(GRUReset, "gated recurrent unit, reset before the product (paper)"),
    "mingru": Entry(MinGRU, "GRU whose gates do not see the state"),
    "minlstm": Entry(MinLSTM, "LSTM whose gates do not see the state"),
    "elstm": Entry(ELSTM, "element-wise LSTM: gates see the state per unit"),
}


def get_cell(cell: str | Cell | type[Cell]) -> Cell:
    """A cell from its registry name, its class, itself, or `FILE.py:CLASS`.

    >>> get_cell("lstm")
    LSTM(input=sigmoid, forget=sigmoid, candidate=tanh, output=sigmoid, squash=tanh)
    """
    if isinstance(cell, Cell):
        return cell
    if inspect.isclass(cell) and issubclass(cell, Cell):
        return cell()
    if not isinstance(cell, str):
        raise TypeError(f"cell must be a name, a Cell or a Cell class, got {cell!r}")
    if cell in REGISTRY:
        return REGISTRY[cell].make()
    if ".py:" in cell:
        return _from_file(*cell.rsplit(":", 1))
    raise ValueError(
        f"cell {cell!r} is not known; a name of `gatewise cells` ({', '.join(REGISTRY)}) "
        "or FILE.py:CLASS"
    )


def _from_file(file: str, name: str) -> Cell:
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"no cell file {file}")
    spec = importlib.util.spec_from_file_location(f"gatewise_user_cell_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = getattr(module, name, None)
    if not (inspect.isclass(found) and issubclass(found, Cell)):
        have = [
            n
            for n, v in vars(module).items()
            if inspect.isclass(v) and issubclass(v, Cell) and v is not Cell
        ]
        raise ValueError(f"{file} has no cell class {name}; it has: {', '.join(have) or 'none'}")
    _make_portable(found, str(path.resolve()), name)
    return found()


def _make_portable(cls: type[Cell], file: str, name: str) -> None:
    """Instances pickle as the file and the class: no module of theirs can be imported."""

    def reduce(self: Cell) -> tuple[Any, ...]:
        return _from_file, (file, name), self.__dict__ or None

    def copied(self: Cell, memo: dict[int, Any]) -> Cell:  # without reading the file again
        new = object.__new__(type(self))
        new.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return new

    setattr(cls, "__reduce__", reduce)  # noqa: B010
    setattr(cls, "__deepcopy__", copied)  # noqa: B010
