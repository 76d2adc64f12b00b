"""Libraries that only some models need, imported when one does."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def require(module: str, extra: str, what: str) -> Any:
    """The module; ModuleNotFoundError names the extra that brings it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{what} needs {module.split('.')[0]}: pip install 'gatewise[{extra}]'",
            name=error.name,
        ) from error
