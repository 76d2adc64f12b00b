"""Text: vocabularies, what is read and held out, streams that lose nothing."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gatewise.cli import run
from gatewise.models import Streams, Vocabulary, load_checkpoint, read_corpus
from gatewise.models.corpus import IGNORED
from gatewise.models.cuts import Cuts
from gatewise.models.vocabulary import UNKNOWN

SHAKESPEARE = Path(__file__).parents[1] / "../shared/data/tinyshakespeare/input.txt"
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=UNKNOWN), min_size=1)


@given(TEXT, st.sampled_from(["char", "word"]))
def test_a_vocabulary_is_lossless_on_its_own_text(text: str, level: str) -> None:
    vocabulary = Vocabulary.build(text, level)
    assert vocabulary.decode(vocabulary.encode(text)) == text
    assert vocabulary.unknown(text) == []
    again = Vocabulary.from_json(json.loads(json.dumps(vocabulary.to_json())))
    assert again == vocabulary


def test_what_is_unknown_becomes_token_0() -> None:
    vocabulary = Vocabulary.build("abc", "char")
    assert vocabulary.tokens == (UNKNOWN, "a", "b", "c")
    assert vocabulary.encode("a😀c\udc80").tolist() == [1, 0, 3, 0]
    assert vocabulary.decode([1, 0, 3]) == f"a{UNKNOWN}c"
    assert vocabulary.unknown("x😀ax") == ["x", "😀"]


def test_words_take_their_space_along() -> None:
    text = "the cat's mat, the <unk> cat \n no"
    vocabulary = Vocabulary.build(text, "word")
    tokens = [vocabulary.tokens[k] for k in vocabulary.encode(text).tolist()]
    assert tokens == ["the", " cat's", " mat", ",", " the", " <unk>", " cat", " \n", " no"]


def test_the_most_frequent_stay() -> None:
    vocabulary = Vocabulary.build("aaabbcd", "char", max_size=3)
    assert vocabulary.tokens == (UNKNOWN, "a", "b")
    assert Vocabulary.build("aaabbcd", "char", min_count=2).tokens == (UNKNOWN, "a", "b")


def test_unknown_text_is_charged_for_its_spelling() -> None:
    vocabulary = Vocabulary.build("abc", "char")
    found = vocabulary.measure("aéb😀")
    assert found.characters == 3  # the first is given, not predicted
    assert found.spelled_bits == 8 * (2 + 4)
    words = Vocabulary.build("one two", "word").measure("one three two")
    assert words.characters == len(" three two")
    assert words.spelled_bits == 8 * len(" three")
    # Between spaces: a word pays for the space behind it where there is one.
    spaced = Vocabulary.build("the cat\n" * 2, "space")
    assert spaced.measure("the cat zzzz\nzz the").spelled_bits == 8 * len("zzzzzz ")
    found = spaced.measure("a\n")
    assert (found.characters, len(found.ids), found.spelled_bits) == (1, 2, 0)


def test_every_reader_reads_a_text_alike(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Line breaks of other systems, a mark of byte order and compression change no figure."""
    text = "the cat sat\n\nthe dog ran\n" * 60
    plain, other = tmp_path / "plain.txt", tmp_path / "other.txt.gz"
    plain.write_text(text)
    other.write_bytes(gzip.compress(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()))
    assert read_corpus(other).train == read_corpus(plain).train
    sizes = ["--hidden", "8", "--embedding", "4", "--steps", "3", "--seq", "8"]
    told = []
    for data in (plain, other):
        out = str(tmp_path / data.stem)
        assert run(["train", str(data), "--held-out", str(data), "--out", out, *sizes]) == 0
        capsys.readouterr()
        assert run(["evaluate", out, str(data), "--json"]) == 0
        told.append(json.loads(capsys.readouterr().out))
        history = load_checkpoint(out).record["history"][-1]
        assert history["held_out_perplexity"] == pytest.approx(find(told[-1], "perplexity"))
    assert find(told[0], "perplexity") == find(told[1], "perplexity")
    assert run(["predict", str(tmp_path / "plain"), str(other), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 180 and rows[1] == {"perplexity": None, "text": ""}
    assert run(["predict", str(tmp_path / "plain"), str(other)]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "-\t"


def find(told: Any, name: str) -> float:
    """The one figure of that name, wherever it is."""
    parts = [told]
    while parts:
        part = parts.pop()
        if name in part:
            return part[name]
        parts += [v for v in part.values() if isinstance(v, dict)]
    raise AssertionError(f"no {name} in {told}")


def test_a_text_that_repeats_no_word(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = tmp_path / "a.txt"
    data.write_text(" ".join(f"w{k}" for k in range(300)))
    assert run(["train", str(data), "--level", "word", "--out", str(tmp_path / "out")]) == 2
    assert "has no word that it repeats" in capsys.readouterr().err


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {"level": "char"},
        {"level": "char", "tokens": [1]},
        {"level": "bytes", "tokens": [UNKNOWN]},
        {"level": "char", "tokens": [UNKNOWN, "ab"]},
        {"level": "char", "tokens": [UNKNOWN, "a", "a"]},
        {"level": "char", "tokens": ["a"]},
    ],
)
def test_a_damaged_vocabulary_is_refused(data: object) -> None:
    with pytest.raises(ValueError):
        Vocabulary.from_json(data)


def test_the_tail_of_a_file_is_held_out(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    text = "".join(chr(65 + k % 50) for k in range(1000))
    file.write_text(text, "utf-8")
    corpus = read_corpus(file, held_out=0.1)
    assert corpus.train + corpus.held_out == text
    assert len(corpus.held_out) == 100
    assert len(read_corpus(file, held_out=0.5, max_held_out=30).held_out) == 30


def test_whole_files_of_a_folder_are_held_out(tmp_path: Path) -> None:
    for k in range(40):
        (tmp_path / f"{k:02}.txt").write_text(f"file {k}\n" * 20)
    corpus = read_corpus(tmp_path, held_out=0.1)
    held = set(corpus.held_out.splitlines())
    assert 3 <= len(held) <= 5
    assert not held & set(corpus.train.splitlines())
    assert read_corpus(tmp_path, held_out=0.1) == corpus
    assert corpus.fingerprint == read_corpus(tmp_path, held_out=0.1).fingerprint


def test_what_is_not_text_is_left_out_with_a_note(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe broken")
    (tmp_path / "c.bin").write_bytes(b"ab\0cd")
    (tmp_path / ".hidden").write_text("hidden")
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "sub" / "a.txt").write_text("first file, no line break")
    (tmp_path / "sub" / "bom.txt").write_bytes("\ufeffsecond file é\n".encode())
    (tmp_path / "sub" / "copy.txt").write_text("first file, no line break\n")
    corpus = read_corpus(tmp_path, held_out=0.5)
    lines = (corpus.train + corpus.held_out).splitlines()
    assert sorted(lines) == ["first file, no line break", "second file é"]
    assert any("b.txt, c.bin" in note for note in corpus.notes)
    assert any("1 files that repeat" in note for note in corpus.notes)


def test_a_cap_is_kept_and_told(tmp_path: Path) -> None:
    for k in range(10):
        (tmp_path / f"{k}.txt").write_text(str(k) * 99)
    corpus = read_corpus(tmp_path, held_out=0.3, max_characters=500)
    assert len(corpus.train) + len(corpus.held_out) == 500
    assert corpus.notes == ["stopped at 500 characters: left out 5 files"]
    corpus = read_corpus(tmp_path / "1.txt", held_out=0.5, max_characters=10)
    assert corpus.train + corpus.held_out == "1" * 10


def test_the_standard_library_needs_no_path() -> None:
    corpus = read_corpus(None, max_characters=500_000)
    assert "import " in corpus.train
    assert 0.02 < len(corpus.held_out) / len(corpus.train) < 0.1


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "too little text"), (b"a", "too little text"), (b"\xff\xff", "is not UTF-8 text")],
)
def test_files_that_cannot_be_learned_from(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_corpus(tmp_path / "x")


def test_a_missing_path_and_a_bad_share(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        read_corpus(tmp_path / "none")
    with pytest.raises(ValueError, match="held_out must be between 0 and 1, got 1"):
        read_corpus(tmp_path, held_out=1.0)
    with pytest.raises(ValueError, match="too little text"):
        read_corpus(tmp_path)


@given(st.integers(2, 60), st.integers(1, 12), st.integers(1, 9))
def test_every_prediction_is_made_exactly_once(tokens: int, batch: int, steps: int) -> None:
    streams = Streams(torch.arange(tokens), batch, steps)
    pairs: Counter[tuple[int, int]] = Counter()
    chunks = list(streams.chunks())
    assert len(chunks) == len(streams)
    for inputs, targets in chunks:
        assert inputs.shape == targets.shape
        assert len(inputs) <= steps
        live = targets != IGNORED
        pairs.update(zip(inputs[live].tolist(), targets[live].tolist(), strict=True))
    assert pairs == Counter((k, k + 1) for k in range(tokens - 1))
    columns = torch.cat([y for _, y in chunks]).T
    for column in columns:  # each stream is contiguous: a carried state is its true past
        live = column[column != IGNORED]
        assert torch.equal(live, torch.arange(live[0], live[0] + len(live)))


@given(st.integers(2, 60), st.integers(1, 12), st.integers(1, 20))
def test_streams_that_warm_up_score_every_token_once_too(
    tokens: int, batch: int, warm: int
) -> None:
    streams = Streams(torch.arange(tokens), batch, tokens + warm, warm)
    inputs, targets = streams.chunk(0)
    scored = targets != IGNORED
    assert sorted(targets[scored].tolist()) == list(range(1, tokens))
    assert torch.equal(inputs[scored] + 1, targets[scored])
    for column, live in zip(inputs.T, scored.T, strict=True):
        first = int(live.int().argmax())
        assert first == min(warm, int(column[first]))  # what was read before, where there is any
        assert torch.equal(
            column[: first + 1], torch.arange(int(column[0]), int(column[first]) + 1)
        )


@given(st.integers(1, 3000), st.integers(1, 80), st.floats(0.1, 20), st.integers(0, 99))
def test_drawn_chunks_are_a_pass(length: int, steps: int, spread: float, seed: int) -> None:
    cuts = Cuts(length, steps, spread, seed)
    for epoch in (0, 1):
        spans = [cuts.span(epoch, k) for k in range(len(cuts))]
        assert all(s.stop > s.start for s in spans)
        assert [s.start for s in spans] == [0, *(s.stop for s in spans[:-1])]
        assert spans[-1].stop == length
    again = Cuts(length, steps, spread, seed)
    assert [again.span(1, k) for k in range(len(again))] == spans  # without the pass before


def test_chunks_are_drawn_around_what_was_asked() -> None:
    cuts = Cuts(1_000_000, 70, 5.0)
    lengths = [cuts.share(cuts.span(3, k)) * 70 for k in range(len(cuts))]
    long = [n for n in lengths if n > 52]
    assert sum(n < 52 for n in lengths) / len(lengths) == pytest.approx(0.05, abs=0.008)  # 3 σ
    assert sum(long) / len(long) == pytest.approx(70, abs=0.7)
    assert Cuts(100, 70).share(slice(70, 100)) == 1.0


@pytest.mark.skipif(not SHAKESPEARE.exists(), reason="../shared/data/tinyshakespeare is absent")
def test_tinyshakespeare() -> None:
    corpus = read_corpus(SHAKESPEARE)
    assert len(corpus.train) + len(corpus.held_out) == 1_115_394
    assert len(Vocabulary.build(corpus.train, "char")) == 65 + 1
