"""A detector in one file: a later process goes on with the stream to the same numbers."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from gatewise.cells import REGISTRY
from gatewise.models.anomaly import AnomalyDetector, DetectorConfig
from gatewise.models.checkpoint import write_atomically

FORMAT = "gatewise detector 1"


def save_detector(detector: AnomalyDetector, path: str | Path) -> None:
    """Everything between two values of the stream, written as a whole or not at all.

    Raises ValueError for a detector whose cell is none of `gatewise cells`: no file names code.
    """
    if detector.config.cell not in REGISTRY:
        raise ValueError(f"cell {detector.config.cell} is from a file: loading runs no code")
    told = {"config": asdict(detector.config), **detector.record()}
    tensors = {n: t.detach().contiguous() for n, t in detector.tensors().items()}
    data = save(tensors, {"format": FORMAT, "detector": json.dumps(told)})
    write_atomically(Path(path), data)


def load_detector(path: str | Path) -> AnomalyDetector:
    """The detector that `save_detector` left, as it was.

    Raises ValueError where the file is damaged or something else, OSError where there is none.
    """
    with Path(path).open("rb"):  # says in one line what is wrong with a path
        pass
    try:
        with safe_open(str(path), "pt") as file:
            about = file.metadata() or {}
            if about.get("format") != FORMAT:
                raise ValueError(f"its format is {about.get('format')!r:.40}, not {FORMAT!r}")
            told = json.loads(about["detector"], parse_constant=_refuse)
            config = DetectorConfig.from_json(told.pop("config"))
            if config.cell not in REGISTRY:  # a name such as FILE.py:CLASS would run a file
                raise ValueError(f"{config.cell!r:.40} is no cell of `gatewise cells`")
            # A damaged size must not ask for more memory than the file itself has.
            sizes = {n: file.get_slice(n).get_shape() for n in ("inputs", "head.weight")}
            if sizes["inputs"][0] != config.memory or sizes["head.weight"][1] != config.hidden_size:
                raise ValueError("its tensors do not fit its sizes")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        detector = AnomalyDetector(config)
        detector.restore(tensors, told)
    except (
        SafetensorError,
        ValueError,
        TypeError,
        KeyError,
        LookupError,
        OverflowError,
        AttributeError,
        RuntimeError,
        RecursionError,
    ) as error:
        raise ValueError(f"{path} is no detector, or damaged: {error}") from None
    return detector


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number of a detector")
