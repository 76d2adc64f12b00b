"""Attention, the translator, its searches: properties; learning and saving; files."""

from __future__ import annotations

import gzip
import itertools
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewise.cli import run
from gatewise.models import CheckpointError, Settings, Source, load, runs
from gatewise.models.attention import AdditiveAttention, MultiplicativeAttention
from gatewise.models.bleu import bleu, bleu_scores
from gatewise.models.parallel import read_pairs
from gatewise.models.search import beam_search, greedy
from gatewise.models.subwords import Subwords
from gatewise.models.translate_task import TranslateOptions, TranslateTask
from gatewise.models.translator import ATTENTIONS, BEGIN, END, PAD, Translator, TranslatorConfig
from tests.resuming import whole_and_resumed

V = 7
SMALL = TranslateOptions(
    source="xx",
    target="yy",
    vocabulary=60,
    embedding_size=24,
    hidden_size=24,
    dropout=0.1,
    smoothing=0.0,
    beams=2,
)


def make(attention: str = "additive", seed: int = 0, **changes: object) -> Translator:
    torch.manual_seed(seed)
    sizes = {"embedding_size": 6, "hidden_size": 6, "num_layers": 2} | changes
    config = TranslatorConfig(V, attention=attention, **sizes)  # type: ignore[arg-type]
    return Translator(config).double().eval()


def sentences(*lengths: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(len(lengths))
    source = torch.zeros(max(lengths), len(lengths), dtype=torch.int64)
    for k, length in enumerate(lengths):
        source[:length, k] = torch.randint(END + 1, V, (length,))
    return source, torch.tensor(lengths)


def assert_same(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)  # float64, another order of sums


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from([AdditiveAttention, MultiplicativeAttention]),
    st.lists(st.integers(1, 6), min_size=1, max_size=4),
    st.integers(1, 3),
)
def test_attention_sums_to_one_over_what_exists(kind: type, lengths: list[int], steps: int) -> None:
    attend = kind(4, 5).double()
    memory = torch.randn(max(lengths), len(lengths), 5, dtype=torch.float64)
    queries = torch.randn(steps, len(lengths), 4, dtype=torch.float64)
    context, weights = attend(queries, memory, torch.tensor(lengths))
    assert_same(weights.sum(-1), torch.ones_like(weights[..., 0]))
    for row, length in enumerate(lengths):
        assert not weights[:, row, length:].any()
        assert_same(context[:, row], weights[:, row] @ memory[:, row])


def test_scores_by_hand() -> None:
    add, multiply = AdditiveAttention(2, 3).double(), MultiplicativeAttention(2, 3).double()
    q, m = torch.randn(1, 1, 2, dtype=torch.float64), torch.randn(1, 1, 3, dtype=torch.float64)
    mixed = add.of_query.weight @ q[0, 0] + add.of_query.bias + add.of_memory.weight @ m[0, 0]
    score = add.score(q, add.keys(m))[0, 0, 0]
    assert_same(score, (add.sum.weight @ mixed.tanh())[0])
    score = multiply.score(q, multiply.keys(m))[0, 0, 0]
    assert_same(score, q[0, 0] @ multiply.of_memory.weight @ m[0, 0])


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_later_subwords_never_change_earlier_ones(attention: str) -> None:
    model, (source, lengths) = make(attention), sentences(4, 2)
    target = torch.randint(END + 1, V, (6, 2))
    other = target.clone()
    other[4:] = (other[4:] - END) % (V - END - 1) + END + 1
    a, b = (model(source, lengths, t)[0] for t in (target, other))
    assert_same(a[:4], b[:4])
    assert not torch.allclose(a[4], b[4])


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_padding_never_changes_a_result(attention: str, cell: str) -> None:
    model, (source, lengths) = make(attention, cell=cell), sentences(5, 2, 3)
    target = torch.randint(END + 1, V, (4, 3))
    together, _ = model(source, lengths, target)
    for k, length in enumerate(lengths.tolist()):
        own = slice(k, k + 1)
        alone, _ = model(source[:length, own], lengths[own], target[:, own])
        assert_same(together[:, own], alone)


def test_the_loss_pads_for_nothing_and_smooths() -> None:
    model, (source, lengths) = make(), sentences(3, 3)
    target = torch.tensor([[BEGIN, BEGIN], [4, 5], [END, 6], [PAD, END]])
    parts = [
        model.loss(source[:, k : k + 1], lengths[k : k + 1], t[:, None])
        for k, t in enumerate((target[:3, 0], target[:, 1]))
    ]
    assert_same(model.loss(source, lengths, target), torch.stack(parts).sum())
    logits, _ = model(source, lengths, target[:-1])
    log_p = logits.log_softmax(-1)
    real = (target[1:] != PAD)[..., None]
    own = log_p.gather(-1, target[1:, :, None])
    expected = -(0.9 * own + 0.1 * log_p.mean(-1, keepdim=True))[real].sum()
    assert_same(model.loss(source, lengths, target, smoothing=0.1), expected)


def test_scheduled_sampling_reads_its_own_words() -> None:
    model, (source, lengths) = make(), sentences(3)
    target = torch.tensor([[BEGIN], [4], [5], [6], [END]])
    first = model(source, lengths, target[:-1])[0].argmax(-1)
    read = torch.cat([target[:1], first[:-1]])
    logits, _ = model(source, lengths, read)
    log_p = logits.log_softmax(-1).gather(-1, target[1:, :, None])
    assert_same(model.loss(source, lengths, target, own=1.0), -log_p.sum())


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("seed", range(3))
def test_one_beam_is_greedy(attention: str, seed: int) -> None:
    model, (source, lengths) = make(attention, seed), sentences(4, 1, 3)
    memory = model.encode(source, lengths)
    said, _ = greedy(model, memory, 9)
    assert beam_search(model, memory, 9, beams=1) == said


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_no_sentence_changes_another_s_translation(attention: str) -> None:
    model, (source, lengths) = make(attention), sentences(1, 5, 3)
    with torch.no_grad():
        model.head.bias[END] = -3.0  # seldom ends: the limits, one for each, are reached
    longest = torch.tensor([3, 12, 7])
    memory = model.encode(source, lengths)
    said, together = greedy(model, memory, longest)[0], beam_search(model, memory, longest, 4)
    assert max(len(s) for s in said) > 3
    for k, size in enumerate(lengths.tolist()):
        alone = model.encode(source[:size, k : k + 1], lengths[k : k + 1])
        assert greedy(model, alone, int(longest[k]))[0] == [said[k]]
        assert beam_search(model, alone, longest[k : k + 1], 4) == [together[k]]


@pytest.mark.parametrize("seed", range(3))
def test_enough_beams_find_the_best_of_all_sentences(seed: int) -> None:
    """Every sentence of at most three subwords is tried, by hand."""
    model, (source, lengths) = make(seed=seed), sentences(3)
    with torch.no_grad():
        model.head.weight.mul_(3)  # apart enough that no two sentences tie
    memory = model.encode(source, lengths)
    scores = {}
    for size in range(4):
        for words in itertools.product(range(END + 1, V), repeat=size):
            ids = torch.tensor([BEGIN, *words, END])[:, None]
            if size == 3:
                ids = ids[:-1]  # cut off where the longest is reached
            logits = model.decode(ids[:-1], memory.state, memory)[0][:, 0]
            logits[:, [PAD, BEGIN]] = float("-inf")
            log_p = logits.log_softmax(-1).gather(1, ids[1:]).sum().item()
            scores[words] = log_p / (len(ids) - 1)
    best = max(scores, key=scores.__getitem__)
    assert beam_search(model, memory, 3, beams=200) == [list(best)]


def test_greedy_stops_and_shows_where_it_looked() -> None:
    model, (source, lengths) = make(), sentences(4, 2)
    said, maps = greedy(model, model.encode(source, lengths), 5)
    assert maps is not None
    assert maps.shape[1:] == (2, 4)
    assert all(len(s) <= 5 and not {PAD, BEGIN, END} & set(s) for s in said)
    assert_same(maps.sum(-1), torch.ones_like(maps[..., 0]))


NUMBERS = ("null", "eins", "zwei", "drei", "vier")
WORDS = ("zero", "one", "two", "three", "four")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Numbers, said in the opposite order: the words at the ends are far apart."""
    folder = tmp_path_factory.mktemp("numbers")
    torch.manual_seed(0)
    rows = [torch.randint(5, (4,)).tolist() for _ in range(200)]  # BLEU counts four words in a row
    for name, part in (("train", rows), ("val", rows[:30])):
        lines = "\n".join(" ".join(NUMBERS[k] for k in row) for row in part)
        (folder / f"{name}.xx.gz").write_bytes(gzip.compress(lines.encode()))
        lines = "\n".join(" ".join(WORDS[k] for k in reversed(row)) for row in part)
        (folder / f"{name}.yy.gz").write_bytes(gzip.compress(lines.encode()))
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("translator") / "run"
    how = Settings(steps=150, batch=32, learning_rate=1e-2, evaluations=2, warmup=10)
    begun = runs.begin(out, "translate", Source(data), SMALL, how)
    for _ in begun.trainer.run():
        pass
    runs.picture(begun)
    return out


def test_it_learns_and_is_saved(data: Path, trained: Path, capsys: pytest.CaptureFixture) -> None:
    assert (trained / "attention.png").stat().st_size > 5000
    assert run(["evaluate", str(trained), str(data / "val.xx.gz"), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["bleu"] > 95
    assert scores["bleu_1_to_8_words"] == scores["bleu"]
    assert run(["predict", str(trained), str(data / "val.xx.gz")]) == 0
    told = capsys.readouterr().out.splitlines()
    truth = gzip.decompress((data / "val.yy.gz").read_bytes()).decode().splitlines()
    assert bleu(told, truth) == pytest.approx(scores["bleu"])


def test_several_are_evaluated_side_by_side(
    data: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    begun = runs.begin(
        tmp_path / "without",
        "translate",
        Source(data),
        replace(SMALL, attention="none"),
        Settings(steps=1, batch=8),
    )
    for _ in begun.trainer.run():
        pass
    command = ["evaluate", str(trained), str(data / "val.xx.gz"), "--beside"]
    command += [str(tmp_path / "without"), "--out", str(tmp_path / "figures")]
    assert run(command) == 0
    told = capsys.readouterr().out
    assert "run" in told and "without" in told and "bleu 1 to 8 words" in told
    names = {p.name for p in (tmp_path / "figures").iterdir()}
    assert names == {"evaluation.json", "bleu.png", *(f"attention-{k}.png" for k in (1, 2, 3))}
    figures = json.loads((tmp_path / "figures" / "evaluation.json").read_text())["figures"]
    assert figures["run"]["bleu"] > figures["without"]["bleu"]
    assert figures["run"]["bleu_sentences"] == 30


def test_bleu_by_length() -> None:
    source = ["a b c d", "a b c d e f g h i", " ".join("x" * 21)]
    truth = ["one two three four", "five six seven eight nine", "ten eleven twelve more"]
    said = [truth[0], truth[1], "nothing of this kind"]
    scores = bleu_scores(source * 5, said * 5, truth * 5)
    assert scores["bleu_1_to_8_words"] == scores["bleu_9_to_12_words"] == pytest.approx(100)
    assert scores["bleu_over_20_words"] < 20
    assert scores["bleu"] == bleu(said * 5, truth * 5)
    assert scores["bleu_1_to_8_words_interval"] == 0 < scores["bleu_interval"] < 50
    assert scores["bleu_sentences"] == 15
    assert "bleu_13_to_16_words" not in scores


@pytest.mark.parametrize("subwords", ["", "AAAA", "not base64", 3, None])
def test_damaged_subwords_are_refused(trained: Path, tmp_path: Path, subwords: object) -> None:
    import shutil

    copy = shutil.copytree(trained, tmp_path / "copy")
    for file in copy.glob("checkpoints/*/record.json"):
        record = json.loads(file.read_text())
        record["model"]["subwords"] = subwords
        file.write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match="cannot be used"):
        load(copy)


def test_a_stopped_and_resumed_run_is_the_unbroken_one(data: Path, tmp_path: Path) -> None:
    options, how = replace(SMALL, own=0.5), Settings(steps=8, batch=16, evaluations=2)
    whole, resumed = whole_and_resumed(tmp_path, "translate", Source(data), options, how, stop=5)
    assert whole == resumed


def test_without_a_held_out_file_some_pairs_are(data: Path) -> None:
    task = TranslateTask.begin(Source(data / "train.xx.gz"), SMALL, Settings(steps=1))
    assert len(task.held_out) == 10
    assert "190 pairs to learn from, 10 held out" in task.about()


def test_subwords_give_the_text_back(data: Path) -> None:
    lines = [" ".join(NUMBERS), " ".join(WORDS), "null null eins"]
    made = Subwords.build(lines * 20, 40)
    again = Subwords.from_json(json.loads(json.dumps(made.to_json())))
    for line in lines:
        assert again.decode(made.encode(line)) == line
        assert not {PAD, BEGIN, END} & set(made.encode(line))


def test_pairs(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("eins\tone\n\t\nzwei\ttwo\n")
    assert read_pairs(tmp_path / "a.tsv", "xx", "yy") == [("eins", "one"), ("zwei", "two")]
    (tmp_path / "a.xx").write_text("eins\nzwei\n")
    (tmp_path / "a.yy").write_text("one\ntwo\n")
    assert read_pairs(tmp_path / "a.xx", "xx", "yy") == [("eins", "one"), ("zwei", "two")]
    (tmp_path / "a.xx").write_text("ei\u2028ns\r\nzwei\x0c\x85\n")  # one line each
    assert read_pairs(tmp_path / "a.xx", "xx", "yy")[1][1] == "two"
    (tmp_path / "a.xx").write_text("eins\nzwei\n")
    (tmp_path / "a.yy").write_text("one\n")
    with pytest.raises(ValueError, match=r"has 2 lines, a\.yy has 1: not in parallel"):
        read_pairs(tmp_path / "a.xx", "xx", "yy")
    with pytest.raises(ValueError, match=r"must end in \.zz"):
        read_pairs(tmp_path / "a.xx", "zz", "yy")
    (tmp_path / "b.tsv").write_text("one\ttwo\tthree\n")
    with pytest.raises(ValueError, match="line 1: expected 2 columns, got 3"):
        read_pairs(tmp_path / "b.tsv", "xx", "yy")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attention": "hard"}, "attention must be one of additive, multiplicative, none"),
        ({"own": 1.0}, "own must be at least 0 and below 1"),
        ({"beams": 0}, "beams must be between 1 and 1000, got 0"),
        ({"hidden_size": -1}, "hidden_size must be between 1 and"),
    ],
)
def test_options_that_cannot_be(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TranslateOptions(**{**asdict(SMALL), **change})
