"""Sentences in two languages, line by line."""

from __future__ import annotations

from pathlib import Path

from gatewise.models.formats import bare, find_split, read_lines, suffix

Pairs = list[tuple[str, str]]


def read_pairs(path: Path, source: str, target: str) -> Pairs:
    """Pairs of a sentence and its translation.

    From a tab-separated file (.tsv) of two columns, or from two files whose names differ in the
    language alone: `test.de` or `test.de.gz` names the one in the language `source`, the other is
    beside it. Pairs with an empty side are left out.

    Raises ValueError where the two do not fit each other, OSError where one cannot be read.
    """
    if suffix(path) == ".tsv":
        rows = [line.split("\t") for line in read_lines(path)]
        for number, row in enumerate(rows, 1):
            if len(row) != 2:
                raise ValueError(f"{path}, line {number}: expected 2 columns, got {len(row)}")
        pairs = [(a, b) for a, b in rows]
    else:
        other = beside(path, source, target)
        first, second = read_lines(path), read_lines(other)
        if len(first) != len(second):
            raise ValueError(
                f"{path} has {len(first)} lines, {other.name} has {len(second)}: not in parallel"
            )
        pairs = list(zip(first, second, strict=True))
    found = [(a.strip(), b.strip()) for a, b in pairs if a.strip() and b.strip()]
    if not found:
        raise ValueError(f"{path} holds no pair of sentences")
    return found


def beside(path: Path, source: str, target: str) -> Path:
    """The file in the other language; ValueError where `path` is not named by its own."""
    if bare(path).suffix != f".{source}":
        raise ValueError(f"{path} must end in .{source} or .{source}.gz, or be a .tsv file")
    compressed = path.name.removeprefix(bare(path).name)
    return path.with_name(bare(path).stem + f".{target}" + compressed)


def find_pairs(path: Path, source: str, target: str) -> tuple[Path, Path | None]:
    """The file to learn from and the one to hold out, of a folder or where `path` is a file."""
    if not path.exists():
        raise FileNotFoundError(f"no file or folder {path}")
    return find_split(path, (f".{source}", ".tsv")) if path.is_dir() else (path, None)
