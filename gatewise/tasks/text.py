"""The text of a task's C file."""

from __future__ import annotations

from importlib.resources import files


def code(name: str, **constants: int) -> str:
    """source/`name` with the constants it expects."""
    lines = [f"#define {k} {v}" for k, v in constants.items()]
    return "\n".join([*lines, (files("gatewise.tasks") / "source" / name).read_text("utf-8")])
