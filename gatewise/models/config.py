"""The sizes of a model: checked before anything is made of them, written and read as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from typing_extensions import Self


class Config:
    """What the frozen dataclasses of sizes have in common.

    Raises TypeError or ValueError where a size is no int or out of range, or a dropout is not in
    [0, 1): a damaged file must not ask for terabytes.
    """

    described: ClassVar[str]  # in messages: "a tagger"
    largest: ClassVar[Mapping[str, int]]  # the sizes, each at least 1
    dropouts: ClassVar[tuple[str, ...]] = ("dropout",)

    def __post_init__(self) -> None:
        for name, largest in self.largest.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an int, got {value!r}")
            if not 1 <= value <= largest:
                raise ValueError(f"{name} must be between 1 and {largest:,}, got {value}")
        for name in self.dropouts:
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0.0 <= value < 1.0:
                raise ValueError(f"{name} must be at least 0 and below 1, got {value!r}")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """The configuration that `to_json` wrote; ValueError or TypeError for anything else."""
        known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
        if not isinstance(data, dict):
            raise ValueError(f"{cls.described}'s configuration must be an object")
        if set(data) != known:
            exactly = ", ".join(sorted(known))
            raise ValueError(f"{cls.described}'s configuration must have exactly: {exactly}")
        return cls(**data)
