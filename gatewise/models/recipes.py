"""Recipes: settings somebody has published for a kind of model, as data.

The losses of Zaremba et al. are sums over the steps of a chunk and means over the batch; here they
are means over both. So the rates are theirs times the steps, the bounds of the gradient's norm
theirs divided by the steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """Values for options of the task `kind` and for `Settings`, and where they are from."""

    kind: str
    source: str
    values: Mapping[str, Any]


def _zaremba(size: str, hidden: int, steps: int, clip: float, **more: Any) -> Recipe:
    """Two layers, 20 streams, plain SGD; the rate falls after every pass from some pass on."""
    values = {
        "level": "space",
        "num_layers": 2,
        "hidden_size": hidden,
        "embedding_size": hidden,
        "chunk": steps,
        "restart": 0.0,
        "batch": 20,
        "optimizer": "sgd",
        "learning_rate": float(steps),
        "clip": clip / steps,
        "warmup": 0,
        "weight_decay": 0.0,
        **more,
        "evaluations": more["epochs"],
        "patience": more["epochs"],
    }
    source = f"Zaremba, Sutskever & Vinyals, Recurrent neural network regularization, 2014, {size}"
    return Recipe("lm", source, values)


# What both of the following drop, and how they cut and tie.
_AWD = {
    "level": "space",
    "tied": True,
    "batch": 20,
    "restart": 0.0,
    "warmup": 0,
    "chunk_spread": 5.0,
    "embedding_dropout": 0.1,
    "output_dropout": 0.4,
    "ar": 2.0,
    "tar": 1.0,
}

RECIPES: dict[str, Recipe] = {
    "zaremba-small": _zaremba(
        "small", 200, 20, 5.0, init_range=0.1, decay=0.5, decay_after=4, epochs=13
    ),
    "zaremba-medium": _zaremba(
        "medium",
        650,
        35,
        5.0,
        init_range=0.05,
        dropout=0.5,
        decay=1 / 1.2,
        decay_after=6,
        epochs=39,
    ),
    "zaremba-large": _zaremba(
        "large",
        1500,
        35,
        10.0,
        init_range=0.04,
        dropout=0.65,
        decay=1 / 1.15,
        decay_after=14,
        epochs=55,
    ),
    "awd": Recipe(
        "lm",
        "Merity, Keskar & Socher, Regularizing and optimizing LSTM language models, 2017, Penn "
        "Treebank; all layers have 1150 units, the last one's are projected to the embedding's 400",
        {
            **_AWD,
            "num_layers": 3,
            "hidden_size": 1150,
            "embedding_size": 400,
            "input_dropout": 0.4,
            "hidden_dropout": 0.25,
            "weight_dropout": 0.5,
            "chunk": 70,
            "optimizer": "sgd",
            "learning_rate": 30.0,
            "decay": 1.0,
            "clip": 0.25,
            "weight_decay": 1.2e-6,
            "average": 5,
            "epochs": 500,
            "evaluations": 500,
            "patience": 500,
        },
    ),
    "awd-small": Recipe(
        "lm",
        "the regularisation of awd for two layers of 640 units and some hours: less is dropped, "
        "AdamW with a falling rate in place of averaged SGD; our own",
        {
            **_AWD,
            "num_layers": 2,
            "hidden_size": 640,
            "embedding_size": 400,
            "input_dropout": 0.3,
            "hidden_dropout": 0.25,
            "weight_dropout": 0.3,
            "batch": 24,
            "chunk": 40,
            "chunk_spread": 4.0,
            "optimizer": "adamw",
            "learning_rate": 2e-3,
            "warmup": 500,
            "clip": 0.5,
            "weight_decay": 0.02,
            "epochs": 40,
            "evaluations": 20,
            "patience": 20,
        },
    ),
}


def find_recipe(name: str) -> Recipe:
    """The recipe of that name; ValueError for one that there is not."""
    if name not in RECIPES:
        raise ValueError(f"recipe must be one of {', '.join(RECIPES)}, got {name!r}")
    return RECIPES[name]
