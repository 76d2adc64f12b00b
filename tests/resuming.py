"""A training that is stopped and resumed, beside the unbroken one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gatewise.models import Settings, Source, runs

History = list[dict[str, Any]]


def whole_and_resumed(
    folder: Path, task: str, source: Source, options: Any, settings: Settings, stop: int
) -> tuple[History, History]:
    """The histories, without the time they took, of both; the second is stopped at step `stop`."""
    whole = runs.begin(folder / "whole", task, source, options, settings)
    for _ in whole.trainer.run():
        pass
    broken = runs.begin(folder / "broken", task, source, options, settings)
    for progress in broken.trainer.run():
        if progress.step == stop:
            broken.trainer.stop()
    resumed = runs.resume(folder / "broken")
    for _ in resumed.trainer.run():
        pass
    one, two = ([{**h, "seconds": 0} for h in r.trainer.history] for r in (whole, resumed))
    return one, two
