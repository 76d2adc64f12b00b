"""Training: it learns, stops, saves; resumed it gives the numbers of an unbroken run."""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gatewise.cells import get_cell
from gatewise.models import (
    CheckpointError,
    LanguageOptions,
    Settings,
    Source,
    TrainingError,
    load_checkpoint,
    load_language_model,
    runs,
)
from gatewise.models.language_task import LanguageTask

SMALL = LanguageOptions(embedding_size=8, hidden_size=12, num_layers=2, dropout=0.2, chunk=16)
SETTINGS = Settings(steps=24, batch=4, evaluations=4, warmup=5)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("text") / "numbers.txt"
    # Short enough that the run passes its end: the border between two passes is resumed over.
    file.write_text("".join(f"{k} and {k + 1} make {2 * k + 1}\n" for k in range(60)))
    return file


def begin(
    out: Path, text: Path, settings: Settings = SETTINGS, options: LanguageOptions = SMALL
) -> runs.Run:
    return runs.begin(out, "lm", Source(text), options, settings, executor="reference")


def task(run: runs.Run) -> LanguageTask:
    assert isinstance(run.task, LanguageTask)
    return run.task


def finish(run: runs.Run, steps: int | None = None) -> runs.Run:
    """Train to the end, or stop as a signal would once `steps` are done."""
    for progress in run.trainer.run():
        if progress.step == steps:
            run.trainer.stop()
    return run


def assert_same(a: Path, b: Path) -> None:
    """Both runs ended in the same numbers, to the bit."""
    one, two = load_checkpoint(a), load_checkpoint(b)
    assert one.tensors.keys() == two.tensors.keys()
    for name, tensor in one.tensors.items():
        assert torch.equal(tensor, two.tensors[name]), name

    def timeless(history: list[dict[str, float]]) -> list[dict[str, float]]:
        return [{k: v for k, v in h.items() if k != "seconds"} for h in history]

    assert timeless(one.record["history"]) == timeless(two.record["history"])
    keep = ("step", "epoch", "batch", "best", "best_step", "stale", "loss_sum", "finished")
    for name in keep:
        assert one.record["progress"][name] == two.record["progress"][name], name


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, text: Path) -> Path:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("unbroken") / "run"
    finish(begin(out, text))
    return out


def test_it_learns(unbroken: Path) -> None:
    history = load_checkpoint(unbroken).record["history"]
    assert [h["step"] for h in history] == [6, 12, 18, 24]
    bits = [h["held_out_bits_per_character"] for h in history]
    assert bits[-1] < bits[0] < math.log2(30)  # uniform over the text's symbols is a bit less


@pytest.mark.parametrize("step", [1, 5, 6, 15, 23])
def test_a_stopped_and_resumed_run_is_the_unbroken_one(
    tmp_path: Path, text: Path, unbroken: Path, step: int
) -> None:
    out = tmp_path / "run"
    stopped = finish(begin(out, text), step)
    assert stopped.trainer.progress.step == step
    torch.manual_seed(99)  # whatever else this process draws must not matter
    finish(runs.resume(out, executor="reference"))
    assert_same(out, unbroken)


def test_with_scheduled_sampling_too(tmp_path: Path, text: Path) -> None:
    options = replace(SMALL, own=0.5)
    finish(begin(tmp_path / "whole", text, options=options))
    finish(begin(tmp_path / "broken", text, options=options), 15)
    finish(runs.resume(tmp_path / "broken", executor="reference"))
    assert_same(tmp_path / "whole", tmp_path / "broken")


def test_with_all_that_regularises_too(tmp_path: Path, text: Path) -> None:
    """Awd: every kind of dropout, penalties, chunks of drawn lengths, averaging, tied sizes."""
    options = LanguageOptions(
        embedding_size=8, hidden_size=12, num_layers=2, tied=True, input_dropout=0.3,
        hidden_dropout=0.2, output_dropout=0.3, weight_dropout=0.3, embedding_dropout=0.1,
        ar=2.0, tar=1.0, chunk=16, chunk_spread=3.0,
    )  # fmt: skip
    how = replace(AVERAGED, steps=30)
    finish(begin(tmp_path / "whole", text, how, options))
    finish(begin(tmp_path / "broken", text, how, options), 17)
    finish(runs.resume(tmp_path / "broken", executor="reference"))
    assert load_checkpoint(tmp_path / "whole").record["progress"]["averaging"]
    assert_same(tmp_path / "whole", tmp_path / "broken")


# A rate so large that the held-out figure soon gets worse.
AVERAGED = Settings(
    steps=40, batch=4, optimizer="sgd", learning_rate=30.0, decay=1.0, warmup=0,
    evaluations=20, patience=20, average=1,
)  # fmt: skip


def test_averaged_weights_are_the_mean_and_resume(tmp_path: Path, text: Path) -> None:
    how = AVERAGED
    run = begin(tmp_path / "whole", text, how)
    sums: dict[str, torch.Tensor] = {}
    count, began = 0, False
    for p in run.trainer.run():
        if began:
            count += 1
            for name, parameter in run.task.model.named_parameters():
                sums[name] = sums.get(name, torch.zeros(())) + parameter.detach().double()
        began = p.averaging
    assert count > 3
    saved = load_checkpoint(tmp_path / "whole").tensors
    for name, total in sums.items():
        mean = saved[f"model.{name}"].double()
        torch.testing.assert_close(mean, total / count, rtol=1e-4, atol=1e-5)  # float32 sums
        assert torch.equal(saved[f"own.{name}"], run.task.model.get_parameter(name))
    model, _, _ = load_language_model(tmp_path / "whole", "latest", executor="reference")
    assert torch.equal(model.head.weight, saved["model.head.weight"])

    finish(begin(tmp_path / "broken", text, how), 40 - count // 2)
    finish(runs.resume(tmp_path / "broken", executor="reference"))
    assert_same(tmp_path / "whole", tmp_path / "broken")


def test_a_folder_copied_at_any_moment_resumes(
    tmp_path: Path, text: Path, unbroken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a kill leaves behind: the folder between any two changes of the file system."""
    out, copies = tmp_path / "run", []

    def copying(function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            copies.append(tmp_path / f"copy{len(copies)}")
            shutil.copytree(out, copies[-1], dirs_exist_ok=True)
            return function(*args, **kwargs)

        return call

    for name in ("rename", "replace"):
        monkeypatch.setattr(f"gatewise.models.checkpoint.os.{name}", copying(getattr(os, name)))
    finish(begin(out, text))
    monkeypatch.undo()
    assert len(copies) == 2 * 5
    for copy in copies[3::3]:
        assert runs.can_resume(copy)
        finish(runs.resume(copy, executor="reference"))
        assert_same(copy, unbroken)
        assert not list(copy.glob("checkpoints/*.tmp"))


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "gatewise", "train", *map(str, args)]


def spawn(out: Path, text: Path, *more: object) -> subprocess.Popen[str]:
    options = ["--out", out, "--threads", 1, "--json", *more]
    return subprocess.Popen(
        command(text, *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


LONG = (
    "--hidden",
    12,
    "--embedding",
    8,
    "--batch",
    4,
    "--seq",
    16,
    "--steps",
    120,
    "--evaluations",
    12,
)


def wait_for(out: Path, step: int, process: subprocess.Popen[str]) -> None:
    """Until a checkpoint of at least `step` is in force, at most a minute."""
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        if runs.can_resume(out) and load_checkpoint(out).record["progress"]["step"] >= step:
            return
        time.sleep(0.01)
    pytest.fail(f"no checkpoint of step {step}: {process.communicate()}")


def test_killed_and_interrupted_runs_resume_to_the_same_numbers(tmp_path: Path, text: Path) -> None:
    whole = spawn(tmp_path / "whole", text, *LONG)
    out = tmp_path / "broken"
    process = spawn(out, text, *LONG)
    wait_for(out, 20, process)
    process.kill()  # SIGKILL: nothing can be saved now
    process.communicate()
    assert load_checkpoint(out).record["progress"]["step"] < 120

    process = spawn(out, text, "--resume")
    wait_for(out, 40, process)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "stopped and saved at step" in told
    assert not load_checkpoint(out).record["progress"]["finished"]

    process = spawn(out, text, "--resume")
    result, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    expected, _ = whole.communicate(timeout=60)
    assert whole.returncode == 0
    key = "held_out_bits_per_character"
    assert json.loads(result)[key] == json.loads(expected)[key]
    assert_same(out, tmp_path / "whole")


def test_a_restarted_finished_run_changes_nothing(tmp_path: Path, unbroken: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(unbroken, copy)
    run = finish(runs.resume(copy, executor="reference"))
    assert run.trainer.progress.step == 24
    assert_same(copy, unbroken)


def test_the_last_two_checkpoints_and_the_best_stay(unbroken: Path) -> None:
    names = sorted(p.name for p in (unbroken / "checkpoints").iterdir())
    assert names == ["pointers.json", "step-000000018", "step-000000024"]


def test_before_anything_is_evaluated_the_newest_weights_are_the_best(
    tmp_path: Path, text: Path
) -> None:
    finish(begin(tmp_path / "run", text), 4)
    assert load_checkpoint(tmp_path / "run", "best").record["progress"]["step"] == 4
    finish(runs.resume(tmp_path / "run", executor="reference"), 8)
    assert load_checkpoint(tmp_path / "run", "best").record["progress"]["step"] == 6


def test_it_stops_early_without_progress(tmp_path: Path, text: Path) -> None:
    settings = Settings(
        steps=400,
        batch=4,
        learning_rate=1e-12,
        evaluations=100,
        patience=3,
        weight_decay=0.0,
    )
    run = begin(tmp_path / "run", text, settings)
    # So small a rate leaves every float32 weight as it was: no evaluation beats the first.
    finish(run)
    assert run.trainer.progress.finished
    assert run.trainer.progress.step == 4 * (1 + 3)
    assert run.trainer.progress.best_step == 4


def test_minutes_become_steps_once_and_are_kept(tmp_path: Path, text: Path) -> None:
    settings = Settings(minutes=0.02, batch=4, evaluations=3)
    run = begin(tmp_path / "run", text, settings)
    for p in run.trainer.run():
        if p.step == 25:
            run.trainer.stop()
    total = run.trainer.progress.total
    assert total is not None
    assert total > 25
    again = runs.resume(tmp_path / "run", executor="reference")
    assert again.trainer.progress.total == total


def test_the_schedule_warms_up_and_falls() -> None:
    s = Settings(steps=1000, warmup=100, learning_rate=1.0)
    rates = [s.learning_rate_at(k, 1000) for k in range(1000)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[99] == max(rates) == 1.0
    assert all(a >= b for a, b in itertools.pairwise(rates[99:]))
    assert rates[-1] == pytest.approx(0.02, abs=1e-4)


def test_words_are_scored_per_character_too(tmp_path: Path, text: Path) -> None:
    run = begin(tmp_path / "run", text, options=replace(SMALL, level="word"))
    finish(run)
    score, held = run.task.score(), task(run).held_out
    nats = math.log(score["perplexity"]) * (len(held.ids) - 1)
    bits = nats / math.log(2) + held.spelled_bits
    assert score["bits_per_character"] == pytest.approx(bits / held.characters)
    assert len(held.ids) < held.characters


def test_held_out_bits_are_the_mean_over_every_character(unbroken: Path) -> None:
    """One stream, one character at a time, counted by hand."""
    run = runs.resume(unbroken, executor="reference")
    ids = task(run).vocabulary.encode(task(run).corpus.held_out)
    run.task.model.eval()
    with torch.no_grad():
        logits, _ = run.task.model(ids[:-1].unsqueeze(1))
        log_p = logits[:, 0].log_softmax(-1).gather(1, ids[1:, None])
    by_hand = -log_p.mean().item() / math.log(2)
    # A text this short is read as one stream too; float32 sums differ in their order.
    assert run.task.score()["bits_per_character"] == pytest.approx(by_hand, rel=1e-5)


def test_a_held_out_figure_that_explodes_is_one_line(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(tmp_path / "run", text)
    real = run.task.score
    monkeypatch.setattr(run.task, "score", lambda: real() | {"bits_per_character": math.inf})
    with pytest.raises(TrainingError, match="held-out figure is not finite at step"):
        finish(run)
    assert not run.trainer.history, "it is nobody's best"


def test_a_loss_that_explodes_is_one_line(tmp_path: Path, text: Path) -> None:
    run = begin(tmp_path / "run", text)
    with torch.no_grad():
        task(run).model.head.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="not finite at step 0: lower the learning rate"):
        finish(run)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give one of steps, epochs and minutes, got none"),
        ({"steps": 3, "minutes": 1.0}, "got steps and minutes"),
        ({"steps": 0}, "steps must be positive, got 0"),
        ({"steps": 1, "learning_rate": math.nan}, "learning_rate must be positive, got nan"),
        ({"steps": 1, "optimizer": "lion"}, "optimizer must be one of adamw, sgd, got 'lion'"),
        ({"steps": 1, "decay": 0.0}, r"decay must be positive, got 0\.0"),
    ],
)
def test_settings_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**options)


@pytest.fixture
def copy(tmp_path: Path, unbroken: Path) -> Path:
    return shutil.copytree(unbroken, tmp_path / "copy")


def latest(run: Path) -> Path:
    return run / "checkpoints" / "step-000000024"


def test_a_moved_text_is_remembered(copy: Path, tmp_path: Path, text: Path) -> None:
    moved = tmp_path / "elsewhere" / text.name
    moved.parent.mkdir()
    shutil.copy(text, moved)
    run = runs.resume(copy, moved)
    assert run.trainer.origin["path"] == str(moved.resolve())
    assert run.trainer.origin.keys() >= load_checkpoint(copy).record["origin"].keys()
    run = runs.resume(copy, moved, test=moved)
    assert run.trainer.origin["test"] == str(moved.resolve())


def test_another_text_is_refused(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("something else " * 40)
    with pytest.raises(CheckpointError, match="the data is not what"):
        runs.resume(copy, tmp_path / "other.txt")


def test_a_flipped_bit_is_noticed(copy: Path) -> None:
    file = latest(copy) / "tensors.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-5] ^= 1
    file.write_bytes(raw)
    with pytest.raises(CheckpointError, match="does not match its hash"):
        load_language_model(copy)


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff", b"[" * 100_000])
@pytest.mark.parametrize("name", ["record.json", "../pointers.json", "tensors.safetensors"])
def test_damaged_files_are_one_line(copy: Path, name: str, content: bytes) -> None:
    (latest(copy) / name).write_bytes(content)
    with pytest.raises(CheckpointError) as error:
        load_language_model(copy)
    assert "damaged" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("model", "config", "hidden_size"), 10**6),  # would ask for terabytes
        (("model", "config", "num_layers"), 10**9),
        (("model", "config", "cell"), "evil.py:Cell"),
        (("model", "vocabulary", "tokens"), ["a"]),
        (("model",), 3),
        (("kind",), "os:system"),
        (("format",), 99),
    ],
)
def test_hostile_records_are_refused(copy: Path, place: tuple[str, ...], value: Any) -> None:
    file = latest(copy) / "record.json"
    record = json.loads(file.read_text())
    inner = record
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    file.write_text(json.dumps(record))
    with pytest.raises(CheckpointError):
        load_language_model(copy)


def test_a_pointer_cannot_leave_the_folder(copy: Path) -> None:
    pointers = copy / "checkpoints" / "pointers.json"
    pointers.write_text(json.dumps({"latest": "../../elsewhere", "best": "step-000000024"}))
    with pytest.raises(CheckpointError, match=r"damaged: latest is '../../elsewhere'"):
        load_language_model(copy)


def test_a_restarted_stream_begins_with_an_empty_state(tmp_path: Path, text: Path) -> None:
    run = begin(tmp_path / "run", text, options=replace(SMALL, restart=0.5))
    state = (torch.ones(2, 4, 12), torch.ones(2, 4, 12))
    seen = [task(run).begun(state) for _ in range(50)]
    for h, c in seen:
        assert torch.equal(h, c)  # a stream restarts as a whole
        assert torch.equal(h.amax((0, 2)), h.amin((0, 2)))
    assert {float(h[0, 0, 0]) for h, _ in seen} == {0.0, 1.0}
    assert task(run).begun(None) is None


def test_a_checkpoint_is_not_read_with_a_cell_of_the_same_shapes(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("abcdefgh " * 200)
    out = tmp_path / "out"
    finish(begin(out, text, Settings(steps=1), LanguageOptions(hidden_size=4, embedding_size=4)))
    with pytest.raises(CheckpointError, match="trained with the cell lstm, not with the one"):
        load_language_model(out, cell=get_cell("lstm-silu"))
    load_language_model(out, cell=get_cell("lstm"))
