"""Text for training: where it comes from, what is held out, and in which order it is read.

T = steps of a chunk, B = parallel streams, N = tokens of a text.
"""

from __future__ import annotations

import hashlib
import os
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import torch

from gatewise.models.formats import bare, read_whole

IGNORED = -1  # target of a position that predicts nothing
# Tests are not the library; the rest are tables in Python syntax rather than programs.
_NOT_LIBRARY = {
    "test",
    "tests",
    "site-packages",
    "dist-packages",
    "__pycache__",
    "encodings",
    "pydoc_data",
    "lib2to3",
}
_SNIFF = 8192  # bytes looked at for a NUL, which no text has


@dataclass(frozen=True)
class Corpus:
    """A text in two parts that share no passage."""

    name: str
    train: str
    held_out: str
    notes: list[str] = field(default_factory=list)  # what was left out, and why

    @property
    def fingerprint(self) -> str:
        """A hash of both parts: the same corpus reads the same."""
        digest = hashlib.sha256()
        for part in (self.train, self.held_out):
            raw = part.encode("utf-8")
            digest.update(len(raw).to_bytes(8, "little") + raw)
        return digest.hexdigest()


def read_corpus(
    path: str | Path | None = None,
    held_out_path: str | Path | None = None,
    held_out: float = 0.05,
    max_held_out: int = 200_000,
    max_characters: int = 20_000_000,
) -> Corpus:
    """A file, every text file under a folder, or Python's own standard library (None).

    With `held_out_path` that file is held out, whole. Else a file's tail is held out; of a
    folder, whole files, chosen by a hash of their text. Each text counts once however many files
    repeat it. The held-out part is about the fraction `held_out` of the characters, at most about
    `max_held_out`.

    Raises FileNotFoundError for a missing path and ValueError where there is too little text,
    a file is not UTF-8, or `held_out` is not between 0 and 1.
    """
    if not 0.0 < held_out < 1.0:
        raise ValueError(f"held_out must be between 0 and 1, got {held_out}")
    for given in (path, held_out_path):
        if given is not None and not Path(given).exists():
            raise FileNotFoundError(f"no file or folder {given}")
    if held_out_path is not None:
        return _check(_read_split(path, Path(held_out_path), max_characters))
    if path is not None and Path(path).is_file():
        text = _decode(Path(path))
        if text is None:
            raise ValueError(f"{path} is not UTF-8 text")
        return _check(_split_tail(Path(path).name, text, held_out, max_held_out, max_characters))
    if path is None:
        root, name = Path(sysconfig.get_paths()["stdlib"]), "Python standard library"
        files = [
            f
            for f in _walk(root)
            if f.suffix == ".py" and not _NOT_LIBRARY & set(f.relative_to(root).parts)
        ]
        if not files:
            raise ValueError(f"no Python source under {root}; name a file or folder instead")
    else:
        root, name = Path(path), Path(path).resolve().name
        files = list(_walk(root))
    return _check(_split_files(name, files, root, held_out, max_held_out, max_characters))


def _read_split(path: str | Path | None, held_out: Path, cap: int) -> Corpus:
    if path is None or not Path(path).is_file() or not held_out.is_file():
        raise ValueError(f"held_out {held_out} must be a file beside a file to learn from")
    texts = [_decode(Path(path)), _decode(held_out)]
    for file, text in zip((path, held_out), texts, strict=True):
        if text is None:
            raise ValueError(f"{file} is not UTF-8 text")
    train, held = (t or "" for t in texts)
    notes = [f"read the first {cap:,} of {len(train):,} characters"] if len(train) > cap else []
    return Corpus(Path(path).name, train[:cap], held, notes)


def _walk(root: Path) -> Iterator[Path]:
    """Regular files under `root`, sorted, without hidden ones."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(d for d in folders if not d.startswith("."))
        for name in sorted(names):
            file = Path(folder, name)
            if not name.startswith(".") and file.is_file():
                yield file


def _decode(file: Path) -> str | None:
    """The file's text, or None where it is not UTF-8 text."""
    if bare(file) == file:
        with file.open("rb") as stream:
            if b"\0" in stream.read(_SNIFF):
                return None
    try:
        text = read_whole(file)
    except ValueError:
        return None
    return None if "\0" in text[:_SNIFF] else text


def _split_tail(name: str, text: str, share: float, most: int, cap: int) -> Corpus:
    notes = []
    if len(text) > cap:
        notes.append(f"read the first {cap:,} of {len(text):,} characters")
        text = text[:cap]
    tail = min(most, round(share * len(text)))
    return Corpus(name, text[: len(text) - tail], text[len(text) - tail :], notes)


def _split_files(
    name: str, files: list[Path], root: Path, share: float, most: int, cap: int
) -> Corpus:
    texts, notes = _read_all(files, root, cap)
    # Neighbours in a folder resemble each other. Ordered by a hash, what is held out is drawn
    # from all of it, and a stream meets all kinds of files within minutes of training.
    mixed = sorted(texts, key=lambda text: hashlib.sha256(text.encode()).digest())
    wanted = min(most, share * sum(map(len, texts)))
    train: list[str] = []
    held: list[str] = []
    out = 0
    for text in mixed:
        # To pass over a file that fits badly favours small ones; a quarter more is allowed.
        if out < wanted and out + len(text) <= 1.25 * wanted:
            held.append(text)
            out += len(text)
        else:
            train.append(text)
    if texts and (not held or not train):
        notes.append("too few files to hold out whole ones: the tail of the text is held out")
        whole = _split_tail(name, "".join(texts), share, most, cap)
        return Corpus(name, whole.train, whole.held_out, notes)
    return Corpus(name, "".join(train), "".join(held), notes)


def _read_all(files: list[Path], root: Path, cap: int) -> tuple[list[str], list[str]]:
    """Each distinct text, with a line break at its end, and notes on what was left out."""
    texts: dict[str, None] = {}
    skipped: list[str] = []
    repeated = total = 0
    notes: list[str] = []
    for k, file in enumerate(files):
        try:
            text = _decode(file)
        except OSError:
            text = None
        if text is None:
            skipped.append(str(file.relative_to(root)))
            continue
        text = text if text.endswith("\n") else text + "\n"
        if text.isspace():
            continue
        if text in texts:
            repeated += 1
            continue
        if total + len(text) > cap:
            notes.append(f"stopped at {total:,} characters: left out {len(files) - k} files")
            break
        texts[text] = None
        total += len(text)
    if skipped:
        more = f" and {len(skipped) - 3} more" if len(skipped) > 3 else ""
        notes.append(f"skipped what is not UTF-8 text: {', '.join(skipped[:3])}{more}")
    if repeated:
        notes.append(f"skipped {repeated} files that repeat another")
    return list(texts), notes


def _check(corpus: Corpus) -> Corpus:
    if len(corpus.train) < 2 or len(corpus.held_out) < 2:
        size = len(corpus.train) + len(corpus.held_out)
        raise ValueError(f"{corpus.name} has too little text to learn from: {size} characters")
    return corpus


class Streams:
    """A text as B parallel streams, cut into chunks of T: every prediction exactly once.

    Stream b reads a contiguous piece of the text; its first prediction follows the last one
    of stream b-1, and the state is carried from chunk to chunk, so nothing is lost at a
    border. With `warm`, each stream but the first reads so many tokens before its piece, with
    ignored targets: a state to begin with. Where streams differ in length, the shorter ends in
    ignored targets.

    >>> streams = Streams(torch.arange(9), batch=2, steps=3)
    >>> [(x.T.tolist(), y.T.tolist()) for x, y in streams.chunks()]
    [([[0, 1, 2], [4, 5, 6]], [[1, 2, 3], [5, 6, 7]]), ([[3], [7]], [[4], [8]])]
    """

    def __init__(self, ids: torch.Tensor, batch: int, steps: int, warm: int = 0) -> None:
        if batch < 1 or steps < 1:
            raise ValueError(f"batch and steps must be positive, got {batch} and {steps}")
        if len(ids) < 2:
            raise ValueError(f"a text must have at least two tokens, got {len(ids)}")
        predictions = len(ids) - 1
        batch = min(batch, predictions)  # a short text has fewer streams, none of them empty
        self.steps = steps
        bounds = [predictions * b // batch for b in range(batch + 1)]
        firsts = [max(0, s - warm) for s in bounds[:-1]]
        longest = max(e - f for f, e in zip(firsts, bounds[1:], strict=True))
        self._inputs = ids.new_zeros(longest, batch)  # [N/B, B]
        self._targets = ids.new_full((longest, batch), IGNORED)
        for b, (first, (start, end)) in enumerate(zip(firsts, pairwise(bounds), strict=True)):
            self._inputs[: end - first, b] = ids[first:end]
            self._targets[start - first : end - first, b] = ids[start + 1 : end + 1]

    def __len__(self) -> int:
        """Chunks of T in one pass over the text."""
        return -(-len(self._inputs) // self.steps)

    @property
    def length(self) -> int:
        """Steps of one pass over the text."""
        return len(self._inputs)

    @property
    def batch(self) -> int:
        return self._inputs.shape[1]

    def chunk(self, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets [T, B] of chunk `k`; the last chunk of a pass may be shorter."""
        return self.steps_of(slice(k * self.steps, (k + 1) * self.steps))

    def steps_of(self, span: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets [T, B] of a span of steps."""
        return self._inputs[span], self._targets[span]

    def chunks(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return (self.chunk(k) for k in range(len(self)))
