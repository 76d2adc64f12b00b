"""The command line: parse, call, print. `gatewise COMMAND --help` has an example for each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from gatewise.cli import console, drift, lab, neural_cache, streams, training
from gatewise.cli.common import CELL_HELP, JSON, cell_named, set_threads
from gatewise.cli.errors import BadInput, checked

# Libraries that take long to import are imported in the command that needs them.

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Gated recurrent networks from their equations.",
)
app.add_typer(lab.app, name="lab")


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


for _command in (training.train, training.predict, training.evaluate, training.sample):
    app.command()(_command)
app.command()(drift.drift)
app.command()(neural_cache.neural_cache)
app.command()(training.tasks)
app.command()(streams.detect)
app.command()(streams.nab)


@app.command()
def cells(as_json: Annotated[bool, JSON] = False) -> None:
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
    cell: Annotated[str, typer.Argument(help=CELL_HELP)],
    latex: Annotated[bool, typer.Option("--latex", help="The equations as LaTeX.")] = False,
    backward: Annotated[
        bool, typer.Option("--backward", help="The derived backward program of one step.")
    ] = False,
    c: Annotated[bool, typer.Option("--c", help="The generated C source.")] = False,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Show a cell: its equations, what is derived from them, the generated source.

    Example: gatewise show lstm --backward
    """
    from gatewise.equations import display, trace

    made = cell_named(cell)
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
    as_json: Annotated[bool, JSON] = False,
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
            help="layers, stream, ragged, bidirectional, resets, cells, compile, lanes, memory, "
            "replicas, scaling, context, weights; several with commas, or all."
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
        set_threads(threads)
        report = parts.run(suite, quick, json_file, plot, keep)
    if report.failed:
        raise typer.Exit(1)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for what the demo writes.")] = Path("demo"),
    minutes: Annotated[float, typer.Option(help="Time to train.")] = 2.0,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Train on Python's standard library, sample, and measure speed beside torch.nn.LSTM.

    Example: gatewise demo
    """
    from gatewise.cli import demo as parts
    from gatewise.models import runs

    with checked():
        run = parts.prepare(out, minutes)
    result: dict[str, Any] = (
        {"training": training.finish(run, as_json=False)} if not as_json else {}
    )
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
