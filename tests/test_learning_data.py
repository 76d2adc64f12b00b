"""Chunks for truncated BPTT: put together again they are the originals, exactly.

Shapes: T = steps of a chunk, B = rows, L = steps of a sequence.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import gatewise as gw
from gatewise.learning.data import Chunks, packed_chunks, stream_chunks, token_chunks
from gatewise.learning.state import detached
from gatewise.models.corpus import Streams

LENGTHS = st.lists(st.integers(1, 23), min_size=1, max_size=9)
SIZE = st.integers(1, 7)


def rows(chunks: Chunks, array: int = 0) -> list[list[torch.Tensor]]:
    """What each row holds, cut where it is reset: from values, resets and padding alone."""
    parts = list(chunks)
    values = torch.cat([c.arrays[array] for c in parts])
    resets = torch.cat([c.resets for c in parts])
    live = ~torch.cat([c.padding for c in parts])
    found = []
    for b in range(chunks.batch):
        starts = resets[:, b].nonzero()[:, 0].tolist()
        assert starts[0] == 0
        end = int(live[:, b].sum())
        assert live[:end, b].all()  # padding at the end of a row only
        bounds = [*starts, end]
        found.append([values[s:e, b] for s, e in pairwise(bounds)])
    return found


@given(length=st.integers(1, 200), batch=SIZE, steps=SIZE)
def test_a_stream_is_whole(length: int, batch: int, steps: int) -> None:
    x, y = torch.rand(length, 3), torch.arange(length)
    chunks = stream_chunks((x, y), batch, steps)
    for array, original in enumerate((x, y)):
        pieces = [piece for row in rows(chunks, array) for piece in row]
        assert len(pieces) == chunks.batch == min(batch, length)
        assert torch.equal(torch.cat(pieces), original)
        assert max(map(len, pieces)) - min(map(len, pieces)) <= 1
    assert all(len(c.inputs) == steps for c in list(chunks)[:-1])


@given(lengths=LENGTHS, batch=SIZE, steps=SIZE)
def test_packed_sequences_are_whole(lengths: list[int], batch: int, steps: int) -> None:
    sequences = [(torch.rand(n, 2), torch.full((n,), k)) for k, n in enumerate(lengths)]
    chunks = packed_chunks(sequences, batch, steps, fill=(0.0, -1))
    found = {}
    for values, ids in zip(rows(chunks), rows(chunks, 1), strict=True):
        for v, k in zip(values, ids, strict=True):
            assert k.unique().numel() == 1  # a reset wherever the sequence changes
            found[int(k[0])] = v
    assert len(found) == sum(map(len, rows(chunks))) == len(lengths)
    assert all(torch.equal(found[k], x) for k, (x, _) in enumerate(sequences))
    # A row is free first, so none ends a whole sequence later than another.
    sizes = [sum(map(len, row)) for row in rows(chunks)]
    assert max(sizes) - min(sizes) <= max(lengths)
    assert all((c.targets < 0).equal(c.padding) for c in chunks)


@given(lengths=LENGTHS, batch=SIZE, steps=SIZE)
def test_the_source_puts_everything_back(lengths: list[int], batch: int, steps: int) -> None:
    sequences = [torch.rand(n, 2) for n in lengths]
    back = torch.full((sum(lengths), 2), torch.nan)
    times = torch.zeros(sum(lengths), dtype=torch.int64)
    for c in packed_chunks(sequences, batch, steps):
        there = ~c.padding
        back[c.source[there]] = c.inputs[there]
        times[c.source[there]] += 1
        assert not c.inputs[c.padding].any()
    assert torch.equal(back, torch.cat(sequences))
    assert (times == 1).all()


@given(lengths=st.lists(st.integers(2, 23), min_size=1, max_size=9), batch=SIZE, steps=SIZE)
def test_texts_predict_each_token_once_and_only_within(
    lengths: list[int], batch: int, steps: int
) -> None:
    texts = [100 * k + torch.arange(n) for k, n in enumerate(lengths)]
    pairs = []
    for c in token_chunks(texts, batch, steps):
        assert (c.targets == -1).equal(c.padding)
        pair = torch.stack([c.inputs[~c.padding], c.targets[~c.padding]], -1)
        pairs += map(tuple, pair.tolist())
    assert sorted(pairs) == [(k, k + 1) for t in texts for k in t[:-1].tolist()]


@given(length=st.integers(2, 200), batch=SIZE, steps=SIZE)
def test_one_text_reads_as_in_language_models(length: int, batch: int, steps: int) -> None:
    ids = torch.arange(length)
    streams, chunks = Streams(ids, batch, steps), token_chunks(ids, batch, steps)
    assert len(streams) == len(chunks)
    for (x, y), c in zip(streams.chunks(), chunks, strict=True):
        assert torch.equal(x, c.inputs)
        assert torch.equal(y, c.targets)


@pytest.mark.parametrize("steps", [1, 3, 50])
def test_a_layer_reads_packed_sequences_as_if_alone(steps: int) -> None:
    layer = gw.LSTM(2, 4, dtype=torch.float64)
    sequences = [torch.randn(n, 2, dtype=torch.float64) for n in (7, 2, 11, 1, 5, 3)]
    total = sum(map(len, sequences))
    outputs = torch.full((total, 4), torch.nan, dtype=torch.float64)
    state = None
    with torch.no_grad():
        for c in packed_chunks(sequences, 3, steps):
            y, state = layer(c.inputs, state, resets=c.resets, lengths=c.lengths)
            state = detached(state)
            outputs[c.source[~c.padding]] = y[~c.padding]
        alone = torch.cat([layer(x)[0] for x in sequences])
    # The batch is split otherwise: sums over the same few products in another order.
    torch.testing.assert_close(outputs, alone, rtol=0, atol=1e-13)


def test_an_array_on_disk_is_read_chunk_by_chunk(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.float32).reshape(12, 2)
    np.save(tmp_path / "x.npy", values)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    [row] = rows(stream_chunks(mapped, 1, 5))
    assert torch.equal(torch.cat(row), torch.from_numpy(values))
    chunk = stream_chunks(mapped, 1, 5)[0]
    chunk.inputs.zero_()  # a copy: the original cannot be written to
    assert mapped[0, 1] == 1.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stream_chunks(torch.zeros(0), 1, 1), "at least 1, got \\[0\\]"),
        (lambda: stream_chunks(torch.zeros(3), 0, 1), "must be positive, got 0 and 1"),
        (lambda: stream_chunks((torch.zeros(3), torch.zeros(4)), 1, 1), "got \\[3, 4\\]"),
        (lambda: stream_chunks(torch.zeros(3), 1, 1, fill=(0, 0)), "one number or 1, got 2"),
        (lambda: stream_chunks(torch.zeros(3), 1, 1)[3], "in 0…2, got 3"),
        (lambda: packed_chunks([], 1, 1), "list of at least one"),
        (lambda: packed_chunks([torch.zeros(2), torch.zeros(0)], 1, 1), "sequences\\[1\\]"),
        (lambda: packed_chunks([torch.zeros(2), torch.zeros(2, 1)], 1, 1), "alike but for"),
        (lambda: packed_chunks([torch.zeros(2), torch.zeros(2).int()], 1, 1), "alike but for"),
        (lambda: token_chunks(torch.zeros(5), 1, 1), "integers \\[L\\], L > 1, got torch.float32"),
        (lambda: token_chunks([torch.arange(3), torch.arange(1)], 1, 1), "tokens\\[1\\]"),
    ],
)
def test_bad_input_is_named(call: object, message: str) -> None:
    assert callable(call)
    with pytest.raises((ValueError, IndexError), match=message):
        call()
    with pytest.raises(TypeError, match="tensors or numpy arrays, got list"):
        stream_chunks(([1, 2],), 1, 1)  # type: ignore[arg-type]
