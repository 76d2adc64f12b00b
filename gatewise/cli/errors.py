"""What the library refuses, in the words of the command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

# What the library calls an argument -> what the user typed.
OPTIONS = {
    "chunk": "--seq",
    "learning_rate": "--lr",
    "embedding_size": "--embedding",
    "hidden_size": "--hidden",
    "num_layers": "--layers",
    "batch": "--batch",
    "trials": "--trials",
    "jobs": "--jobs",
    "budget": "--budget",
    "limit": "--limit",
    "engine": "--engine",
    "held_out": "--held-out",
    "recipe": "--recipe",
}


class BadInput(Exception):
    """What the user gave cannot be used; the message is one line."""


@contextmanager
def checked() -> Iterator[None]:
    """Errors that the library raises about its arguments become one line."""
    try:
        yield
    except (ValueError, TypeError, OSError, ImportError) as error:
        argument, _, rest = str(error).partition(" ")
        raise BadInput(f"{OPTIONS.get(argument, argument)} {rest}".strip()) from error
