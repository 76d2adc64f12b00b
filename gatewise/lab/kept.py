"""What training goes on from, as tensors by name: how trials are put aside."""

from __future__ import annotations

import torch
from torch import nn

from gatewise.lab.experiment import State


def network_state(model: nn.Module, adam: torch.optim.Adam) -> dict[str, torch.Tensor]:
    """The model's numbers (below "model"), and Adam's of each parameter."""
    found = {f"model.{n}": t.detach().clone() for n, t in model.state_dict().items()}
    for n, p in model.named_parameters():
        found |= {f"adam.{n}.{k}": v.clone() for k, v in adam.state.get(p, {}).items()}
    return found


def load_network_state(state: State, model: nn.Module, adam: torch.optim.Adam) -> None:
    """See `network_state`."""
    model.load_state_dict(under(state, "model"))
    for n, p in model.named_parameters():
        if own := under(state, f"adam.{n}"):
            adam.state[p] = {k: v.clone() for k, v in own.items()}


def under(state: State, prefix: str) -> dict[str, torch.Tensor]:
    """The entries below `prefix`, without it."""
    return {n[len(prefix) + 1 :]: t for n, t in state.items() if n.startswith(prefix + ".")}
