"""Sentences with a tag for every word, from the column formats they are kept in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gatewise.models.formats import bare, read_lines

SUFFIXES = (".conllu", ".conll", ".iob", ".bio", ".tsv")
# CoNLL-U: ID FORM LEMMA UPOS XPOS FEATS HEAD DEPREL DEPS MISC
_NAMES = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")


@dataclass(frozen=True)
class Sentence:
    """Words and their tags; without tags where the file has none."""

    words: list[str]
    tags: list[str]


def read_sentences(path: Path, column: str | None = None) -> list[Sentence]:
    """The sentences of a CoNLL-U, a CoNLL or a plain text file; .gz is read too.

    In CoNLL-U the tag is that of `column`, a name such as `upos` (the default) or `xpos`, and
    tokens that are no words of their own (`8-9`, `8.1`) are left out. In other column files a
    line is a word, spaces, and columns of which the last, or the one numbered `column` from 1,
    is the tag; an empty line ends a sentence. A .txt file has a sentence of words and spaces on
    every line, and no tags.

    Raises ValueError, naming the line, for what does not fit; OSError where it cannot be read.
    """
    suffix = bare(path).suffix
    lines = read_lines(path)
    if suffix == ".txt":
        found = [Sentence(line.split(), []) for line in lines if line.strip()]
    elif suffix == ".conllu":
        found = list(_group(_universal(path, lines, column or "upos")))
    else:
        found = list(_group(_columns(path, lines, column)))
    if not found:
        raise ValueError(f"{path} holds no sentence")
    return found


def _universal(path: Path, lines: list[str], column: str) -> Iterator[tuple[str, str] | None]:
    if column not in _NAMES:
        raise ValueError(f"column must be one of {', '.join(_NAMES)}, got {column!r}")
    place = _NAMES.index(column)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            yield None
        elif not line.startswith("#"):
            cells = line.split("\t")
            if len(cells) != len(_NAMES):
                raise ValueError(f"{path}, line {number}: expected 10 columns, got {len(cells)}")
            if cells[0].isdigit():
                yield cells[1], cells[place]


def _columns(path: Path, lines: list[str], column: str | None) -> Iterator[tuple[str, str] | None]:
    if column is not None and not (column.isdigit() and int(column) >= 2):
        raise ValueError(f"column must be a number from 2, counted from 1, got {column!r}")
    place = -1 if column is None else int(column) - 1
    for number, line in enumerate(lines, 1):
        cells = line.split()
        if not cells:
            yield None
        elif cells[0] != "-DOCSTART-":
            if len(cells) < 2 or len(cells) <= place:
                wanted = max(2, place + 1)
                raise ValueError(
                    f"{path}, line {number}: expected at least {wanted} columns, got {len(cells)}"
                )
            yield cells[0], cells[place]


def _group(rows: Iterator[tuple[str, str] | None]) -> Iterator[Sentence]:
    words, tags = list[str](), list[str]()
    for row in (*rows, None):
        if row is not None:
            words.append(row[0])
            tags.append(row[1])
        elif words:
            yield Sentence(words, tags)
            words, tags = [], []
