"""Sentences with a tag for every word, from the column formats they are kept in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from gatewise.models.formats import find_split, read_lines, suffix
from gatewise.models.task import Source

_SUFFIXES = (".conllu", ".conll", ".iob", ".bio", ".tsv")
_HELD_OUT = 10  # one sentence of so many, where no file is held out
# CoNLL-U: ID FORM LEMMA UPOS XPOS FEATS HEAD DEPREL DEPS MISC
_NAMES = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")


Words = list[str]
S = TypeVar("S")


@dataclass(frozen=True)
class Sentence:
    """Words and their tags; no tags where the file has none."""

    words: Words
    tags: list[str]


def read_sentences(path: Path, column: str | None = None) -> list[Sentence]:
    """The sentences of a CoNLL-U or a CoNLL file, with their tags; .gz is read too.

    In CoNLL-U the tag is that of `column`, a name such as `upos` (the default) or `xpos`, and
    tokens that are no words of their own (`8-9`, `8.1`) are left out. In other files a line is
    a word and columns, tabs between or else spaces, of which the last, or the one numbered
    `column` from 1, is the tag; an empty line ends a sentence (CoNLL-2003: the last is the entity,
    2 the part of speech, 3 the chunk).

    Raises ValueError, naming the line, for what does not fit, lines of unequally many columns among
    it; OSError where it cannot be read.
    """
    lines, universal = read_lines(path), suffix(path) == ".conllu"
    rows = _universal(path, lines, column or "upos") if universal else _columns(path, lines, column)
    return _some(path, list(_group(rows)))


def read_plain(path: Path) -> list[Sentence]:
    """The sentences of a .txt file, one of words and spaces on every line, without tags."""
    return _some(path, [Sentence(_apart(s), []) for s in read_lines(path) if s.strip()])


def read_untagged(path: Path, column: str | None = None) -> list[Sentence]:
    """Sentences whose tags are not needed: of a .txt file, or of one in columns.

    A .txt file that says -DOCSTART- is one in columns: so CoNLL-2003 is often kept.
    """
    columns = suffix(path) != ".txt" or any(_is_mark(s) for s in read_lines(path))
    return read_sentences(path, column) if columns else read_plain(path)


def read_words(path: Path) -> list[Words]:
    """The words of `read_untagged`."""
    return [s.words for s in read_untagged(path)]


def find_sentences(source: Source) -> tuple[Path, Path | None]:
    """The file to learn from and the one to hold out; ValueError where a folder is not clear."""
    path, held_out = source.path, source.held_out
    if path is None:
        raise ValueError("DATA is needed: a CoNLL-U or CoNLL file, or a folder of them")
    if not path.exists():
        raise FileNotFoundError(f"no file or folder {path}")
    if path.is_dir():
        columns = any(suffix(p) in _SUFFIXES for p in path.iterdir())
        path, found = find_split(path, _SUFFIXES if columns else (".txt",))
        held_out = held_out or found
    return path, held_out


def held_out_of(sentences: Sequence[S]) -> tuple[list[S], list[S]]:
    """The sentences to learn from, and every tenth one, held out."""
    rest = [s for k, s in enumerate(sentences) if k % _HELD_OUT]
    return rest, list(sentences[::_HELD_OUT])


def _some(path: Path, found: list[Sentence]) -> list[Sentence]:
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
                if not cells[1]:
                    raise ValueError(f"{path}, line {number}: the word is empty")
                yield cells[1], cells[place]


def _columns(path: Path, lines: list[str], column: str | None) -> Iterator[tuple[str, str] | None]:
    if column is not None and not (column.isdigit() and int(column) >= 2):
        raise ValueError(f"column must be a number from 2, counted from 1, got {column!r}")
    place, expected = -1 if column is None else int(column) - 1, 0
    for number, line in enumerate(lines, 1):
        inside = line.strip(" ").rstrip(" \t")
        tabs = "\t" in inside
        cells = [c.strip(" ") for c in inside.split("\t")] if tabs else _apart(line)
        if not line.strip():
            yield None
        elif not _is_mark(line):
            if len(cells) < 2 or len(cells) <= place:
                wanted = max(2, place + 1)
                raise ValueError(
                    f"{path}, line {number}: expected at least {wanted} columns, got {len(cells)}"
                )
            expected = expected or len(cells)
            if len(cells) != expected:
                raise ValueError(
                    f"{path}, line {number}: {len(cells)} columns where the lines before have "
                    f"{expected}"
                )
            if not cells[0] or not cells[place]:
                raise ValueError(f"{path}, line {number}: the word or its tag is empty")
            yield cells[0], cells[place]


def _apart(line: str) -> Words:
    """What stands between spaces or tabs; other white space is part of a word."""
    return [w for w in re.split("[ \t]+", line) if w]


def _is_mark(line: str) -> bool:
    """Is it the line that begins a document in CoNLL-2003?"""
    return line.split(maxsplit=1)[:1] == ["-DOCSTART-"]


def _group(rows: Iterator[tuple[str, str] | None]) -> Iterator[Sentence]:
    words, tags = list[str](), list[str]()
    for row in (*rows, None):
        if row is not None:
            words.append(row[0])
            tags.append(row[1])
        elif words:
            yield Sentence(words, tags)
            words, tags = [], []
