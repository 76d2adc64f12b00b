"""What `./run demo` shows: a model trained on real text, a sample, speed beside torch.nn."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gatewise import benchmark
from gatewise.models import (
    LanguageOptions,
    Sampling,
    Settings,
    Source,
    load_checkpoint,
    load_language_model,
    runs,
)
from gatewise.models.checkpoint import write_atomically

PROMPT = "import os\n\ndef "
_LENGTH = 500


def prepare(out: Path, minutes: float) -> runs.Run:
    """The demo's run: an interrupted one continues, a finished one starts again.

    Raises ValueError where `out` holds something that no demo wrote.
    """
    if runs.can_resume(out):
        if not load_checkpoint(out).record.get("progress", {}).get("finished"):
            return runs.resume(out)
        shutil.rmtree(out / "checkpoints")
    elif not (out / "demo.json").exists():
        runs.check_empty(out)
    return runs.begin(out, "lm", Source(), LanguageOptions(), Settings(minutes=minutes))


def sample(out: Path, write: Callable[[str], object]) -> str:
    """Stream a sample of the best model through `write`; the text."""
    model, vocabulary, _ = load_language_model(out)
    how = Sampling(temperature=0.7, min_p=0.02)
    drawn = [PROMPT]
    write("\n" + PROMPT)
    for token in model.sample(vocabulary.encode(PROMPT), _LENGTH, how, seed=1, forbidden=(0,)):
        drawn.append(vocabulary.tokens[token])
        write(drawn[-1])
    write("\n\n")
    return "".join(drawn)


def measure() -> benchmark.Report:
    """Speed beside torch.nn.LSTM at three sizes."""
    runner = benchmark.Runner(benchmark.FULL)
    return runner.report(list(runner.run(benchmark.DEMO)))


def report(out: Path, measured: benchmark.Report) -> dict[str, Any]:
    """What was measured, written as JSON and PNG beside the run."""
    result = {"speed": measured.to_json(), "first_use": benchmark.first_use_seconds()}
    write_atomically(out / "demo.json", json.dumps(result, indent=1).encode())
    benchmark.plot(measured, out / "speed.png")
    return result


def lines(result: dict[str, Any]) -> list[str]:
    """The closing lines for people."""
    told = []
    if result["first_use"]:
        told.append(
            "first use of the lstm kernel: "
            + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in result["first_use"].items())
        )
    best = result["training"]["held_out_bits_per_character"]
    told.append(f"held-out: {best:.3f} bits per character")
    return told
