"""The command line: parse, call, print. `gatewise COMMAND --help` has an example for each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from gatewise.cli import console
from gatewise.cli.errors import OPTIONS, BadInput, checked

# Libraries that take long to import are imported in the command that needs them.

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Gated recurrent networks from their equations.",
)

_JSON = typer.Option("--json", help="Print the result as JSON on stdout.")
_CELL_HELP = "A name of `gatewise cells`, or FILE.py:CLASS."


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"gatewise {version('gatewise')}")
        raise typer.Exit()


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Gated recurrent networks from their equations."""


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and pictures.")],
    path: Annotated[
        Path | None,
        typer.Argument(
            help="A UTF-8 text file or a folder. Default: Python's own standard library.",
        ),
    ] = None,
    level: Annotated[str | None, typer.Option(help="char or word (default char)")] = None,
    cell: Annotated[str | None, typer.Option(help=_CELL_HELP + " Default: lstm.")] = None,
    hidden: Annotated[int | None, typer.Option(help="Units per layer (default 256)")] = None,
    layers: Annotated[int | None, typer.Option(help="Layers (default 1)")] = None,
    embedding: Annotated[int | None, typer.Option(help="Numbers per token (default 64)")] = None,
    tied: Annotated[
        bool | None,
        typer.Option(
            "--tied", help="Share embedding and head; needs --embedding equal to --hidden."
        ),
    ] = None,
    dropout: Annotated[
        float | None,
        typer.Option(help="On embedding, between layers and before the head (default 0)"),
    ] = None,
    vocabulary: Annotated[
        int | None, typer.Option(help="Most tokens (default all characters, 10000 words)")
    ] = None,
    seq: Annotated[
        int | None, typer.Option(help="Steps per chunk of truncated BPTT (default 64)")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Parallel streams (default 16)")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate (default 0.005)")] = None,
    clip: Annotated[
        float | None, typer.Option(help="Largest norm of the gradient (default 1)")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Train so many chunks.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Train about so long (default 2)")] = None,
    epochs: Annotated[float | None, typer.Option(help="Read the text so many times.")] = None,
    evaluations: Annotated[
        int | None, typer.Option(help="Held-out evaluations over the run (default 10)")
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(help="Stop after so many evaluations without a better one (default 5)"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed (default 0)")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads (default all)")] = None,
    executor: Annotated[str, typer.Option(help="auto, cpu, scan or reference")] = "auto",
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Continue the run in --out to the numbers of an unbroken one."
        ),
    ] = False,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Train a character or word language model on any text.

    Example: gatewise train book.txt --out book --minutes 2

    Ctrl-C saves; --resume continues, also after a crash.
    """
    from gatewise.models import runs

    settings = {
        "chunk": seq,
        "batch": batch,
        "learning_rate": lr,
        "clip": clip,
        "seed": seed,
        "evaluations": evaluations,
        "patience": patience,
    }
    architecture = {
        "embedding_size": embedding,
        "hidden_size": hidden,
        "num_layers": layers,
        "tied": tied,
        "dropout": dropout,
    }
    length = {"steps": steps, "epochs": epochs, "minutes": minutes}
    fixed = {"level": level, "vocabulary": vocabulary, **settings, **architecture, **length}
    with checked():
        if resume and runs.can_resume(out):
            given = [OPTIONS.get(n, f"--{n}") for n, v in fixed.items() if v is not None]
            if given:
                raise ValueError(
                    f"--resume keeps the run's settings; leave out: {', '.join(given)}"
                )
            _set_threads(threads, out)
            run = runs.resume(out, path, _cell(cell), executor)
        else:
            if resume:
                raise ValueError(f"nothing to resume: {out} holds no checkpoint")
            runs.check_empty(out)
            _set_threads(threads)
            _cell(cell)
            if all(v is None for v in length.values()):
                length["minutes"] = 2.0
            most = 10_000 if vocabulary is None and level == "word" else vocabulary
            run = runs.begin(
                out,
                path,
                level or "char",
                runs.Architecture(**_given(architecture | {"cell": cell})),
                runs.Settings(**_given(settings | length)),
                most,
                executor,
            )
    _train(run, as_json)


def _train(run: Any, as_json: bool) -> dict[str, Any]:
    """Train to the end and report; leaves with 130 where a signal came."""
    from gatewise.models import TrainingError, runs

    for text in run.corpus.notes:
        console.note(f"note: {text}")
    console.note(
        f"{run.corpus.name}: {len(run.corpus.train):,} characters to learn from, "
        f"{len(run.corpus.held_out):,} held out; {len(run.trainer.vocabulary):,} tokens; "
        f"{run.parameters:,} parameters"
    )
    try:
        done = console.train(run)
    except TrainingError as error:
        raise BadInput(str(error)) from error
    if not done:
        console.note(
            f"stopped and saved at step {run.trainer.progress.step}; "
            f"continue with: gatewise train --out {run.trainer.out} --resume"
        )
        raise typer.Exit(console.STOPPED)
    pictures = runs.picture(run)
    result = runs.summary(run) | {"pictures": [str(p) for p in pictures]}
    if as_json:
        print(json.dumps(result))
        return result
    words = (
        f", perplexity {result['held_out_perplexity']:.1f} per word"
        if run.trainer.vocabulary.level == "word"
        else ""
    )
    print(
        f"held-out: {result['held_out_bits_per_character']:.3f} bits per character{words} "
        f"(step {result['best_step']})"
    )
    print(f"checkpoints and pictures: {run.trainer.out}")
    return result


@app.command()
def sample(
    directory: Annotated[Path, typer.Argument(help="Folder of `gatewise train --out`.")],
    prompt: Annotated[str, typer.Option(help="What the text begins with.")] = "\n",
    length: Annotated[int, typer.Option(help="Tokens to draw.")] = 500,
    temperature: Annotated[float, typer.Option(help="Below 1: more likely text.")] = 1.0,
    top_k: Annotated[int | None, typer.Option(help="Only the k likeliest tokens.")] = None,
    top_p: Annotated[
        float, typer.Option(help="Only the likeliest tokens that hold this probability.")
    ] = 1.0,
    min_p: Annotated[
        float, typer.Option(help="Only tokens this fraction as likely as the likeliest.")
    ] = 0.0,
    greedy: Annotated[bool, typer.Option("--greedy", help="Always the likeliest token.")] = False,
    seed: Annotated[int | None, typer.Option(help="The same seed draws the same text.")] = None,
    cell: Annotated[
        str | None, typer.Option(help="FILE.py:CLASS, for a model trained with a cell from a file.")
    ] = None,
    executor: Annotated[str, typer.Option(help="auto, cpu, scan or reference")] = "auto",
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Stream text from a trained model, token by token, in constant memory.

    Example: gatewise sample book --prompt "It was " --temperature 0.8 --seed 1
    """
    from gatewise.models import Sampling, load_language_model

    with checked():
        how = Sampling(temperature, top_k, top_p, min_p, greedy)
        model, vocabulary, _ = load_language_model(directory, "best", _cell(cell), executor)
        unknown = vocabulary.unknown(prompt)
        tokens = vocabulary.encode(prompt)
        stream = model.sample(tokens, length, how, seed, forbidden=(0,))
    if unknown:
        shown = ", ".join(map(repr, unknown[:5])) + (" …" if len(unknown) > 5 else "")
        console.note(f"note: the model has never seen {shown}; it reads an unknown token instead")
    if as_json:
        text = vocabulary.decode(stream)
        print(json.dumps({"prompt": prompt, "text": text, "seed": seed}))
        return
    console.write(prompt)
    for token in stream:
        console.write(vocabulary.tokens[token])
    console.write("\n")


@app.command()
def cells(as_json: Annotated[bool, _JSON] = False) -> None:
    """List the cells: gates, states, source, and whether a fused kernel runs them.

    Example: gatewise cells --json
    """
    from gatewise.cells import REGISTRY

    rows = [_describe(name, entry) for name, entry in REGISTRY.items()]
    if as_json:
        print(json.dumps(rows))
    else:
        console.output.print(console.cells_table(rows))


def _describe(name: str, entry: Any) -> dict[str, Any]:
    from gatewise.equations import trace
    from gatewise.equations.phases import derive_phases

    cell = entry.make()
    traced = trace(cell)
    return {
        "name": name,
        "summary": entry.summary,
        "gates": list(traced.gates),
        "states": list(traced.states),
        "passes": 1 if traced.pointwise else len(derive_phases(traced).phases),
        "source": cell.source,
    }


@app.command()
def show(
    cell: Annotated[str, typer.Argument(help=_CELL_HELP)],
    latex: Annotated[bool, typer.Option("--latex", help="The equations as LaTeX.")] = False,
    backward: Annotated[
        bool, typer.Option("--backward", help="The derived backward program of one step.")
    ] = False,
    c: Annotated[bool, typer.Option("--c", help="The generated C source.")] = False,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Show a cell: its equations, what is derived from them, the generated source.

    Example: gatewise show lstm --backward
    """
    from gatewise.equations import display, trace

    made = _cell(cell)
    with checked():
        traced = trace(made)
        equations = display.pretty(traced)
    parts: dict[str, str] = {}
    if latex:
        parts["latex"] = display.latex(traced)
    if backward:
        parts["backward"] = _backward(cell, traced)
    if c:
        parts["c"] = _source(cell, traced)
    if as_json:
        print(
            json.dumps(
                {
                    "cell": cell,
                    "gates": list(traced.gates),
                    "states": list(traced.states),
                    "parameters": list(traced.parameters),
                    "equations": {"gates": equations.gates, "states": equations.states},
                    **parts,
                }
            )
        )
    else:
        print("\n\n".join(parts.values()) if parts else display.describe(traced))


def _backward(name: str, traced: Any) -> str:
    from gatewise.equations import derive, display
    from gatewise.equations.phases import derive_phases

    if traced.pointwise:
        return display.program(derive(traced).backward)
    steps = reversed([*enumerate(derive_phases(traced).phases)])
    return "\n\n".join(f"phase {k}\n{display.program(p.backward)}" for k, p in steps)


def _source(name: str, traced: Any) -> str:
    try:
        from gatewise.executors.cpu import source
    except ImportError:
        raise BadInput("this version of gatewise generates no C source") from None
    return source(traced)


@app.command()
def gradients(
    cells: Annotated[
        str, typer.Option(help="Names of `gatewise cells` or FILE.py:CLASS, commas.")
    ] = ("rnn,lstm-1997,lstm,gru"),
    steps: Annotated[
        int, typer.Option("--T", help="Steps from the first input to the loss.")
    ] = 200,
    hidden: Annotated[int, typer.Option(help="Units.")] = 32,
    training: Annotated[int, typer.Option(help="Updates before the second look; 0: none.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of weights and data.")] = 0,
    plot: Annotated[Path | None, typer.Option(help="Write a picture (PNG) there.")] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Show how far errors reach back: gradient norms by lag, for several cells.

    Each cell as it starts, with its recurrent edges cut (the 1997 rule), and after training to
    recall its first input (from the chrono initialisation where it has gates for that); then an
    LSTM with several forget biases, whose product of f is the direct path, and a plain network
    with several recurrent gains. "wrong" is the share of fresh sequences recalled wrongly.

    Example: gatewise gradients --cells rnn,lstm1997,lstm,gru --T 200 --plot flow.png
    """
    from dataclasses import asdict

    from gatewise.diagnostics import plot_gradient_flow, study

    with checked():
        wanted = [c.strip() for c in cells.split(",") if c.strip()]
        with console.errors.status("measuring gradients"):
            flows = list(study(wanted, steps, hidden, training, seed))
        if plot is not None:
            plot_gradient_flow(flows, plot)
    if as_json:
        print(json.dumps([{"label": f.label, **asdict(f)} for f in flows]))
        return
    lags = (*(k for k in (1, 10, 100, 1000, 10_000) if k < steps - 1), steps - 1)
    console.output.print(console.gradients_table(flows, lags))
    if plot is not None:
        console.note(f"wrote {plot}")


@app.command()
def bench(
    suite: Annotated[
        str,
        typer.Option(
            help="layers, stream, ragged, bidirectional, resets, cells, compile, memory, scaling; "
            "several with commas, or all."
        ),
    ] = "layers",
    quick: Annotated[
        bool, typer.Option("--quick", help="Few shapes, short samples: under a minute for all.")
    ] = False,
    threads: Annotated[int | None, typer.Option(help="CPU threads (default all)")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write every row there as JSON; - is stdout.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a picture (PNG) there.")] = None,
    keep: Annotated[
        Path | None,
        typer.Option(help="Write DATE-SUITE.json and .png into this folder; from an idle machine."),
    ] = None,
) -> None:
    """Measure our layers and their peers in turn, after checking that results are equal.

    Example: gatewise bench --suite stream --quick

    A ratio is the peer's figure divided by ours: above 1, ours is the better. Exits with 1 where
    a peer computes something else.
    """
    from gatewise.cli import bench as parts

    with checked():
        _set_threads(threads)
        report = parts.run(suite, quick, json_file, plot, keep)
    if report.failed:
        raise typer.Exit(1)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for what the demo writes.")] = Path("demo"),
    minutes: Annotated[float, typer.Option(help="Time to train.")] = 2.0,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Train on Python's standard library, sample, and measure speed beside torch.nn.LSTM.

    Example: gatewise demo
    """
    from gatewise.cli import demo as parts
    from gatewise.models import runs

    with checked():
        run = parts.prepare(out, minutes)
    result: dict[str, Any] = {"training": _train(run, as_json=False)} if not as_json else {}
    if as_json:
        if not console.train(run):
            raise typer.Exit(console.STOPPED)
        result["training"] = runs.summary(run) | {"pictures": list(map(str, runs.picture(run)))}
    result["sample"] = parts.sample(out, (lambda _: None) if as_json else console.write)
    measured = parts.measure()
    result |= parts.report(out, measured)
    if as_json:
        print(json.dumps(result))
        return
    console.show_bench(measured)
    for line in parts.lines(result):
        print(line)


def _set_threads(threads: int | None, out: Path | None = None) -> None:
    """As many as asked for; a resumed run takes as many as it had, so its numbers repeat."""
    import torch

    if threads is None and out is not None:
        from gatewise.models import load_checkpoint

        threads = load_checkpoint(out).record.get("threads")
    if threads is None:
        return
    if not isinstance(threads, int) or not 1 <= threads <= 1024:
        raise ValueError(f"threads must be between 1 and 1024, got {threads!r}")
    torch.set_num_threads(threads)


def _cell(name: str | None) -> Any:
    """The cell of that name; whatever goes wrong in a user's file is one line."""
    if name is None:
        return None
    from gatewise.cells import get_cell

    try:
        return get_cell(name)
    except (ValueError, OSError) as error:
        raise BadInput(str(error)) from error
    except Exception as error:
        raise BadInput(f"{name} cannot be loaded: {type(error).__name__}: {error}") from error


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {n: v for n, v in options.items() if v is not None}
