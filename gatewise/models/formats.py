"""Text files as people have them: compressed or not, split in train and held-out or not."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

_HELD_OUT = ("dev", "val", "valid", "validation")


def read_whole(path: str | Path) -> str:
    r"""A UTF-8 text file, which may be compressed (.gz): without the mark of byte order at its
    beginning, and with \n for every line break, which may be \r\n or \r in the file.

    Raises OSError where it cannot be read, ValueError where it is not such text.
    """
    raw = Path(path).read_bytes()
    try:
        if _packed(Path(path)):
            raw = gzip.decompress(raw)
        return raw.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from None


def read_lines(path: str | Path) -> list[str]:
    """The lines of `read_whole`: nothing but its line breaks ends one, whatever Unicode says."""
    lines = read_whole(path).split("\n")
    return lines if lines[-1] else lines[:-1]


def bare(path: Path) -> Path:
    """The path without the suffix of compression."""
    return path.with_suffix("") if _packed(path) else path


def suffix(path: Path) -> str:
    """What the name says of the format, in small letters, compressed or not."""
    return bare(path).suffix.lower()


def _packed(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def find_split(folder: Path, suffixes: tuple[str, ...]) -> tuple[Path, Path | None]:
    """The file of `folder` to learn from, and the one to hold out, by the words in their names.

    Of the files that end in one of `suffixes`, the one with `train` in its name (or the only
    one), and the one with `dev`, `val` or `valid`. Raises ValueError where that is not clear.
    """
    files = sorted(p for p in folder.iterdir() if suffix(p) in suffixes)

    def named(*wanted: str) -> list[Path]:
        words = {p: set(bare(p).stem.replace("-", ".").replace("_", ".").split(".")) for p in files}
        return [p for p in files if words[p] & set(wanted)]

    train = named("train")
    if not train and len(files) == 1:
        train = files
    held = [p for p in named(*_HELD_OUT) if p not in train]
    if len(train) != 1 or len(held) > 1:
        raise ValueError(
            f"{folder} must hold one file with `train` in its name and at most one with `dev` or "
            f"`valid`, ending in {' or '.join(suffixes)}; got {len(train)} and {len(held)}"
        )
    return train[0], held[0] if held else None
