"""Classifiers: padding changes nothing, classes are found, sounds read as they are."""

from __future__ import annotations

import json
import math
import tarfile
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gatewise.cli import main
from gatewise.cli import run as cli_run
from gatewise.models import CheckpointError, Settings, Source, load, runs
from gatewise.models.classifier import ClassifierConfig, SequenceClassifier, padded
from gatewise.models.classify_task import (
    ClassifyOptions,
    ClassifyPredictor,
    ClassifyTask,
    SpeechOptions,
    SpeechTask,
    warped,
)
from gatewise.models.examples import SoundReader, TextReader
from gatewise.models.kinds import guess_kind
from gatewise.models.sounds import LogMel, read_sounds

FSDD = Path(__file__).resolve().parents[2] / "shared" / "data" / "fsdd" / "recordings.tar.gz"
SETTINGS = Settings(steps=60, batch=16, learning_rate=1e-2, evaluations=2, patience=9)


def tone(pitch: float, seconds: float, rate: int = 8000) -> np.ndarray[Any, Any]:
    return 0.5 * np.sin(2 * math.pi * pitch * np.arange(int(seconds * rate)) / rate)


def write_wav(path: Path, samples: np.ndarray[Any, Any], rate: int = 8000, width: int = 2) -> None:
    path.parent.mkdir(exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(width)
        file.setframerate(rate)
        if width == 1:
            file.writeframes((128 + 127 * samples).astype(np.uint8).tobytes())
        else:
            kind = {2: "<i2", 4: "<i4"}[width]
            file.writeframes((samples * ((1 << (8 * width - 1)) - 1)).astype(kind).tobytes())


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rising and falling pairs of tones: what tells them apart is their order."""
    folder = tmp_path_factory.mktemp("tones")
    random = np.random.default_rng(0)
    for k in range(80):
        low, high, seconds = random.uniform(300, 500), random.uniform(1000, 2000), 0.1
        pair = (low, high) if k % 2 else (high, low)
        parts = [tone(p, random.uniform(0.7, 1.3) * seconds) for p in pair]
        name = f"{'rising' if k % 2 else 'falling'}_{k}.wav"
        write_wav(folder / name, np.concatenate(parts))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tones: Path) -> Path:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("run") / "out"
    options = SpeechOptions(leave_out=r"_\d?[0-4]\.wav", hidden_size=8, num_layers=1, dropout=0.0)
    run = runs.begin(out, "speech", Source(tones), options, SETTINGS)
    for _ in run.trainer.run():
        pass
    assert [p.name for p in runs.picture(run)] == ["learning_curve.png", "confusion.png"]
    return out


def test_the_order_of_tones_is_learned(trained: Path, tones: Path) -> None:
    predictor = load(trained).predictor
    assert isinstance(predictor, ClassifyPredictor)
    assert predictor.classes == ("falling", "rising")
    assert predictor.evaluate(tones)["accuracy"] > 0.9  # of the 40 that training left out


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.booleans())
def test_padding_and_neighbours_change_nothing(lengths: Sequence[int], tokens: bool) -> None:
    torch.manual_seed(0)
    config = ClassifierConfig(5, 3, tokens=tokens, hidden_size=4, embedding_size=3)
    model = SequenceClassifier(config, executor="reference").eval()
    sequences = [torch.randint(5, (n,)) if tokens else torch.randn(n, 5) for n in lengths]
    together = model(*padded(sequences))
    for row, sequence in zip(together, sequences, strict=True):
        alone = model(sequence.unsqueeze(1), torch.tensor([len(sequence)]))[0]
        assert torch.allclose(row, alone, atol=1e-6)
    x, n = padded(sequences)
    junk = torch.cat([x, torch.full_like(x[:2], 4)])
    for k, length in enumerate(lengths):
        junk[length:, k] = 4
    assert torch.allclose(model(junk, n), together, atol=1e-6)


def test_the_scale_is_that_of_the_training_data() -> None:
    model = SequenceClassifier(ClassifierConfig(2, 2))
    model.fit_scale([torch.tensor([[1.0, 5.0]]), torch.tensor([[3.0, 5.0], [5.0, 5.0]])])
    assert model.mean.tolist() == [3.0, 5.0]
    assert model.std.tolist() == pytest.approx([math.sqrt(8 / 3), 1.0]), "a constant keeps 1"


def test_log_mel_hears_pitch_and_loudness() -> None:
    features = LogMel(8000, 40)
    bands = [features(torch.from_numpy(tone(p, 0.5)).float())[25] for p in (300, 1000, 3000)]
    peaks = [int(b.argmax()) for b in bands]
    # The bands' centres by the formula, independently of the triangles.
    mel = np.linspace(0, 2595 * np.log10(1 + 4000 / 700), 42)[1:-1]
    centres = 700 * (10 ** (mel / 2595) - 1)
    assert peaks == [int(np.abs(centres - p).argmin()) for p in (300, 1000, 3000)]
    loud, soft = (features(g * torch.from_numpy(tone(1000, 0.5)).float()) for g in (1.0, 0.1))
    assert float((loud - soft)[25].max()) == pytest.approx(math.log(100), rel=1e-3)
    silence = features(torch.zeros(800))
    assert silence.unique().tolist() == pytest.approx([math.log(1e-6)])


def test_a_frame_hears_what_is_around_its_time() -> None:
    features = LogMel(8000, 40)
    click = torch.zeros(4001)
    click[2000] = 0.5  # at 25 hops
    loudness = features(click).mean(1)
    assert int(loudness.argmax()) == 25
    assert loudness[24] == pytest.approx(float(loudness[26]), abs=1e-4), "the same on both sides"
    quiet = math.log(1e-6)
    assert all(features(torch.full((n,), 0.9)).amax() > quiet + 5 for n in (1, 60, 79, 400))
    assert float(features(torch.full((4000,), 0.9))[[0, -1]].amin(1).max()) > quiet + 1


def test_centred_sounds_are_the_same_at_every_loudness(tmp_path: Path) -> None:
    noise = 0.3 * np.random.default_rng(0).uniform(-1, 1, 4000)
    for name, gain in (("loud", 1.0), ("soft", 0.3)):
        write_wav(tmp_path / f"{name}.wav", gain * noise, width=4)
    loud, soft = (e.input for e in SoundReader().read(tmp_path))
    assert float((loud - soft).abs().max()) < 0.01
    assert float(loud.mean(0).abs().max()) < 1e-5
    loud, soft = (e.input for e in SoundReader(centred=False).read(tmp_path))
    assert float((loud - soft)[2:-2].min()) == pytest.approx(-2 * math.log(0.3), rel=1e-2)
    with pytest.raises(TypeError, match="centred must be true or false, got 1"):
        SoundReader(centred=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("width", [1, 2, 4])
def test_every_width_of_sample(tmp_path: Path, width: int) -> None:
    samples = tone(440, 0.05)
    write_wav(tmp_path / "a.wav", samples, width=width)
    [(name, read)] = read_sounds(tmp_path, 8000)
    assert name == "a.wav"
    assert np.abs(read.numpy() - samples).max() < (1 / 60 if width == 1 else 1e-4)


def test_an_archive_reads_as_its_folder(tmp_path: Path, tones: Path) -> None:
    archive = tmp_path / "tones.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        for path in sorted(tones.iterdir(), reverse=True)[:5]:
            file.add(path, path.name)
    found = dict(read_sounds(archive, 8000))
    folder = dict(read_sounds(tones, 8000))
    assert list(found) == sorted(found)
    assert len(found) == 5
    assert all(torch.equal(found[n], folder[n]) for n in found)


def test_links_in_an_archive_are_sounds_too(tmp_path: Path) -> None:
    folder = tmp_path / "sounds"
    folder.mkdir()
    write_wav(folder / "a.wav", tone(440, 0.05))
    (folder / "b.wav").hardlink_to(folder / "a.wav")
    (folder / "c.wav").symlink_to("a.wav")
    archive = tmp_path / "sounds.tar"
    with tarfile.open(archive, "w") as file:
        for name in ("a.wav", "b.wav", "c.wav"):
            file.add(folder / name, name)
    assert [n for n, _ in read_sounds(archive, 8000)] == ["a.wav", "b.wav", "c.wav"]
    with tarfile.open(archive, "w") as file:
        file.add(folder / "c.wav", "c.wav")
    with pytest.raises(ValueError, match="damaged"):
        list(read_sounds(archive, 8000))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: too_long(p / "a.wav"), "a.wav is no WAV file"),
        (lambda p: (p / "a.wav").write_bytes(b"RIFF no wave"), "a.wav is no WAV file"),
        (lambda p: write_wav(p / "a.wav", tone(9, 0.1), rate=16000), "16000 samples a second"),
        (lambda p: (p / "a.txt").write_text("x"), "holds no WAV file"),
        (lambda p: cut_short(p / "a.wav"), "a.wav is cut short: 178 samples of 800"),
    ],
)
def test_damaged_sounds(tmp_path: Path, make: Any, message: str) -> None:
    make(tmp_path)
    with pytest.raises(ValueError, match=message):
        list(read_sounds(tmp_path, 8000))


def too_long(path: Path) -> None:
    """A chunk before the samples that says it reaches beyond the file."""
    write_wav(path, tone(500, 0.1))
    raw = path.read_bytes()
    path.write_bytes(raw[:36] + b"LIST" + (1 << 20).to_bytes(4, "little") + raw[36:])


def cut_short(path: Path) -> None:
    write_wav(path, tone(500, 0.1))
    path.write_bytes(path.read_bytes()[:400])


@pytest.mark.parametrize("compression", ["", "gz", "bz2", "xz"])
def test_a_damaged_archive_is_not_read_in_part(
    tmp_path: Path, tones: Path, compression: str
) -> None:
    archive = tmp_path / f"tones.tar.{compression}"
    mode: Any = f"w:{compression}"
    with tarfile.open(archive, mode, format=tarfile.USTAR_FORMAT) as file:
        for path in sorted(tones.iterdir())[:20]:
            file.add(path, path.name)
    assert len(list(read_sounds(archive, 8000))) == 20
    whole = archive.read_bytes()
    if compression:
        ends = range(99, len(whole) - 60, 9999)
        places = [whole[:k] + bytes(50) + whole[k + 50 :] for k in ends]
    else:  # only headers can be checked: the 3rd file's, and an end in the midst of one
        sizes = [p.stat().st_size for p in sorted(tones.iterdir())[:2]]
        third = sum(512 + 512 * -(-size // 512) for size in sizes)
        places = [whole[:third] + b"x" * 512 + whole[third + 512 :], whole[: third + 900]]
    for damaged in places:
        archive.write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged"):
            list(read_sounds(archive, 8000))


def test_the_suffix_of_a_sound_may_be_large(tmp_path: Path) -> None:
    write_wav(tmp_path / "yes_1.WAV", tone(500, 0.1))
    write_wav(tmp_path / "no_1.wav", tone(500, 0.1))
    assert [n for n, _ in read_sounds(tmp_path, 8000)] == ["no_1.wav", "yes_1.WAV"]
    (tmp_path / "no_1.wav").unlink()
    assert guess_kind(tmp_path) == "speech"


def test_every_speaker_is_left_out_in_turn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for k in range(24):
        name = f"{'high' if k % 2 else 'low'}_{('ann', 'bob', 'cem')[k % 3]}_{k}.wav"
        write_wav(tmp_path / "sounds" / name, tone(2000 if k % 2 else 300, 0.1 + 0.01 * k))
    out = tmp_path / "out"
    command = ["train", str(tmp_path / "sounds"), "--task", "speech", "--out", str(out)]
    command += ["--hidden", "4", "--layers", "1", "--steps", "12", "--lr", "0.03", "--set"]
    command += ["held_out=0.3", "--json"]
    run([*command, "--folds", "_[a-z]+_"])
    told = json.loads(capsys.readouterr().out)
    assert list(told["parts"]) == ["ann", "bob", "cem"]
    assert told["summary"]["accuracy"]["mean"] > 0.8
    predictor = load(out / "bob").predictor
    assert isinstance(predictor, ClassifyPredictor)
    assert predictor.leave_out == "_bob_"


def test_labels_by_folder_and_by_pattern(tmp_path: Path) -> None:
    for folder in ("yes", "no"):
        (tmp_path / folder).mkdir()
        for k in range(3):
            write_wav(tmp_path / folder / f"{k}_ann.wav", tone(500, 0.1))
    labels = [e.label for e in SpeechOptions().reader(tmp_path).read(tmp_path)]
    assert labels == ["no"] * 3 + ["yes"] * 3
    by_name = SpeechOptions(label=r"_(\w+)\.wav").reader(tmp_path).read(tmp_path)
    assert {e.label for e in by_name} == {"ann"}
    # What training settled is kept: a folder of one label, or one of its files, reads the same.
    reader = SpeechOptions().reader(tmp_path)
    again = SoundReader.from_json(reader.to_json())
    for part in (tmp_path / "yes", tmp_path / "yes" / "0_ann.wav"):
        assert {e.label for e in again.read(part)} == {"yes"}
    by_prefix = SpeechOptions().reader(tmp_path / "yes")
    assert [e.label for e in by_prefix.read(tmp_path)] == ["0", "1", "2"] * 2
    write_wav(tmp_path / "yes" / "plain.wav", tone(500, 0.1))
    assert [e.label for e in by_prefix.read(tmp_path / "yes")][-1] is None
    with pytest.raises(ValueError, match="must have one group"):
        SpeechOptions(label="x").reader(tmp_path)


def test_warping_keeps_the_bands_and_stretches_time() -> None:
    torch.manual_seed(0)
    x = torch.arange(40.0)[None, :].expand(50, 40)  # a ramp over the bands
    steps = [warped(x, 0.2) for _ in range(20)]
    assert all(y.shape[1] == 40 for y in steps)
    assert all(40 <= len(y) <= 60 for y in steps)
    assert len({len(y) for y in steps}) > 5
    assert torch.equal(warped(x, 0.0), x)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts in two made-up languages."""
    file = tmp_path_factory.mktemp("rows") / "texts.jsonl"
    random = np.random.default_rng(1)
    words = {"north": ["kar", "tak", "ark"], "south": ["olo", "lulu", "ulo"]}
    lines = []
    for k in range(120):
        label = ["north", "south"][k % 2]
        text = " ".join(random.choice(words[label]) for _ in range(random.integers(1, 6)))
        lines.append(json.dumps({"text": text, "label": label}))
    file.write_text("\n".join(lines))
    return file


def test_texts_by_the_command_line(
    tmp_path: Path, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["train", str(rows), "--out", str(out), "--steps", "40", "--hidden", "8"]
    run([*command, "--layers", "1", "--lr", "0.01", "--set", "embedding_size=8", "--json"])
    summary = json.loads(capsys.readouterr().out)
    assert summary["task"] == "classify"
    assert summary["held_out_accuracy"] > 0.9
    run(["predict", str(out), str(rows), "--json"])
    guesses = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [g["label"] for g in guesses[:4]] == ["north", "south"] * 2
    assert all(0.5 <= g["probability"] <= 1 for g in guesses)


def test_what_is_left_out_gives_no_token(tmp_path: Path) -> None:
    rows = [{"text": "ab" if k % 2 else "ba", "label": str(k % 2)} for k in range(40)]
    rows[7]["text"] = "xyz"
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    task = ClassifyTask.begin(
        Source(path), ClassifyOptions(leave_out="^line 8$"), Settings(steps=2)
    )
    reader = task.predictor.reader
    assert isinstance(reader, TextReader)
    assert {"a", "b"} <= set(reader.vocabulary.tokens) and not set("xyz") & set(
        reader.vocabulary.tokens
    )
    assert [e.input.tolist() for e in task.parts["left_out"]] == [[0, 0, 0]]


def test_half_an_emoji_is_saved(tmp_path: Path) -> None:
    rows = [{"text": f"ab\ud83d{k}", "label": str(k % 2)} for k in range(40)]
    path, out = tmp_path / "rows.jsonl", tmp_path / "out"
    path.write_text("\n".join(map(json.dumps, rows)))
    run(["train", str(path), "--out", str(out), "--steps", "2", "--hidden", "4", "--layers", "1"])
    run(["predict", str(out), str(path)])


def run(words: list[str]) -> None:
    import sys
    from unittest.mock import patch

    with patch.object(sys, "argv", ["gatewise", *words]), pytest.raises(SystemExit) as end:
        main()
    assert end.value.code in (0, None)


def test_numbers_by_step(tmp_path: Path) -> None:
    file = tmp_path / "numbers.jsonl"
    rows = [{"values": [[k, 1.0], [2.0, k]], "label": k % 2} for k in range(30)]
    file.write_text("\n".join(map(json.dumps, rows)))
    options = ClassifyOptions(hidden_size=4, num_layers=1)
    task = ClassifyTask.begin(Source(file), options, Settings(steps=1, batch=8))
    assert task.predictor.classes == ("0", "1")
    assert task.model.config.inputs == 2
    assert task.loss(0, 0).count == 8


def test_labels_that_say_nothing(tmp_path: Path, rows: Path) -> None:
    """No figure is given of a model on data without answers, or with answers of another kind."""
    out = tmp_path / "out"
    run(["train", str(rows), "--task", "classify", "--steps", "2", "--out", str(out)])
    predictor = load(out).predictor
    data = tmp_path / "data.jsonl"
    for lines, message in (
        ([{"text": "abc"}], "line 1 has no label"),
        ([{"text": "abc", "label": ""}], "line 1 has no label"),
        ([{"text": "abc", "label": "x"}] * 2, "has no label that the model knows: it has x, the"),
    ):
        data.write_text("\n".join(map(json.dumps, lines)))
        with pytest.raises(ValueError, match=message):
            predictor.evaluate(data)
    held = ["--held-out", str(data), "--task", "classify", "--out", str(tmp_path / "other")]
    assert cli_run(["train", str(rows), *held]) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "line 1 is not JSON"),
        ('{"text": "a"}\n' * 30, "line 1 has no label"),
        ('{"label": "a"}', "neither 'text' nor 'values'"),
        ('{"text": "a", "label": 1}\n' * 30, "one class only: 1"),
        ('{"values": [1, "x"], "label": 1}', "'values' must be numbers"),
        ('{"values": [1, NaN], "label": 1}', "must be finite numbers by step"),
    ],
)
def test_damaged_rows(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        ClassifyTask.begin(Source(file), ClassifyOptions(), Settings(steps=1))


def test_another_cells_or_readers_record_is_refused(trained: Path, tmp_path: Path) -> None:
    import shutil

    out = tmp_path / "copy"
    shutil.copytree(trained, out)
    for file in (out / "checkpoints").glob("*/record.json"):
        record = json.loads(file.read_text())
        record["model"]["reader"]["bands"] = 39
        file.write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match="the reader do not fit the model"):
        load(out)


@pytest.mark.skipif(not FSDD.is_file(), reason=f"needs {FSDD}")
def test_spoken_digits_are_split_as_published() -> None:
    options = SpeechOptions(leave_out=r"_[0-4]\.wav$", hidden_size=4, num_layers=1)
    task = SpeechTask.begin(Source(FSDD), options, Settings(steps=1))
    sizes = {name: len(part) for name, part in task.parts.items()}
    assert sizes["left_out"] == 300
    assert sum(sizes.values()) == 3000
    assert task.predictor.classes == tuple("0123456789")
