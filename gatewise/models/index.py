"""Things by number: words, characters, labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any


class Index:
    """Names and their numbers. Number 0 stands for every name that is not here.

    >>> index = Index.build(["a", "b", "a"], min_count=2)
    >>> index.number("a"), index.number("b"), len(index)
    (1, 0, 2)

    Raises ValueError for a name that is there twice.
    """

    UNKNOWN = "\N{REPLACEMENT CHARACTER}"

    def __init__(self, names: Sequence[str]) -> None:
        self.names = (self.UNKNOWN, *names)
        self._number = {name: k for k, name in enumerate(self.names)}
        if len(self._number) != len(self.names):
            raise ValueError("an index must hold every name once")

    @classmethod
    def build(cls, names: Iterable[str], min_count: int = 1) -> Index:
        """The names that occur at least `min_count` times, sorted."""
        counts = Counter(names)
        counts.pop(cls.UNKNOWN, None)
        return cls(sorted(n for n, times in counts.items() if times >= min_count))

    def __len__(self) -> int:
        return len(self.names)

    def number(self, name: str) -> int:
        return self._number.get(name, 0)

    def to_json(self) -> list[str]:
        return list(self.names[1:])

    @classmethod
    def from_json(cls, data: Any) -> Index:
        """The index that `to_json` wrote; ValueError for anything else."""
        if not isinstance(data, list) or not all(isinstance(n, str) for n in data):
            raise ValueError("an index must be a list of strings")
        return cls(data)
