"""Networks in lanes for the tests: the paper's, and parameters to start from."""

from __future__ import annotations

import torch

from gatewise.executors.lanes import Network, Task
from gatewise.lab.faithful import network_of, task_of
from gatewise.lab.paper1997 import ROWS
from gatewise.tasks import adding


def paper(row: str) -> Network:
    settings = ROWS[row].settings
    return network_of(settings, task_of(settings))


def random_parameters(network: Network, count: int, scale: float = 1.0) -> dict[str, torch.Tensor]:
    shapes = network.shapes()
    return {n: scale * torch.randn(count, *s, dtype=torch.float64) for n, s in shapes.items()}


def small() -> tuple[Network, Task]:
    return paper("4-1"), adding(26)
