"""What a solved network does over one sequence: its gates, cells and outputs, step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from gatewise.executors.lanes import Network, Sequences
from gatewise.lab.experiment import Activity
from gatewise.layers import Recurrent

# Task -> which steps of x [T, I] or [T] carry what must be remembered.
_MARKED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "adding": lambda x: x[:, 1] == 1,
    "multiplication": lambda x: x[:, 1] == 1,
    "temporal_order": lambda x: x >= 6,  # X and Y
    "long_lag": lambda x: torch.arange(len(x)) == 1,
    "two_sequences": lambda x: torch.arange(len(x)) == 0,
    "two_classes": lambda x: torch.arange(len(x)) == 0,
}
_MOST = 12  # panels that can be told apart


def activity(
    network: Network, parameters: Mapping[str, torch.Tensor], given: Sequences, task: str
) -> Activity:
    """One network of a `Lanes` over the first of `given`, run by a layer.

    Args:
        network: what it is.
        parameters: its own, by name, as `Lanes.parameters` has them without the axis of networks.
        given: a batch of sequences.
        task: the name of the task's function, by which marks are found.
    """
    length = int(given.lengths[0])
    x = given.x[:length, :1]
    seen = torch.nn.functional.one_hot(x, network.inputs).float() if network.symbols else x
    layer = Recurrent(network.cell, network.inputs, network.units)
    with torch.no_grad():
        for name, own in layer.named_parameters():
            # A cell with two biases has one here: the second is zero.
            local = name.removesuffix("_l0").replace("bias_ih", "bias")
            own.copy_(parameters[local]) if local in parameters else own.zero_()
        gates = [g for g in network.trace.gates if g != "candidate"]
        *_, recorded = layer(seen, record=(*gates, "c"))
    lines: dict[str, list[float]] = {}
    for name in (*gates, "c"):
        rows = recorded[name][0, :, 0].T  # [units, or blocks where they share it, T]
        what = "cell" if name == "c" else f"{name} gate"
        lines |= {f"{what} {k + 1}": row.tolist() for k, row in enumerate(rows)}
    marks = _MARKED[task](x[:, 0]).nonzero().flatten().tolist() if task in _MARKED else []
    wanted = given.target[:, 0] if network.every_step else given.target[0]
    label = f"Target {wanted.tolist()}." if wanted.numel() == 1 else ""
    return Activity(dict(list(lines.items())[:_MOST]), tuple(marks), label)
