"""The command line: every command, JSON that parses, bad input in one line with exit code 2."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gatewise.cells import REGISTRY
from gatewise.cli import run
from gatewise.models import load_checkpoint

TINY = (
    "--hidden",
    "12",
    "--embedding",
    "8",
    "--batch",
    "4",
    "--seq",
    "16",
    "--steps",
    "12",
    "--evaluations",
    "2",
    "--executor",
    "reference",
)
CELL = """
from gatewise import Cell, sigmoid, tanh

class Leaky(Cell):
    '''A leaky unit.'''
    gates = ("leak", "candidate")
    def step(self, gate, state):
        z = sigmoid(gate.leak)
        return {"h": (1 - z) * state.h + z * tanh(gate.candidate)}
"""


def call(*args: object) -> int:
    return run([str(a) for a in args])


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("text") / "words.txt"
    file.write_text("to be or not to be, that is the question\n" * 30)
    return file


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, text: Path) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    assert call("train", text, "--out", out, *TINY) == 0
    return out


@pytest.mark.parametrize(
    "command",
    [
        (),
        ("train",),
        ("predict",),
        ("evaluate",),
        ("sample",),
        ("tasks",),
        ("cells",),
        ("show",),
        ("demo",),
    ],
)
def test_help_has_an_example(command: tuple[str, ...], capsys: pytest.CaptureFixture) -> None:
    assert call(*command, "--help") == 0
    told = capsys.readouterr().out
    assert "Usage: gatewise" in told
    assert not command or "Example: gatewise" in told


def test_without_a_command_it_helps(capsys: pytest.CaptureFixture) -> None:
    assert run([]) == 0
    assert "Usage: gatewise" in capsys.readouterr().out


def test_train_leaves_checkpoints_and_pictures(
    trained: Path, text: Path, capsys: pytest.CaptureFixture
) -> None:
    names = {p.name for p in trained.iterdir()}
    assert names == {"checkpoints", "learning_curve.png", "gate_activity.png"}
    assert call("train", text, "--out", trained / "json", *TINY, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["finished"]
    assert result["steps"] == 12
    assert 0 < result["held_out_bits_per_character"] < 8
    assert [Path(p).name for p in result["pictures"]] == ["learning_curve.png", "gate_activity.png"]


def test_words_and_another_cell(tmp_path: Path, text: Path, capsys: pytest.CaptureFixture) -> None:
    options = ("--level", "word", "--cell", "gru", *TINY)
    assert call("train", text, "--out", tmp_path / "run", *options) == 0
    assert "perplexity" in capsys.readouterr().out
    assert call("sample", tmp_path / "run", "--prompt", "to be", "--length", 3) == 0


def test_sample_streams_and_repeats(trained: Path, capsys: pytest.CaptureFixture) -> None:
    told = []
    for _ in range(2):
        assert call("sample", trained, "--prompt", "to be", "--length", 20, "--seed", 3) == 0
        told.append(capsys.readouterr())
    assert told[0].out == told[1].out
    assert told[0].out.startswith("to be")
    assert len(told[0].out) == len("to be") + 20 + 1
    assert told[0].err == ""
    assert call("sample", trained, "--greedy", "--length", 5, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert len(result["text"]) == 5


def test_predict_and_evaluate(
    trained: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert call("evaluate", trained, text, "--json") == 0
    whole = json.loads(capsys.readouterr().out)
    assert whole.keys() == {"bits_per_character", "perplexity"}
    assert call("evaluate", trained, text) == 0
    assert "perplexity" in capsys.readouterr().out
    (tmp_path / "lines.txt").write_text("to be\nqqqqq\n")
    assert call("predict", trained, tmp_path / "lines.txt", "--json") == 0
    seen, unseen = map(json.loads, capsys.readouterr().out.splitlines())
    assert (seen["text"], unseen["text"]) == ("to be", "qqqqq")
    assert call("predict", trained, tmp_path / "lines.txt") == 0
    assert capsys.readouterr().out.splitlines()[0].endswith("\tto be")


def test_tasks_are_listed_with_their_options(capsys: pytest.CaptureFixture) -> None:
    assert call("tasks", "--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["lm"]["options"]["restart"] == 0.05
    assert call("tasks") == 0
    assert "hidden_size=256" in capsys.readouterr().out.replace("\n", "")


def test_options_by_name_and_data_held_out(
    tmp_path: Path, text: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "held.txt").write_text("to be or not, " * 20)
    more = ("--set", "restart=0.5", "--set", "vocabulary=none", "--held-out", tmp_path / "held.txt")
    assert call("train", text, "--out", tmp_path / "run", *TINY, *more, "--json") == 0
    assert "280 held out" in json.loads(capsys.readouterr().out)["about"]
    options = load_checkpoint(tmp_path / "run").record["origin"]["options"]
    assert (options["restart"], options["vocabulary"]) == (0.5, None)
    assert call("train", "--out", tmp_path / "run", "--resume") == 0


def test_unknown_characters_of_a_prompt_are_named(
    trained: Path, capsys: pytest.CaptureFixture
) -> None:
    assert call("sample", trained, "--prompt", "to é漢", "--length", 2) == 0
    assert "has never seen 'é', '漢'" in capsys.readouterr().err


def test_a_closed_pipe_ends_quietly(trained: Path) -> None:
    command = [sys.executable, "-m", "gatewise", "sample", str(trained), "--length", "100000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    assert len(process.stdout.read(100)) == 100  # arrives while the rest is still being drawn
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 0


def test_a_cell_from_a_file_must_be_named_again(
    tmp_path: Path, text: Path, capsys: pytest.CaptureFixture
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(CELL)
    name, out = f"{file}:Leaky", tmp_path / "run"
    assert call("train", text, "--out", out, "--cell", name, *TINY) == 0
    capsys.readouterr()
    assert call("sample", out, "--length", 3) == 2
    assert "checkpoints run no code" in capsys.readouterr().err
    assert call("sample", out, "--length", 3, "--cell", name) == 0
    assert call("train", "--out", out, "--resume", "--cell", name) == 0
    assert call("show", name) == 0
    assert "A leaky unit." in capsys.readouterr().out


def test_cells_lists_the_registry(capsys: pytest.CaptureFixture) -> None:
    assert call("cells", "--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows.keys() == REGISTRY.keys()
    assert rows["lstm"]["gates"] == ["input", "forget", "candidate", "output"]
    assert rows["lstm"]["passes"] == 1
    assert rows["lstm-layernorm"]["passes"] == 5
    assert call("cells") == 0
    told = capsys.readouterr().out
    assert all(name in told for name in REGISTRY)


def test_show(capsys: pytest.CaptureFixture) -> None:
    assert call("show", "lstm") == 0
    assert "·tanh(cₜ)" in capsys.readouterr().out
    assert call("show", "gru", "--latex", "--backward", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["states"] == ["h"]
    assert "\\begin{aligned}" in result["latex"]
    assert "g_h_prev" in result["backward"]


def test_show_c(capsys: pytest.CaptureFixture) -> None:
    assert call("show", "lstm", "--c") == 0
    assert "step_backward" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nonsense"], "nonsense"),
        (["train"], "--out"),
        (["train", "--out"], "--out"),
        (["train", "{text}", "--out", "{tmp}/x", "--hidden", "many"], "'--hidden'"),
        (["train", "{text}", "--out", "{tmp}/x", "--hidden", "0"], "--hidden must be"),
        (["train", "{text}", "--out", "{tmp}/x", "--dropout", "1"], "dropout must be"),
        (["train", "{text}", "--out", "{tmp}/x", "--steps", "0"], "steps must be positive"),
        (["train", "{text}", "--out", "{tmp}/x", "--steps", "1", "--epochs", "1"], "give one of"),
        (["train", "{text}", "--out", "{tmp}/x", "--level", "byte"], "level must be"),
        (["train", "{text}", "--out", "{tmp}/x", "--cell", "what"], "'what' is not known"),
        (["train", "{text}", "--out", "{tmp}/x", "--cell", "{tmp}/no.py:A"], "no cell file"),
        (["train", "{text}", "--out", "{tmp}/x", "--executor", "tpu"], "executor must be"),
        (["train", "{text}", "--out", "{tmp}/x", "--threads", "0"], "threads must be between"),
        (["train", "{text}", "--out", "{tmp}/x", "--vocabulary", "0"], "max_size must be"),
        (["train", "{tmp}/none", "--out", "{tmp}/x"], "no file or folder"),
        (["train", "{text}", "--out", "{full}"], "is not empty: continue with --resume"),
        (["train", "{text}", "--out", "{text}"], "must name a folder"),
        (["train", "--out", "{tmp}/x", "--resume"], "nothing to resume"),
        (["train", "--out", "{full}", "--resume", "--hidden", "9"], "leave out: --hidden"),
        (["train", "{text}", "--out", "{tmp}/x", "--task", "fly"], "task must be one of lm"),
        (["train", "{text}", "--out", "{tmp}/x", "--set", "wings=2"], "--set must be NAME=VALUE"),
        (["train", "{text}", "--out", "{tmp}/x", "--set", "restart=no"], "--set restart must be"),
        (["train", "{text}", "--out", "{tmp}/x", "--held-out", "{tmp}/no"], "no file or folder"),
        (["train", "{text}", "--out", "{tmp}/x", "--held-out", "{tmp}"], "--held-out"),
        (["predict", "{full}", "{tmp}/none"], "No such file"),
        (["evaluate", "{full}", "{tmp}/none"], "No such file"),
        (["evaluate", "{tmp}", "{text}"], "holds no checkpoint"),
        (["sample", "{tmp}/none"], "no folder"),
        (["sample", "{tmp}"], "holds no checkpoint"),
        (["sample", "{full}", "--prompt", ""], "prompt must have at least one token"),
        (["sample", "{full}", "--length", "-1"], "length must not be negative"),
        (["sample", "{full}", "--temperature", "0"], "temperature must be positive"),
        (["sample", "{full}", "--top-p", "2"], "top_p must be"),
        (["show"], "cell"),
        (["show", "what"], "'what' is not known"),
        (["demo", "--out", "{full}/checkpoints"], "is not empty"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    args: list[str],
    message: str,
    tmp_path: Path,
    text: Path,
    trained: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    places = {"text": text, "tmp": tmp_path, "full": trained}
    assert run([a.format(**places) for a in args]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert message in told.err
    assert not (tmp_path / "x").exists()  # nothing was written


@pytest.mark.parametrize(
    "source", ["class Leaky:", "import nonexistent_module", "x = 1", "raise SystemError('no')"]
)
def test_a_broken_cell_file_is_one_line(
    tmp_path: Path, source: str, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "mine.py").write_text(source)
    assert call("show", f"{tmp_path / 'mine.py'}:Leaky") == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_resumed_run_takes_its_own_threads(
    tmp_path: Path, text: Path, capsys: pytest.CaptureFixture
) -> None:
    assert call("train", text, "--out", tmp_path / "run", *TINY, "--threads", 2) == 0
    torch.set_num_threads(1)
    assert call("train", "--out", tmp_path / "run", "--resume", "--json") == 0
    assert torch.get_num_threads() == load_checkpoint(tmp_path / "run").record["threads"] == 2


def test_the_module_runs(trained: Path) -> None:
    command = [sys.executable, "-m", "gatewise", "sample", str(trained), "--length", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert len(done.stdout) == 1 + 3 + 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_a_full_disk_is_one_line() -> None:
    command = [sys.executable, "-m", "gatewise", "show", "lstm"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("gatewise: ")
    assert done.stderr.count("\n") == 1


def test_a_seed_no_generator_takes_is_one_line(
    trained: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run(["sample", str(trained), "--seed", str(2**70)]) == 2
    assert "seed must be in 0…2^63 - 1" in capsys.readouterr().err
