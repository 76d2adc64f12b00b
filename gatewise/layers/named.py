"""torch.nn's three recurrent layers, by torch's constructors: weights load both ways.

What they do is `Recurrent` with a cell; nothing is written twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import torch
from typing_extensions import Unpack

from gatewise import cells
from gatewise.equations.functions import relu, tanh
from gatewise.layers import check
from gatewise.layers.initialise import Init
from gatewise.layers.recurrent import Recurrent


class Options(TypedDict, total=False):
    """`Recurrent`'s keyword-only options."""

    executor: str
    strict: bool
    zoneout: float | Mapping[str, float]
    recurrent_dropout: float
    input_dropout: float | Sequence[float]
    weight_dropout: float
    residual: bool
    layer_norm: bool
    checkpoint: bool | int
    weights: str
    init: Init | Sequence[Init]


class LSTM(Recurrent):
    """torch.nn.LSTM, on gatewise's executors and with `Recurrent`'s options.

    c_t = f ∘ c_{t-1} + i ∘ g,  h_t = o ∘ tanh(c_t).

    Arguments, shapes, errors and `state_dict` are torch.nn.LSTM's.

    >>> import torch
    >>> import gatewise as gw
    >>> ours, theirs = gw.LSTM(3, 5), torch.nn.LSTM(3, 5)
    >>> ours.load_state_dict(theirs.state_dict())
    <All keys matched successfully>
    >>> output, (h, c) = ours(torch.zeros(7, 2, 3))
    >>> output.shape, c.shape
    (torch.Size([7, 2, 5]), torch.Size([1, 2, 5]))
    """

    _named = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        **options: Unpack[Options],
    ) -> None:
        shape = (input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional)
        super().__init__(cells.LSTM(), *shape, proj_size, device, dtype, **options)


class GRU(Recurrent):
    """torch.nn.GRU, on gatewise's executors and with `Recurrent`'s options.

    n = tanh(W_n x + b_in + r ∘ (U_n h_{t-1} + b_hn)),  h_t = (1 - z) ∘ n + z ∘ h_{t-1}.

    Arguments, shapes, errors and `state_dict` are torch.nn.GRU's.

    >>> import torch
    >>> import gatewise as gw
    >>> output, h = gw.GRU(3, 5, batch_first=True)(torch.zeros(2, 7, 3))
    >>> output.shape, h.shape
    (torch.Size([2, 7, 5]), torch.Size([1, 2, 5]))
    """

    _named = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        **options: Unpack[Options],
    ) -> None:
        _refuse_projection(options)
        shape = (input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional)
        super().__init__(cells.GRU(), *shape, 0, device, dtype, **options)


class RNN(Recurrent):
    """torch.nn.RNN, on gatewise's executors and with `Recurrent`'s options.

    h_t = f(W x_t + b_ih + U h_{t-1} + b_hh), f = tanh or relu.

    Arguments, shapes, errors and `state_dict` are torch.nn.RNN's.

    >>> import torch
    >>> import gatewise as gw
    >>> output, h = gw.RNN(3, 5, nonlinearity="relu")(torch.zeros(7, 2, 3))
    >>> output.shape, h.shape
    (torch.Size([7, 2, 5]), torch.Size([1, 2, 5]))
    """

    _named = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        **options: Unpack[Options],
    ) -> None:
        _refuse_projection(options)
        functions = {"tanh": tanh, "relu": relu}
        check.one_of("nonlinearity", nonlinearity, functions)
        shape = (input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional)
        super().__init__(cells.RNN(functions[nonlinearity]), *shape, 0, device, dtype, **options)
        self.nonlinearity = nonlinearity
        self.mode = f"RNN_{nonlinearity.upper()}"  # torch's name


def _refuse_projection(options: Any) -> None:
    if "proj_size" in options:
        raise ValueError(
            f"proj_size is an argument of LSTM, not of RNN or GRU, got {options['proj_size']!r}"
        )
