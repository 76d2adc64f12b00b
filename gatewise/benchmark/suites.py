"""The suites as data: shapes, cells, peers, and the ratio each row should reach.

Targets are ratios: the peer's time (or memory, or a fixed limit) divided by ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gatewise.benchmark import context
from gatewise.benchmark.case import Case, Shape
from gatewise.cells import REGISTRY

TINY = Shape(100, 32, 2, 32)
LONG = Shape(1000, 32, 2, 32)
SMALL = Shape(100, 32, 128, 128)
MEDIUM = Shape(100, 32, 256, 256)
LARGE = Shape(100, 64, 512, 512)
HUGE = Shape(50, 64, 1024, 1024)
SINGLE = Shape(1000, 1, 32, 128)

WORKS = ("inference", "training")
_QUICK = (TINY, SMALL)


def _each_work(
    suite: str,
    peer: str,
    targets: Mapping[Shape, tuple[float | None, float | None]],
    cell: str = "lstm",
    quick: tuple[Shape, ...] = _QUICK,
) -> list[Case]:
    """Inference and training at every shape of `targets`, each with its own target."""
    return [
        Case(suite, peer, shape, work, cell, target, quick=shape in quick)
        for shape, pair in targets.items()
        for work, target in zip(WORKS, pair, strict=True)
    ]


def _same(target: float, *shapes: Shape) -> dict[Shape, tuple[float, float]]:
    return dict.fromkeys(shapes, (target, target))


def _layers() -> list[Case]:
    lstm = {
        TINY: (2.0, 4.0),
        LONG: (2.0, 4.0),
        SMALL: (1.0, 1.3),
        MEDIUM: (1.0, 1.3),
        LARGE: (1.0, 1.3),
        HUGE: (1.0, 1.3),
        SINGLE: (2.0, 2.5),
    }
    others = (TINY, LONG, SMALL, MEDIUM, LARGE, SINGLE)
    free = dict.fromkeys((TINY, LONG, SMALL, MEDIUM, SINGLE), (None, None))
    return [
        *_each_work("layers", "nn.LSTM", lstm),
        *(
            Case("layers", "nn.LSTM", s, "training dx", target=training, quick=s in _QUICK)
            for s, (_, training) in lstm.items()
        ),
        *_each_work("layers", "nn.GRU", _same(3.0, *others), "gru"),
        *_each_work("layers", "nn.RNN", _same(2.0, *others), "rnn"),
        *(Case("layers", "onnxruntime", s, quick=s in _QUICK) for s in others),
        *_each_work("layers", "jax.lax.scan", free),
    ]


def _stream() -> list[Case]:
    """One step, one row, one thread: a layer, and the language model that the demo trains."""
    options = {"symbols": 100}
    model = Case(
        "stream", "nn.LSTM model", Shape(1, 1, 64, 256), "token", threads=1, options=options
    )
    return [
        Case("stream", peer, Shape(1, 1, n, n), "step", target=target, threads=1, quick=True)
        for n in (64, 128, 256, 512)
        for peer, target in (("nn.LSTM step", 20.0 if n == 256 else None), ("nn.LSTMCell", 3.0))
    ] + [model]


_RAGGED = _same(4.0, TINY, LONG, SMALL, MEDIUM, LARGE)
_BIDIRECTIONAL = _same(1.3, TINY, SMALL, MEDIUM, LARGE, SINGLE) | _same(8.0, LONG)
_RESETS = _same(5.0, TINY, LONG, SMALL, MEDIUM)


# Against the cell as a loop over time in eager PyTorch. A loop is too slow for every cell at
# every shape: the four best-known ones are run at all of them, the others trained at one.
_KNOWN = {"lstm-peephole": 8.0, "lstm-coupled": 8.0, "lstm-1997": 8.0, "lstm-layernorm": 5.0}
_IN_LAYERS = ("lstm", "gru", "rnn")

# Both sides round, and these cells let roundings grow: a mean over units divides by a spread that
# may be far below the values, a carousel without a gate never forgets one.
_ROUGH = {"lstm-layernorm": 30.0, "cec": 30.0, "cec-1.1": 30.0}


def _cells() -> list[Case]:
    rest = [c for c in REGISTRY if c not in _KNOWN and c not in _IN_LAYERS]
    cases = [
        *(
            case
            for cell, target in _KNOWN.items()
            for case in _each_work("cells", "loop", _same(target, TINY, SMALL, MEDIUM), cell)
        ),
        *(Case("cells", "loop", LONG, "training", c, t) for c, t in _KNOWN.items()),
        Case("cells", "loop", LARGE, "training", "lstm-peephole", 8.0),
        *_each_work("cells", "torchrecurrent", {SMALL: (8.0, 8.0)}, "lstm-peephole"),
        *(Case("cells", "loop", SMALL, "training", cell, 8.0) for cell in rest),
    ]
    return [replace(case, looseness=_ROUGH.get(case.cell, 1.0)) for case in cases]


def _compile() -> list[Case]:
    """First use in a fresh process: nothing cached (at most 3 s), and cached (20 ms)."""
    cells = ("lstm", "gru", "lstm-1997", "lstm-layernorm")
    return [
        Case("compile", "limit", TINY, work, cell, 1.0, quick=cell == "lstm", options=options)
        for cell in cells
        for work, options in (("cold", {"limit": 3.0}), ("cached", {"limit": 0.02}))
    ]


def _memory() -> list[Case]:
    """Peak of a training step; with checkpoints in time also its growth with √T.

    Input, output and their gradients leave room for a factor of 6 below nn.LSTM. The second peer
    is the layer itself at 1000 steps, both divided by √T.
    """
    long = [Shape(t, 8, 8, 32) for t in (1000, 10_000, 100_000)]
    cut: dict[str, Any] = {"checkpoint": True}
    return [
        *(
            Case("memory", "nn.LSTM memory", s, "training", target=1.0, quick=s == SMALL)
            for s in (LONG, SMALL, MEDIUM, LARGE)
        ),
        *(
            Case(
                "memory",
                "nn.LSTM memory",
                s,
                "training",
                target=5.0,
                quick=s.T < 10_000,
                options=cut,
            )
            for s in long
        ),
        *(
            Case("memory", "root of time", s, "training", target=0.9, options={"base": long[0].T})
            for s in long[1:]
        ),
    ]


def _scaling() -> list[Case]:
    """Time per step and row as T and B grow, and per product as a large H does.

    Against the first, smallest shape: 1 is exactly linear in T and B, and in H². The target allows
    that large calls leave the caches.
    """
    base = Shape(100, 16, 64, 64)
    grown = [base._replace(T=t) for t in (200, 800, 3200)]
    grown += [base._replace(B=b) for b in (32, 128, 512)]
    quick = [s for s in grown if s.T <= 200 and s.B <= 32]
    narrow = Shape(20, 64, 256, 256)
    wide = [narrow._replace(I=h, H=h) for h in (512, 1024, 2048)]
    return [
        Case("scaling", peer, s, work, target=0.8, quick=s in quick, options={"base": first})
        for peer, first, shapes in (("same layer", base, grown), ("narrow layer", narrow, wide))
        for s in shapes
        for work in WORKS
    ]


def _replicas() -> list[Case]:
    """Networks of one shape, each with its own weights and data: one call, or a call for each."""
    small = Shape(100, 8, 2, 8)
    counted = [(small, 4), (small, 16), (small, 64), (TINY, 4), (TINY, 16)]

    def rows(cell: str, peer: str, sizes: list[tuple[Shape, int]], *targets: float) -> list[Case]:
        return [
            Case("replicas", peer, s, work, cell, target, quick=n == 4, networks=n)
            for s, n in sizes
            for work, target in zip(WORKS, targets, strict=True)
        ]

    return [
        *rows("lstm", "nn.LSTM in turn", counted, 2.0, 4.0),
        *rows("gru", "nn.GRU in turn", counted[-1:], 3.0, 3.0),
        *rows("rnn", "nn.RNN in turn", counted[-1:], 2.0, 2.0),
        *rows("lstm", "same layers in turn", counted[1::3], 1.0, 1.0),
        *rows("lstm-peephole", "same layers in turn", counted[1::3], 1.0, 1.0),
    ]


def _weights() -> list[Case]:
    """Rounded weights against full ones: time, and how far the outputs are from each other.

    Nothing is promised of either: how much a difference grows is a matter of the cell.
    """
    step, large = Shape(1, 1, 256, 256), Shape(1, 1, 1024, 1024)
    kinds = [
        *((cell, "inference", SMALL) for cell in REGISTRY),
        *((cell, "step", step) for cell in REGISTRY),
        ("lstm", "inference", LARGE),
        ("lstm", "step", large),
        *((cell, "training", MEDIUM) for cell in ("lstm", "gru")),
    ]
    return [
        Case(
            "weights",
            "full weights",
            shape,
            work,
            cell,
            threads=1 if work == "step" else None,
            quick=cell == "lstm" and shape in (SMALL, step),
            looseness=math.inf,
            held=held,
        )
        for cell, work, shape in kinds
        for held in ("bf16", "int8")
        if held == "bf16" or work != "training"  # int8 is for inference
    ]


def _lanes() -> list[Case]:
    """16 networks of 93 weights on one core, at most 150 ns per time step."""
    options = {"limit": 150e-9, "block_size": 2, "sequences": 500}
    shape = Shape(100, 16, 2, 4)
    case = Case("lanes", "limit per step", shape, "training", "lstm-1997", 1.0, 1, True, options)
    return [case]


SUITES: dict[str, list[Case]] = {
    "layers": _layers(),
    "stream": _stream(),
    "ragged": _each_work("ragged", "packed nn.LSTM", _RAGGED),
    "bidirectional": _each_work("bidirectional", "bidirectional nn.LSTM", _BIDIRECTIONAL),
    "resets": _each_work("resets", "split nn.LSTM", _RESETS, quick=(TINY,)),
    "cells": _cells(),
    "compile": _compile(),
    context.SUITE: context.cases(),
    "lanes": _lanes(),
    "memory": _memory(),
    "replicas": _replicas(),
    "scaling": _scaling(),
    "weights": _weights(),
}
# What `gatewise demo` shows: three sizes beside torch.nn.LSTM.
DEMO = [c for c in SUITES["layers"] if c.peer == "nn.LSTM" and c.shape in (TINY, SMALL, MEDIUM)]


def select(names: str, quick: bool = False) -> list[Case]:
    """The cases of some suites, names with commas or "all"; those of a quick run only.

    Raises ValueError for a name that is no suite.

    >>> len(select("stream")), select("layers", quick=True)[0].peer
    (9, 'nn.LSTM')
    """
    wanted = list(SUITES) if names == "all" else [n.strip() for n in names.split(",")]
    for name in wanted:
        if name not in SUITES:
            raise ValueError(f"suite must be one of {', '.join(SUITES)} or all, got {name!r}")
    return [c for name in wanted for c in SUITES[name] if c.quick or not quick]
