"""`gatewise train`, `predict`, `evaluate`, `sample`, `tasks`: the same for every kind of model."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from gatewise.cli import console
from gatewise.cli.common import CELL_HELP, JSON, cell_named, set_threads
from gatewise.cli.errors import OPTIONS, BadInput, checked
from gatewise.cli.repeats import train_all

if TYPE_CHECKING:
    from gatewise.models import Source
    from gatewise.models.repeats import Plan
    from gatewise.models.runs import Run

_MINUTES = 2.0  # where nothing says how long


def train(
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and pictures.")],
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="DATA",
            help="A file or folder. Default: Python's own standard library, as text.",
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="One of `gatewise tasks`. Default: what the data is for.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Published settings that `gatewise tasks` lists; other options override."
        ),
    ] = None,
    held_out: Annotated[
        Path | None, typer.Option(help="Data to hold out. Default: a part of DATA.")
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="Evaluate the best checkpoint on this data in the end.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Train so many times, with seed, seed + 1, …; needs --test.")
    ] = None,
    folds: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN",
            help="Train once for each text that PATTERN finds in the names of the examples, "
            "leaving those out for the test.",
        ),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Any other option that `gatewise tasks` lists."
        ),
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(
            help="Of tags: a name in CoNLL-U, else its number, from 2. Of a stream: a name."
        ),
    ] = None,
    features: Annotated[
        Path | None, typer.Option(help="Folder of a --task bilm, whose states a tagger reads.")
    ] = None,
    level: Annotated[str | None, typer.Option(help="char, word or space")] = None,
    cell: Annotated[str | None, typer.Option(help=CELL_HELP + " Default: lstm.")] = None,
    hidden: Annotated[int | None, typer.Option(help="Units per layer.")] = None,
    layers: Annotated[int | None, typer.Option(help="Layers.")] = None,
    embedding: Annotated[int | None, typer.Option(help="Numbers per token.")] = None,
    tied: Annotated[
        bool | None, typer.Option("--tied", help="Share the embedding's weight with the head.")
    ] = None,
    dropout: Annotated[
        float | None, typer.Option(help="On inputs, between layers and before the head.")
    ] = None,
    vocabulary: Annotated[int | None, typer.Option(help="Most tokens.")] = None,
    seq: Annotated[int | None, typer.Option(help="Steps per chunk of truncated BPTT.")] = None,
    batch: Annotated[int | None, typer.Option(help="Parallel streams or examples.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    clip: Annotated[float | None, typer.Option(help="Largest norm of the gradient.")] = None,
    steps: Annotated[int | None, typer.Option(help="Train so many batches.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Train about so long.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Read the data so many times.")] = None,
    evaluations: Annotated[
        int | None, typer.Option(help="Held-out evaluations over the run.")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many evaluations without a better one.")
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
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Train a model on your data; `gatewise tasks` lists the kinds, their options and defaults.

    Example: gatewise train book.txt --out book --minutes 2

    Ctrl-C saves; --resume continues, also after a crash; DATA, --held-out and --test are then for
    data that has moved. Several processes share every batch:
    torchrun --nproc-per-node 2 -m gatewise train book.txt --out book
    """
    from gatewise.models import Source, processes, runs
    from gatewise.models.repeats import load_repeats, repeated

    given = {
        "column": column,
        "features": None if features is None else str(features),
        "level": level,
        "vocabulary": vocabulary,
        "chunk": seq,
        "batch": batch,
        "learning_rate": lr,
        "clip": clip,
        "seed": seed,
        "evaluations": evaluations,
        "patience": patience,
        "embedding_size": embedding,
        "hidden_size": hidden,
        "num_layers": layers,
        "tied": tied,
        "dropout": dropout,
        "steps": steps,
        "epochs": epochs,
        "minutes": minutes,
    }
    given = {name: value for name, value in given.items() if value is not None}
    run = repeats = None
    with processes.torchrun():
        console.quiet(processes.number() > 0)
        with checked():
            if resume:
                made = cell_named(cell)
                repeats = load_repeats(out, made)
                if repeats is None and not runs.can_resume(out):
                    raise ValueError(f"nothing to resume: {out} holds no checkpoint")
                fixed = {"task": task, "recipe": recipe, "set": options, "seeds": seeds}
                fixed |= {"folds": folds}
                named = [*given, *(n for n, v in fixed.items() if v is not None)]
                if named:
                    words = [OPTIONS.get(n, "--" + n.replace("_", "-")) for n in named]
                    raise ValueError(
                        f"--resume keeps the run's settings; leave out: {', '.join(words)}"
                    )
                if repeats is None:
                    set_threads(threads, out)
                    run = runs.resume(out, path, made, executor, held_out, _there(test))
                else:
                    repeats = repeats.moved(path, held_out, _there(test))
                    set_threads(repeats.threads if threads is None else threads)
            else:
                runs.check_empty(out)
                set_threads(threads)
                made = cell_named(cell)
                given |= {} if cell is None else {"cell": cell}
                chosen = _choose(task, recipe, Source(path, held_out), test, given, options or [])
                repeats = repeated(chosen, seeds, folds)
                if repeats is None:
                    run = chosen.begin(out, made, executor)
        processes.wait()  # none may write before all have looked at the folder
        if repeats is not None:
            train_all(out, repeats, made, executor, as_json)
        elif run is not None:
            finish(run, as_json, made, executor)


def _choose(
    task: str | None,
    recipe: str | None,
    source: Source,
    test: Path | None,
    given: dict[str, Any],
    words: list[str],
) -> Plan:
    """What to train: what was given goes to the settings or to the kind's own options."""
    from gatewise.models import Settings
    from gatewise.models.kinds import find_kind, guess_kind
    from gatewise.models.recipes import find_recipe
    from gatewise.models.repeats import Plan
    from gatewise.models.task import options_from

    _there(test)
    published = None if recipe is None else find_recipe(recipe)
    kind = find_kind(task or (published.kind if published else guess_kind(source.path)))
    if published and published.kind != kind.kind:
        raise ValueError(f"recipe {recipe} is for the task {published.kind}, not for {kind.kind}")
    types = get_type_hints(Settings) | get_type_hints(kind.Options)
    given = given | parse(types, words)
    for name in given:
        if name not in types:
            option = OPTIONS.get(name, f"--{name}")
            raise ValueError(
                f"{option} is not an option of the task {kind.kind}, which has: {', '.join(types)}"
            )
    length = ("steps", "epochs", "minutes")
    defaults = {**kind.defaults, **(published.values if published else {})}
    if any(n in given for n in length):
        defaults = {n: v for n, v in defaults.items() if n not in length}
    elif not any(n in defaults for n in length):
        defaults["minutes"] = _MINUTES
    chosen = defaults | given
    shared = {f.name for f in fields(Settings)}
    settings = Settings(**{n: v for n, v in chosen.items() if n in shared})
    options = options_from(kind.Options, {n: v for n, v in chosen.items() if n not in shared})
    return Plan(kind.kind, source, test, options, settings)


def _there(path: Path | None) -> Path | None:
    """The path; FileNotFoundError where nothing is there."""
    if path is not None and not path.exists():
        raise FileNotFoundError(f"no file or folder {path}")
    return path


def parse(types: dict[str, Any], words: list[str]) -> dict[str, Any]:
    """NAME=VALUE words as values of the declared types."""
    found: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or name not in types:
            allowed = ", ".join(types)
            raise ValueError(f"--set must be NAME=VALUE with one of {allowed}; got {word!r}")
        found[name] = _value(name, text, _declared(types[name]))
    return found


def _declared(kind: Any) -> str:
    """A type as its annotation is written; unions have names of their own in some Pythons."""
    return kind.__name__ if isinstance(kind, type) else str(kind)


def _value(name: str, text: str, declared: str) -> Any:
    readers = {
        "None": {"none": None},
        "bool": {"true": True, "false": False},
    }
    for kind, words in readers.items():
        if kind in declared and text.lower() in words:
            return words[text.lower()]
    for number in (int, float):
        if number.__name__ in declared:
            try:
                return number(text)
            except ValueError:
                continue
    if "str" in declared:
        return text
    raise ValueError(f"--set {name} must be {declared}, got {text!r}")


def finish(run: Run, as_json: bool, cell: Any = None, executor: str = "auto") -> dict[str, Any]:
    """Train to the end and report; leaves with 130 where a signal came."""
    result = complete(run, run.trainer.out, cell, executor)
    if not result:
        return {}
    if as_json:
        print(json.dumps(result))
        return result
    print(f"held-out: {console.figures(console.held_out(result))} (step {result['best_step']})")
    if "test" in result:
        print(f"test: {console.figures(result['test'])}")
    print(f"checkpoints and pictures: {run.trainer.out}")
    return result


def complete(run: Run, out: Path, cell: Any, executor: str) -> dict[str, Any]:
    """Train to the end, draw and evaluate: what came out, empty in all processes but the first.

    `out` is what the user called it, where a signal ends the training.
    """
    from gatewise.models import TrainingError, processes, runs
    from gatewise.models.evaluation import evaluate

    for text in run.task.notes():
        console.note(f"note: {text}")
    console.note(f"{run.task.name}: {run.task.about()}; {run.parameters:,} parameters")
    try:
        done = console.train(run)
    except TrainingError as error:
        raise BadInput(str(error)) from error
    if not done:
        console.note(
            f"stopped and saved at step {run.trainer.progress.step}; "
            f"continue with: gatewise train --out {out} --resume"
        )
        raise typer.Exit(console.STOPPED)
    if processes.number() > 0:
        return {}
    pictures = runs.picture(run)
    result: dict[str, Any] = runs.summary(run)
    if isinstance(test := run.trainer.origin.get("test"), str):
        with checked():
            found = evaluate([run.trainer.out], Path(test), cell, executor)
            pictures += found.write(run.trainer.out)
        result["test"] = found.figures[run.trainer.out.name]
    return result | {"pictures": [str(p) for p in pictures]}


_DIRECTORY = typer.Argument(help="Folder of `gatewise train --out`.")
_CELL = typer.Option(help="FILE.py:CLASS, for a model trained with a cell from a file.")
_EXECUTOR = typer.Option(help="auto, cpu, scan or reference")


def predict(
    directory: Annotated[Path, _DIRECTORY],
    data: Annotated[Path, typer.Argument(metavar="DATA", help="What to say something about.")],
    cell: Annotated[str | None, typer.Option("--cell", help=_CELL.help)] = None,
    executor: Annotated[str, _EXECUTOR] = "auto",
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Use a trained model on new data: a line (with --json an object) for each piece of it.

    Example: gatewise predict tagger new.conllu
    """
    from gatewise.models import load

    with checked():
        predictor = load(directory, "best", cell_named(cell), executor).predictor
        rows = predictor.predict(data)
        for row in rows:
            text = json.dumps(row, ensure_ascii=False) if as_json else predictor.render(row)
            console.write(text + "\n")


def evaluate(
    directory: Annotated[Path, _DIRECTORY],
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Data with the answers in it.")],
    beside: Annotated[
        list[Path] | None, typer.Option(help="Another run of the same kind, to compare with.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write evaluation.json and pictures into this folder.")
    ] = None,
    cell: Annotated[str | None, typer.Option("--cell", help=_CELL.help)] = None,
    executor: Annotated[str, _EXECUTOR] = "auto",
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Measure a trained model, or several, on data it has not seen.

    Example: gatewise evaluate book another.txt
    """
    from gatewise.models import evaluation

    with checked():
        directories = [directory, *(beside or [])]
        found = evaluation.evaluate(directories, data, cell_named(cell), executor)
        written = found.write(out) if out is not None else []
    figures = found.figures
    if as_json:
        print(json.dumps(figures if beside else next(iter(figures.values()))))
    elif beside:
        console.output.print(console.figures_table(figures))
    else:
        print(console.figures(next(iter(figures.values()))))
    for path in written:
        console.note(f"wrote {path}")


def sample(
    directory: Annotated[Path, _DIRECTORY],
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
    cell: Annotated[str | None, typer.Option("--cell", help=_CELL.help)] = None,
    executor: Annotated[str, _EXECUTOR] = "auto",
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Stream text from a trained model, token by token, in constant memory.

    Example: gatewise sample book --prompt "It was " --temperature 0.8 --seed 1
    """
    from gatewise.models import Sampling, load
    from gatewise.models.text_task import TextPredictor

    with checked():
        how = Sampling(temperature, top_k, top_p, min_p, greedy)
        saved = load(directory, "best", cell_named(cell), executor)
        if not isinstance(saved.predictor, TextPredictor):
            raise ValueError(f"{directory} holds a model for {saved.kind}, which draws no text")
        model, vocabulary = saved.predictor.model, saved.predictor.vocabulary
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


def tasks(as_json: Annotated[bool, JSON] = False) -> None:
    """List the tasks that `gatewise train` knows, with their options, defaults and recipes.

    Example: gatewise tasks
    """
    from gatewise.models import Settings
    from gatewise.models.kinds import KINDS, find_kind
    from gatewise.models.recipes import RECIPES

    rows = []
    shared = {f.name: f.default for f in fields(Settings)}
    for name in KINDS:
        kind = find_kind(name)
        own = {f.name: None if f.default is MISSING else f.default for f in fields(kind.Options)}
        rows.append(
            {
                "name": name,
                "summary": kind.summary,
                "options": own,
                "training": shared | kind.defaults,
                "recipes": {
                    n: {"source": r.source, "values": dict(r.values)}
                    for n, r in RECIPES.items()
                    if r.kind == name
                },
            }
        )
    if as_json:
        print(json.dumps(rows))
    else:
        console.output.print(console.tasks_table(rows))
