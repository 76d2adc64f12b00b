"""The tagger: formats, padding, learning, saving; spans as seqeval counts them."""

from __future__ import annotations

import gzip
import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from gatewise.cli import run
from gatewise.models import Settings, Source, load, runs
from gatewise.models.conll import Sentence, find_sentences, read_sentences, read_untagged
from gatewise.models.index import Index
from gatewise.models.kinds import guess_kind
from gatewise.models.tag_task import TagOptions, TagPredictor
from gatewise.models.tagger import Tagger, TaggerConfig
from tests.resuming import whole_and_resumed

EWT = Path(__file__).parents[2] / "shared" / "data" / "ud_ewt"
SMALL = TagOptions(
    embedding_size=8, character_embedding=6, character_size=6, hidden_size=12, num_layers=1
)
UNIVERSAL = """# text = the cats' dogs
1	The	the	DET	DT	_	2	det	_	_
2-3	cats'	_	_	_	_	_	_	_	_
2	cats	cat	NOUN	NNS	_	4	nmod	_	_
3	'	's	PART	POS	_	2	case	_	_
3.1	_	_	VERB	_	_	_	_	_	_
4	dogs	dog	NOUN	NNS	_	0	root	_	_

1	Run	run	VERB	VB	_	0	root	_	_
"""
NAMES = "-DOCSTART- -X- O\n\nAnn NNP B-PER\nLee NNP I-PER\nin IN O\nRome NNP B-LOC\n\n\nHi UH O\n"


def make(**changes: object) -> Tagger:
    torch.manual_seed(0)
    config = TaggerConfig(**{**asdict(TaggerConfig()), **asdict(SMALL.config()), **changes})
    characters = Index(sorted(set("abcdefgh")))
    return Tagger(config, Index(["abc", "fed"]), characters, 5).double().eval()


def test_universal_dependencies(tmp_path: Path) -> None:
    path = tmp_path / "a.conllu.gz"
    path.write_bytes(gzip.compress(UNIVERSAL.encode()))
    first, second = read_sentences(path)
    assert first == Sentence(["The", "cats", "'", "dogs"], ["DET", "NOUN", "PART", "NOUN"])
    assert second == Sentence(["Run"], ["VERB"])
    assert read_sentences(path, "xpos")[1].tags == ["VB"]


def test_columns_and_plain_text(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text(NAMES)
    first, second = read_sentences(tmp_path / "a.conll")
    assert first == Sentence(["Ann", "Lee", "in", "Rome"], ["B-PER", "I-PER", "O", "B-LOC"])
    assert second.words == ["Hi"]
    assert read_sentences(tmp_path / "a.conll", "2")[1].tags == ["UH"]
    (tmp_path / "a.txt").write_text("Ann Lee\n\n  in Rome\n")
    assert read_untagged(tmp_path / "a.txt")[1] == Sentence(["in", "Rome"], [])
    (tmp_path / "b.txt").write_text(NAMES)  # so CoNLL-2003 is often kept
    assert read_untagged(tmp_path / "b.txt")[0] == first == read_sentences(tmp_path / "b.txt")[0]


def test_suffixes_may_be_large(tmp_path: Path) -> None:
    (tmp_path / "A.CONLLU").write_text(UNIVERSAL)
    assert read_sentences(tmp_path / "A.CONLLU")[1] == Sentence(["Run"], ["VERB"])
    assert find_sentences(Source(tmp_path)) == (tmp_path / "A.CONLLU", None)
    (tmp_path / "B.TXT").write_text("Ann Lee\n")
    assert read_untagged(tmp_path / "B.TXT")[0] == Sentence(["Ann", "Lee"], [])


@pytest.mark.parametrize("name", ["dev.conllu", "train-dev.conllu"])
def test_one_file_is_not_both_learned_from_and_held_out(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(UNIVERSAL)
    assert find_sentences(Source(tmp_path)) == (tmp_path / name, None)


@pytest.mark.parametrize("module", ["seqeval", "sacrebleu"])
def test_a_missing_library_is_missed_before_training(
    tmp_path: Path, module: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.conll").write_text(NAMES * 12)
    (tmp_path / "a.tsv").write_text("ein Haus\ta house\n" * 40)
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, f"{module}.metrics", None)
    words = {"seqeval": ["a.conll", "--task", "tag"], "sacrebleu": ["a.tsv", "--task", "translate"]}
    data, *more = words[module]
    small = ["--set", "vocabulary=20"] if module == "sacrebleu" else []
    out = tmp_path / "out"
    assert run(["train", str(tmp_path / data), *more, *small, "--out", str(out)]) == 2
    assert f"needs {module}: pip install 'gatewise[nlp]'" in capsys.readouterr().err
    assert not out.exists()


def test_nothing_but_tabs_and_spaces_is_between_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("10\u00a0000\tNUM\tNOUN\nNew York\tX\tPROPN\t\n\u3000\n", encoding="utf-8")
    [found] = read_sentences(path)
    assert found == Sentence(["10\u00a0000", "New York"], ["NOUN", "PROPN"])
    assert read_sentences(path, "2")[0].tags == ["NUM", "X"]
    (tmp_path / "b.txt").write_text("10\u00a0000  miles \n", encoding="utf-8")
    assert read_untagged(tmp_path / "b.txt")[0].words == ["10\u00a0000", "miles"]


def tagged(path: Path, *tags: str) -> Path:
    lines = [f"{w} {t}" for w, t in zip(("the", "cat"), tags, strict=True)]
    path.write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    path.write_text(path.read_text("utf-8") * 12, encoding="utf-8")
    return path


def test_tags_that_none_learns_from(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data, odd = tagged(tmp_path / "a.conll", "A", "\ufffd"), tagged(tmp_path / "b.conll", "A", "Z")
    words = ["--task", "tag", "--hidden", "4", "--layers", "1", "--steps", "2", "--out"]
    assert run(["train", str(data), "--held-out", str(odd), *words, str(tmp_path / "x")]) == 2
    assert "has a tag that none to learn from has" in capsys.readouterr().err
    assert run(["train", str(data), *words, str(tmp_path / "out")]) == 0
    predictor = load(tmp_path / "out").predictor  # any tag is one, that of unknown tokens too
    assert isinstance(predictor, TagPredictor) and predictor.tags == ("A", "\ufffd")
    assert set(predictor.evaluate(odd)) == {"accuracy"}, "no nats where there are none"
    mixed = tmp_path / "mixed.conll"
    mixed.write_text(data.read_text("utf-8") + odd.read_text("utf-8"), encoding="utf-8")
    assert predictor.evaluate(mixed)["nats"] == pytest.approx(predictor.evaluate(data)["nats"])


@pytest.mark.parametrize(
    ("name", "text", "column", "message"),
    [
        ("a.conllu", "1\tThe\tDET\n", None, "line 1: expected 10 columns, got 3"),
        ("a.conllu", UNIVERSAL, "2", "column must be one of id, form"),
        ("a.conllu", "1" + "\t" * 9 + "\n", None, "line 1: the word is empty"),
        ("a.txt", "Ann lives here\nyes\n", None, "line 2: expected at least 2 columns, got 1"),
        ("a.conll", "Ann B\nLee\n", None, "line 2: expected at least 2 columns, got 1"),
        ("a.conll", NAMES, "1", "column must be a number from 2"),
        ("a.conll", "\n\n", None, "holds no sentence"),
        ("a.tsv", "Ann\t\tB\nLee\tx\tB\n", "2", "line 1: the word or its tag is empty"),
        ("a.tsv", "\tNNP\tO\n", None, "line 1: the word or its tag is empty"),
        ("a.tsv", "in\tIN\tO\nAnn\tNNP\t\n", None, "line 2: 2 columns where .* have 3"),
        ("a.conll", "in IN B-PP O\nruns VBZ B-VP\n", None, "line 2: 3 columns where .* have 4"),
    ],
)
def test_files_that_do_not_fit(
    tmp_path: Path, name: str, text: str, column: str | None, message: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_sentences(tmp_path / name, column)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\x1f\x8b"])
def test_damaged_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.conll.gz"
    path.write_bytes(gzip.compress(content) if content[0] == 0xFF else content + b"\x08 cut off")
    with pytest.raises(ValueError, match="is not UTF-8 text"):
        read_sentences(path)


@pytest.mark.parametrize("crf", [False, True])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_padding_never_changes_a_result(crf: bool, cell: str) -> None:
    model = make(crf=crf, cell=cell)
    sentences = [["abc", "hah", "fed", "a"], ["deaf"], ["bee", "ABC"]]
    together = model(model.batch(sentences))
    tagged = model.tag(model.batch(sentences))
    for k, sentence in enumerate(sentences):
        alone = model(model.batch([sentence]))[:, 0]
        torch.testing.assert_close(together[: len(sentence), k], alone, rtol=1e-10, atol=1e-12)
        assert tagged[k] == model.tag(model.batch([sentence]))[0]


@pytest.mark.parametrize("crf", [False, True])
def test_the_loss_is_minus_the_log_of_the_probability(crf: bool) -> None:
    """Probabilities of all tags of a sentence sum to one."""
    model = make(crf=crf)
    batch = model.batch([["abc", "fed"]])
    tags = [torch.tensor([[a], [b]]) for a in range(5) for b in range(5)]
    total = sum(torch.exp(-model.loss(batch, t)).item() for t in tags)
    assert total == pytest.approx(1.0)


def test_case_is_seen_by_characters_alone() -> None:
    model = make()
    lower, upper = model.batch([["abc"]]), model.batch([["aBC"]])
    assert torch.equal(lower.words, upper.words)
    assert not torch.equal(lower.spelled.characters, upper.spelled.characters)


def sentences(tmp_path: Path, names: bool) -> Path:
    """A word's tag is decided by the word before it: unlearnable without context."""
    rows = []
    for k in range(60):
        words = [("up" if (k >> n) & 1 else "down") for n in range(5)]
        spans = ["O"] + ["B-X" if w == "up" else "O" for w in words[:-1]]
        plain = ["START"] + ["A" if w == "up" else "B" for w in words[:-1]]
        tags = spans if names else plain
        rows += [f"{w} {t}" for w, t in zip(words, tags, strict=True)] + [""]
    path = tmp_path / "data.conll"
    path.write_text("\n".join(rows))
    return path


@pytest.mark.parametrize("names", [False, True])
def test_it_learns_from_context_and_is_saved(tmp_path: Path, names: bool) -> None:
    path, out = sentences(tmp_path, names), tmp_path / "run"
    settings = Settings(steps=90, batch=16, learning_rate=2e-2, evaluations=1, warmup=5)
    options = TagOptions(**{**asdict(SMALL), "crf": names, "dropout": 0.1})
    begun = runs.begin(out, "tag", Source(path), options, settings)
    for _ in begun.trainer.run():
        pass
    summary = runs.summary(begun)
    assert summary["held_out_accuracy"] == 1.0
    assert ("held_out_f1" in summary) == names
    saved = load(out).predictor
    assert saved.evaluate(path)["accuracy"] == begun.task.predictor.evaluate(path)["accuracy"]
    rows, again = list(saved.predict(path)), list(begun.task.predictor.predict(path))
    assert rows == again
    assert len(rows) == 60


def test_a_stopped_and_resumed_run_is_the_unbroken_one(tmp_path: Path) -> None:
    path = sentences(tmp_path, False)
    settings = Settings(steps=12, batch=16, evaluations=3)
    whole, resumed = whole_and_resumed(tmp_path, "tag", Source(path), SMALL, settings, stop=7)
    assert whole == resumed


def test_f1_of_spans_by_hand() -> None:
    """Two of three spans are found, one of them with a wrong end, and one is invented."""
    tags = ["B-X", "I-X", "O"]
    predictor = TagPredictor(make(), tags, None)
    truth = ["B-X", "I-X", "O", "B-X", "O", "B-X", "O"]
    guess = ["B-X", "I-X", "O", "B-X", "I-X", "O", "B-X"]
    numbers = [[tags.index(t) for t in guess]]
    predictor.model.tag = lambda batch: numbers  # type: ignore[method-assign]
    scores = predictor.score([Sentence(["a"] * 7, truth)])
    assert scores["precision"] == pytest.approx(1 / 3)
    assert scores["recall"] == pytest.approx(1 / 3)
    assert scores["accuracy"] == pytest.approx(4 / 7)


SPANS = {
    "B and I": (["B-X", "I-X", "O", "B-Y"], ["B-X", "I-X", "O", "B-Y"], (2, 2, 2)),
    "neighbours": (["B-X", "B-X", "I-X", "O"], ["B-X", "I-X", "I-X", "O"], (0, 1, 2)),
    "another kind": (["B-X", "I-X", "O", "O"], ["B-Y", "I-Y", "O", "O"], (0, 1, 1)),
    "invented": (["O", "O", "O", "O"], ["O", "B-X", "O", "B-X"], (0, 2, 0)),
    "BIOES": (["B-X", "I-X", "E-X", "S-Y"], ["B-X", "I-X", "E-X", "S-Y"], (2, 2, 2)),
    "BIOES, split": (["B-X", "I-X", "E-X", "O"], ["S-X", "B-X", "E-X", "O"], (0, 2, 1)),
    "I begins one": (["I-X", "I-X", "B-X", "O"], ["I-X", "I-X", "B-X", "O"], (2, 2, 2)),
    "I after O begins one": (["B-X", "I-X", "O", "O"], ["I-X", "I-X", "O", "O"], (1, 1, 1)),
}


@pytest.mark.parametrize("case", SPANS)
def test_spans_count_as_a_whole(case: str) -> None:
    """Spans found rightly, spans found, spans there are: worked out by hand."""
    truth, guess, (right, found, there) = SPANS[case]
    tags = sorted({*truth, *guess, "O", "B-X"})
    predictor = TagPredictor(make(), tags, None)
    predictor.model.tag = lambda batch: [[tags.index(t) for t in guess]]  # type: ignore[method-assign]
    scores = predictor.score([Sentence(["a"] * len(truth), truth)])
    assert scores["precision"] == pytest.approx(right / found)
    assert scores["recall"] == pytest.approx(right / there if there else 0)
    total = found + there
    assert scores["f1"] == pytest.approx(2 * right / total)


CONLL2003 = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O
German JJ B-NP B-MISC
call NN I-NP O

Peter NNP B-NP B-PER
Blackburn NNP I-NP I-PER
. . O O
"""


@pytest.mark.parametrize(("column", "tags"), [(None, 5), ("4", 5), ("3", 4), ("2", 5)])
def test_a_folder_as_of_conll_2003(
    tmp_path: Path, column: str | None, tags: int, capsys: pytest.CaptureFixture
) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    for name in ("train", "valid", "test"):
        (data / f"{name}.txt").write_text(CONLL2003)
    assert find_sentences(Source(data)) == (data / "train.txt", data / "valid.txt")
    chosen = [] if column is None else ["--column", column]
    more = ["--hidden", "4", "--layers", "1", "--steps", "1", "--test", str(data / "test.txt")]
    command = ["train", str(data), "--task", "tag", "--out", str(out), *chosen, *more, "--json"]
    assert run(command) == 0
    result = json.loads(capsys.readouterr().out)
    assert ("held_out_f1" in result) == ("f1" in result["test"]) == (column != "2")
    predictor = load(out).predictor
    assert isinstance(predictor, TagPredictor)
    assert len(predictor.tags) == tags
    assert [len(r["words"]) for r in predictor.predict(data / "test.txt")] == [4, 3]


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path, out = sentences(tmp_path, False), tmp_path / "run"
    more = ["--hidden", "8", "--layers", "1", "--steps", "4", "--set", "character_size=4"]
    assert run(["train", str(path), "--out", str(out), *more]) == 0
    capsys.readouterr()
    (tmp_path / "new.txt").write_text("up down\nsideways\n")
    assert run(["predict", str(out), str(tmp_path / "new.txt")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("up/")
    assert len(lines) == 2
    assert run(["evaluate", str(out), str(path), "--json"]) == 0
    assert "accuracy" in json.loads(capsys.readouterr().out)
    assert run(["evaluate", str(out), str(tmp_path / "new.txt")]) == 2
    assert "line 2: expected at least 2 columns" in capsys.readouterr().err
    assert run(["sample", str(out)]) == 2
    assert "holds a model for tag, which draws no text" in capsys.readouterr().err


@pytest.mark.skipif(not EWT.exists(), reason=f"needs the treebank in {EWT}")
def test_the_treebank_is_read_as_published() -> None:
    assert guess_kind(EWT) == "tag"
    test = read_sentences(EWT / "en_ewt-ud-test.conllu")
    assert sum(len(s.words) for s in test) == 25_094
    assert len({t for s in test for t in s.tags}) == 17
