"""What keeps a recurrent language model from learning its text by heart (AWD-LSTM).

Sources: one mask for a whole chunk and dropped words, Gal & Ghahramani, 2016; penalties on
activations, Merity, McCann & Socher, Revisiting activation regularization for language RNNs, 2017;
all together, Merity, Keskar & Socher, Regularizing and optimizing LSTM language models, 2017.

T = steps, B = batch, V = vocabulary, H = hidden units.
"""

from __future__ import annotations

import torch
from torch.nn.functional import dropout


def locked_dropout(x: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    """x [T, B, H] with the same numbers of a row dropped at every step, the rest over 1 - p."""
    return x * dropout(torch.ones_like(x[:1]), p) if training and p else x


def word_dropout(
    x: torch.Tensor, tokens: torch.Tensor, words: int, p: float, training: bool
) -> torch.Tensor:
    """Embedded `tokens` [T, B], x [T, B, E], without some of the V = `words` words wherever they
    stand: the rows of the embedding are dropped, but only those that are read are touched.
    """
    if not (training and p):
        return x
    return x * dropout(x.new_ones(words, 1), p)[tokens]


def activation_penalty(output: torch.Tensor) -> torch.Tensor:
    """AR, the mean of h²: large activations cost.

    >>> activation_penalty(torch.tensor([[[1.0, 3.0]], [[0.0, 2.0]]])).item()
    3.5
    """
    return output.square().mean()


def change_penalty(output: torch.Tensor) -> torch.Tensor:
    """TAR, the mean of (h_t - h_{t-1})² inside a chunk, output [T, B, H]; 0 for a single step.

    >>> change_penalty(torch.tensor([[[1.0, 3.0]], [[0.0, 5.0]]])).item()
    2.5
    """
    return (output[1:] - output[:-1]).square().mean() if len(output) > 1 else output.new_zeros(())
