"""Long streams as chunks for truncated BPTT: carried states, sequence starts, no step lost.

Row b of the chunks, read in order, is one long stream: chunk k+1 continues where chunk k ended, so
the state is carried over. Where a row goes on to another sequence, `resets` says so.

Shapes: T = steps of a chunk, B = parallel rows, L = steps of a sequence, N = steps of all
sequences together, `...` = what one step holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch

IGNORED = -1  # target of a position that predicts nothing
Array = torch.Tensor | np.ndarray[Any, Any]


@dataclass(frozen=True)
class Chunk:
    """The next steps of every row.

    A row that has run out is padded at its end, so `lengths` and `resets` are all that a layer
    must know: `layer(chunk.inputs, state, resets=chunk.resets, lengths=chunk.lengths)`.
    """

    arrays: tuple[torch.Tensor, ...]  # each [T, B, ...]
    resets: torch.Tensor  # [T, B] bool: a sequence, or a row's piece of one, begins here
    source: torch.Tensor  # [T, B] int64: which of the N steps this is; -1 where padding

    @property
    def inputs(self) -> torch.Tensor:
        """The first array."""
        return self.arrays[0]

    @property
    def targets(self) -> torch.Tensor:
        """The last array."""
        return self.arrays[-1]

    @property
    def padding(self) -> torch.Tensor:
        """[T, B] bool: no step of any sequence; counts in no loss."""
        return self.source < 0

    @property
    def lengths(self) -> torch.Tensor:
        """[B] int64: how many steps of each row exist."""
        return (~self.padding).sum(0)


class Chunks:
    """Aligned arrays in rows, cut every `steps`; iterate over it as often as you like.

    Made by `stream_chunks`, `token_chunks` and `packed_chunks`. Holds one number per step besides
    the arrays, which are read chunk by chunk: a memory-mapped array stays on disk.
    """

    def __init__(
        self,
        arrays: Sequence[Array],
        rows: Sequence[Sequence[range]],
        steps: int,
        fill: Sequence[float],
    ) -> None:
        """The pieces (ranges of the N steps) of each row, one after the other."""
        self.steps = steps
        self._arrays, self._fill = tuple(arrays), tuple(fill)
        longest = max(sum(map(len, row)) for row in rows)
        self._source = torch.full((longest, len(rows)), -1)
        self._resets = torch.zeros(longest, len(rows), dtype=torch.bool)
        for b, row in enumerate(rows):
            at = 0
            for piece in row:
                self._source[at : at + len(piece), b] = torch.arange(piece.start, piece.stop)
                self._resets[at, b] = True
                at += len(piece)

    @property
    def batch(self) -> int:
        return self._source.shape[1]

    def __len__(self) -> int:
        """Chunks in one pass."""
        return -(-len(self._source) // self.steps)

    def __getitem__(self, k: int) -> Chunk:
        """Chunk `k`; the last one of a pass may have fewer than `steps` steps."""
        if not 0 <= k < len(self):
            raise IndexError(f"chunk must be in 0…{len(self) - 1}, got {k}")
        span = slice(k * self.steps, (k + 1) * self.steps)
        source = self._source[span]
        arrays = zip(self._arrays, self._fill, strict=True)
        return Chunk(tuple(_take(a, source, f) for a, f in arrays), self._resets[span], source)

    def __iter__(self) -> Iterator[Chunk]:
        return (self[k] for k in range(len(self)))


def stream_chunks(
    arrays: Array | tuple[Array, ...], batch: int, steps: int, fill: float | Sequence[float] = 0.0
) -> Chunks:
    """One long stream as `batch` contiguous pieces of (nearly) equal length, in chunks.

    Row b + 1 begins at the step after row b's last. Each row is reset at its own beginning only.

    Args:
        arrays: [N, ...], or several that are aligned: inputs first, targets last.
        batch: B; fewer where N < B, so that no row is empty.
        steps: T.
        fill: what padding holds, for all arrays or for each.

    Raises:
        TypeError, ValueError: something that is no array, arrays of different or zero length,
            batch or steps below 1.

    >>> import torch
    >>> [c.inputs.T.tolist() for c in stream_chunks(torch.arange(7), batch=2, steps=2)]
    [[[0, 1], [3, 4]], [[2, 0], [5, 6]]]
    """
    given = arrays if isinstance(arrays, tuple) else (arrays,)
    length = _length(given, "arrays")
    _check_sizes(batch, steps)
    batch = min(batch, length)
    bounds = [length * b // batch for b in range(batch + 1)]
    rows = [[range(start, end)] for start, end in pairwise(bounds)]
    return Chunks(given, rows, steps, _fills(fill, len(given)))


def packed_chunks(
    sequences: Sequence[Array | tuple[Array, ...]],
    batch: int,
    steps: int,
    fill: float | Sequence[float] = 0.0,
) -> Chunks:
    """Many sequences of any lengths as `batch` rows without gaps, in chunks.

    Each sequence in turn goes to the row that is free first, so sequences of like length are padded
    little, and only at the end of rows. A sequence longer than a chunk goes on in the next.

    Args:
        sequences: each [L, ...], or a tuple of aligned arrays; all alike but for L.
        batch, steps, fill: as for `stream_chunks`.

    Raises:
        TypeError, ValueError: as `stream_chunks`; also sequences that do not fit together.

    >>> import torch
    >>> pieces = [torch.full((n,), n) for n in (3, 1, 2)]
    >>> for c in packed_chunks(pieces, batch=2, steps=2):
    ...     print(c.inputs.T.tolist(), c.resets.T.int().tolist(), c.lengths.tolist())
    [[3, 3], [1, 2]] [[1, 0], [1, 1]] [2, 2]
    [[3], [2]] [[0], [0]] [1, 1]
    """
    if isinstance(sequences, torch.Tensor | np.ndarray) or not len(sequences):
        raise ValueError("sequences must be a list of at least one array")
    given = [s if isinstance(s, tuple) else (s,) for s in sequences]
    lengths = [_length(s, f"sequences[{k}]") for k, s in enumerate(given)]
    _check_sizes(batch, steps)
    rows: list[list[range]] = [[] for _ in range(min(batch, len(given)))]
    free = [0] * len(rows)
    for start, length in zip(accumulate(lengths[:-1], initial=0), lengths, strict=True):
        b = free.index(min(free))
        rows[b].append(range(start, start + length))
        free[b] += length
    columns = len(given[0])
    if any(len(s) != columns for s in given):
        raise ValueError(f"sequences must all be {columns} arrays, as the first one is")
    joined = [_join([s[k] for s in given]) for k in range(columns)]
    return Chunks(joined, rows, steps, _fills(fill, columns))


def token_chunks(tokens: Array | Sequence[Array], batch: int, steps: int) -> Chunks:
    """Token ids and the ids that follow them: every prediction within a text exactly once.

    One text is cut into `batch` pieces (`stream_chunks`), several are packed (`packed_chunks`):
    then no text's first token is predicted from another text. Padding has the target -1, to be
    ignored by a loss.

    Args:
        tokens: integers [L], L > 1, or a list of such texts.
        batch, steps: as for `stream_chunks`.

    Raises:
        TypeError, ValueError: as `stream_chunks`; also a text that is not integers [L], L > 1.

    >>> import torch
    >>> [c] = token_chunks(torch.arange(6), batch=2, steps=9)
    >>> c.inputs.T.tolist(), c.targets.T.tolist()
    ([[0, 1, 0], [2, 3, 4]], [[1, 2, -1], [3, 4, 5]])
    """
    one = isinstance(tokens, torch.Tensor | np.ndarray)
    texts: list[Any] = [tokens] if one else list(tokens)
    for k, text in enumerate(texts):
        name = "tokens" if one else f"tokens[{k}]"
        if _length((text,), name) < 2 or text.ndim != 1 or not _whole_numbers(text):
            raise ValueError(
                f"{name} must be integers [L], L > 1, got {text.dtype} {tuple(text.shape)}"
            )
    pairs = [(text[:-1], text[1:]) for text in texts]
    fill = (0, IGNORED)
    if one:
        return stream_chunks(pairs[0], batch, steps, fill)
    return packed_chunks(pairs, batch, steps, fill)


def _whole_numbers(array: Array) -> bool:
    if isinstance(array, torch.Tensor):
        return not (array.is_floating_point() or array.is_complex() or array.dtype == torch.bool)
    return np.issubdtype(array.dtype, np.integer)


def _length(arrays: tuple[Any, ...], name: str) -> int:
    """The common length of aligned arrays."""
    if not arrays:
        raise ValueError(f"{name} must hold at least one array, got ()")
    for a in arrays:
        if not isinstance(a, torch.Tensor | np.ndarray):
            raise TypeError(f"{name} must be tensors or numpy arrays, got {type(a).__name__}")
    lengths = [len(a) if a.ndim else 0 for a in arrays]
    if lengths[0] < 1 or len(set(lengths)) > 1:
        raise ValueError(f"{name} must have the same number of steps, at least 1, got {lengths}")
    return lengths[0]


def _check_sizes(batch: int, steps: int) -> None:
    if batch < 1 or steps < 1:
        raise ValueError(f"batch and steps must be positive, got {batch} and {steps}")


def _fills(fill: float | Sequence[float], arrays: int) -> Sequence[float]:
    fills = fill if isinstance(fill, Sequence) else (fill,) * arrays
    if len(fills) != arrays:
        raise ValueError(f"fill must be one number or {arrays}, got {len(fills)}")
    return fills


def _join(parts: list[Any]) -> Array:
    first = parts[0]
    for p in parts:
        if type(p) is not type(first) or p.dtype != first.dtype or p.shape[1:] != first.shape[1:]:
            raise ValueError(
                "sequences must be alike but for their lengths, got "
                f"{first.dtype} {tuple(first.shape)} and {p.dtype} {tuple(p.shape)}"
            )
    return torch.cat(parts) if isinstance(first, torch.Tensor) else np.concatenate(parts)


def _take(array: Array, source: torch.Tensor, fill: float) -> torch.Tensor:
    """[T, B, ...]: the steps `source` of `array`, `fill` where there is none."""
    at = source.clamp(min=0)
    if isinstance(array, torch.Tensor):
        taken = array[at.to(array.device)]
    else:
        taken = torch.from_numpy(array[at.numpy()])
    taken[(source < 0).to(taken.device)] = fill
    return taken
