"""What training goes on from, as tensors by name: how the trials of every track are put aside."""

from __future__ import annotations

import torch
from torch import nn

from gatewise.lab.experiment import State
from gatewise.lab.judge import Judge


def training_state(
    name: str, model: nn.Module, adam: torch.optim.Adam, judge: Judge
) -> dict[str, torch.Tensor]:
    """The model's numbers (below `name`), Adam's of each parameter, and the judge's."""
    found = network_state(name, model, adam)
    return found | {f"judge.{n}": t.clone() for n, t in judge.state_dict().items()}


def network_state(name: str, model: nn.Module, adam: torch.optim.Adam) -> dict[str, torch.Tensor]:
    """`training_state` without a judge."""
    found = {f"{name}.{n}": t.detach().clone() for n, t in model.state_dict().items()}
    for n, p in model.named_parameters():
        found |= {f"adam.{n}.{k}": v.clone() for k, v in adam.state.get(p, {}).items()}
    return found


def load_training_state(
    state: State, name: str, model: nn.Module, adam: torch.optim.Adam, judge: Judge
) -> None:
    """See `training_state`."""
    load_network_state(state, name, model, adam)
    judge.load_state_dict(under(state, "judge"))


def load_network_state(state: State, name: str, model: nn.Module, adam: torch.optim.Adam) -> None:
    """See `network_state`."""
    model.load_state_dict(under(state, name))
    for n, p in model.named_parameters():
        if own := under(state, f"adam.{n}"):
            adam.state[p] = {k: v.clone() for k, v in own.items()}


def under(state: State, prefix: str) -> dict[str, torch.Tensor]:
    """The entries below `prefix`, without it."""
    return {n[len(prefix) + 1 :]: t for n, t in state.items() if n.startswith(prefix + ".")}
