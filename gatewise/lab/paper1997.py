"""The experiments of the 1997 paper as data: every row of its tables, and other readings of them.

Source: Hochreiter & Schmidhuber, Long short-term memory, Neural Computation 9(8), 1997. What the
paper does not say is a named row of its own, one at a time; nothing here was tuned.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from gatewise.lab.experiment import Experiment, Published

NAME = "faithful"
SOURCE = "Hochreiter & Schmidhuber (1997)"
GATES = ("input", "output")
HIDDEN = ("input", "candidate", "output")


@dataclass(frozen=True)
class Settings:
    """One network on one task, trained by the 1997 rule, one sequence at a time.

    Args:
        task: a function of `gatewise.tasks`, and its arguments.
        blocks, size: memory blocks, and cells in each.
        rate: α.
        weights: initial ones are uniform in ± this.
        biased: gates (and "candidate", the cells) that have a bias.
        input_bias, output_bias: of the blocks' gates, in place of a random value; empty: random.
        output_bias_too: the output units have one as well.
        tolerance, window, most_wrong, error, measure: the criterion, see `lanes.Criterion`; over
            the last training sequences, or over `judged_on` test sequences after every `look`.
        judged_on: sequences of the fixed test set for that; 0: the criterion is judged in training.
        look: training sequences between two looks at a network.
        window_counts: sequences to success include the window they were counted in.
        trials_per_set: as many trials share a training set; 0: no fixed sets.
        grows: 2a's network: no output gate, no squashing, gate and cell logistic, no recurrence
            but the carousel; output units see the inputs; the cell is added when the error of
            `look` sequences is no longer 1 % below that of the `look` before.
        feedback: the hidden layer sees its own previous activations; without it the carousel is
            the only recurrence.
        slope: e_k contains f'(net_k).
        stepwise: weights change at every target, not after the sequence.
        gate_start: the gates' activation before the first step.
        bias_added: listed biases are added to the random value.
        test: fresh sequences after training.
        cell: a name of `get_cell`; any but "lstm-1997" takes all of its own defaults.
    """

    task: str
    arguments: dict[str, Any] = field(default_factory=dict)
    blocks: int = 2
    size: int = 1
    rate: float = 1.0
    weights: float = 0.1
    biased: tuple[str, ...] = HIDDEN
    input_bias: tuple[float, ...] = ()
    output_bias: tuple[float, ...] = ()
    output_bias_too: bool = False
    tolerance: float = 0.0
    window: int = 2000
    most_wrong: int = 0
    error: float = float("inf")
    measure: str = "squared"
    judged_on: int = 0
    look: int = 1000
    window_counts: bool = True
    trials_per_set: int = 0
    grows: bool = False
    feedback: bool = True
    slope: bool = True
    stepwise: bool = False
    gate_start: float = 0.0
    bias_added: bool = False
    test: int = 2560
    cell: str = "lstm-1997"

    @property
    def listed(self) -> dict[str, tuple[float, ...]]:
        """Gate -> the biases of its blocks that replace random ones."""
        return {"input": self.input_bias, "output": self.output_bias}


@dataclass(frozen=True)
class Whole(Settings):
    """The same, but no recurrent edge is cut: backpropagation through time."""

    rule: str = "bptt"


@dataclass(frozen=True)
class CellsFedBack(Whole):
    """And the hidden layer sees the cells' previous outputs alone, not the gates'."""

    gate_feedback: bool = False


REBER = Settings(
    "embedded_reber_sets",
    weights=0.2,
    biased=GATES,
    tolerance=0.5,
    judged_on=512,
    test=512,
    look=250,
    trials_per_set=10,
)
TWO = Settings(
    "two_sequences",
    blocks=1,
    weights=0.2,
    biased=(),
    tolerance=0.25,
    window=10_000,
    window_counts=False,
    look=100,
    grows=True,
)
LAG = Settings(
    "long_lag",
    weights=0.2,
    biased=(),
    rate=0.01,
    tolerance=0.2,
    window=10_000,
    window_counts=False,
    look=500,
)
CLASSES = Settings(
    "two_classes",
    blocks=3,
    input_bias=(-1.0, -3.0, -5.0),
    output_bias=(-2.0, -4.0, -6.0),
    tolerance=0.2,
    error=0.01,
    measure="absolute",
    judged_on=256,
    look=500,
)
ADDING = Settings(
    "adding",
    size=2,
    rate=0.5,
    input_bias=(-3.0, -6.0),
    output_bias_too=True,
    tolerance=0.04,
    error=0.01,
)
PRODUCT = replace(ADDING, task="multiplication", rate=0.1, input_bias=(), error=float("inf"))
ORDER = replace(
    ADDING, task="temporal_order", input_bias=(-2.0, -4.0), tolerance=0.3, error=0.1, look=500
)


def _with(settings: Settings, **arguments: Any) -> Settings:
    return replace(settings, arguments=arguments)


class Row(NamedTuple):
    """A line of the paper's tables; `limit` is ours: five times its mean or more."""

    settings: Settings
    weights: int
    trials: int
    sequences: int  # mean to success
    limit: int
    successes: int | None = None
    wrong: int | None = None  # of 2560
    note: str = ""


def _reber(blocks: int, size: int, rate: float, sequences: int, successes: int) -> Row:
    output_bias = tuple(-float(k + 1) for k in range(blocks))
    settings = replace(REBER, blocks=blocks, size=size, rate=rate, output_bias=output_bias)
    return Row(settings, {4: 264, 3: 276}[blocks], 30, sequences, 200_000, successes)


def _two(sequences: int, **arguments: Any) -> Row:
    return Row(_with(TWO, lag=100, **arguments), 10_504, 18, sequences, 100_000, 18)


def _lag(q: int, p: int, weights: int, sequences: int, limit: int) -> Row:
    return Row(_with(LAG, lag=q, distractors=p), weights, 20, sequences, limit)


def _first(length: int, information: int, sequences: int, limit: int, st1: int) -> Row:
    """3a; the longer sequences are looked at half as often."""
    settings = _with(CLASSES, length=length, information=information)
    settings = replace(settings, look=1000 if length == 1000 else 500)
    return Row(settings, 102, 10, sequences, limit, note=f"ST1 at {st1:,}")


def _second(length: int, information: int, sequences: int, limit: int) -> Row:
    """3b: noise on the information too, and a weaker criterion."""
    settings = _first(length, information, sequences, limit, 0).settings
    arguments = settings.arguments | {"noisy_information": True}
    settings = replace(settings, arguments=arguments, most_wrong=5, error=0.04)
    return Row(settings, 102, 10, sequences, limit)


def _third(information: int, sequences: int, limit: int) -> Row:
    """3c: noise on the targets."""
    settings = _with(CLASSES, length=100, information=information, noisy_targets=True)
    settings = replace(settings, rate=0.1, tolerance=0.1, error=0.015)
    return Row(settings, 102, 10, sequences, limit)


def _adding(length: int, sequences: int, limit: int, note: str = "at most") -> Row:
    return Row(_with(ADDING, length=length), 93, 10, sequences, limit, wrong=3, note=note)


def _product(below: int, sequences: int, wrong: int, limit: int) -> Row:
    settings = replace(_with(PRODUCT, length=100), most_wrong=below - 1)
    return Row(settings, 93, 10, sequences, limit, wrong=wrong)


_ORDER_3 = replace(_with(ORDER, marks=3), blocks=3, rate=0.1, input_bias=(-2.0, -4.0, -6.0))

ROWS: dict[str, Row] = {
    "1-1": _reber(4, 1, 0.1, 39_740, 30),
    "1-2": _reber(3, 2, 0.1, 21_730, 30),
    "1-3": _reber(3, 2, 0.2, 14_060, 29),
    "1-4": _reber(4, 1, 0.5, 9_500, 29),
    "1-5": _reber(3, 2, 0.5, 8_440, 30),
    "2a": _two(5_040),
    "2b": _two(5_680, random_middle=True),
    "2c-1": _lag(50, 50, 364, 30_000, 300_000),
    "2c-2": _lag(100, 100, 664, 31_000, 300_000),
    "2c-3": _lag(200, 200, 1264, 33_000, 300_000),
    "2c-4": _lag(500, 500, 3064, 38_000, 300_000),
    "2c-5": _lag(1000, 1000, 6064, 49_000, 300_000),
    "2c-6": _lag(1000, 500, 3064, 49_000, 300_000),
    "2c-7": _lag(1000, 200, 1264, 75_000, 400_000),
    "2c-8": _lag(1000, 100, 664, 135_000, 700_000),
    "2c-9": _lag(1000, 50, 364, 203_000, 1_000_000),
    "3a-1": _first(100, 3, 39_850, 400_000, 27_380),
    "3a-2": _first(100, 1, 64_330, 600_000, 58_370),
    "3a-3": _first(1000, 3, 452_460, 2_500_000, 446_850),
    "3b-1": _second(100, 3, 43_250, 400_000),
    "3b-2": _second(100, 1, 78_430, 800_000),
    "3b-3": _second(1000, 1, 485_080, 2_500_000),
    "3c-1": _third(3, 269_650, 2_700_000),
    "3c-2": _third(1, 565_640, 5_600_000),
    "4-1": _adding(100, 74_000, 1_000_000),
    "4-2": _adding(500, 209_000, 2_000_000),
    "4-3": _adding(1000, 853_000, 4_000_000, "370,000 to 2.02 million"),
    "5-1": _product(140, 482_000, 139, 4_000_000),
    "5-2": _product(13, 1_273_000, 14, 6_000_000),
    "6a": Row(_with(ORDER, marks=2), 156, 20, 31_390, 300_000, wrong=1),
    "6b": Row(_ORDER_3, 308, 10, 571_100, 3_000_000, wrong=2),
}

# What the paper leaves open, each alone: suffix, words, change of the settings.
READINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "no-slope": ("e_k without the factor f'(net_k)", {"slope": False}),
    "factor-2": ("the derivative of the squared error with its factor 2: twice α", {"rate": 1.0}),
    "half": ("gates start at 0.5, not 0", {"gate_start": 0.5}),
    "added": ("listed biases are added to random ones", {"bias_added": True}),
}
STEPWISE = ("stepwise", "weights change at every step", {"stepwise": True})
OUTPUTS = ("output-bias", "output units have a bias too", {"output_bias_too": True})
# With it the paper's figures come out (its 364 weights do not: there are 328), without it none:
# gates at 1/2, seen again at every step, drive the carousel far from 0 where h is flat.
CAROUSEL = ("carousel", "no feedback but the carousel, as in 2a", {"feedback": False})

# Of 2b, where nothing but the end can be predicted. With both the paper's figures come out.
END = ("end", "the end alone is asked for", {"end_alone": True})

ASKS = {
    "1": "Predict the next symbol of embedded Reber strings, which short memories can do too.",
    "2a": "Tell two sequences apart by their first symbol, 100 steps later.",
    "2b": "As 2a, with nothing regular between.",
    "2c": "Keep one of two symbols past a very long time full of distractors.",
    "3a": "Tell a class from a sequence's first elements; noise follows on the same line.",
    "3b": "As 3a, with noise on the first elements too.",
    "3c": "As 3a, with noise on the targets: learn their mean.",
    "4": "Add two marked real numbers of a long sequence.",
    "5": "Multiply two marked real numbers of a long sequence.",
    "6a": "Tell the order of two widely separated symbols.",
    "6b": "Tell the order of three widely separated symbols.",
}


def criterion(s: Settings) -> str:
    """When training stops, in words."""
    if s.trials_per_set:
        return "on every step of all training and test strings the possible symbols rank first"
    on = (
        f"{s.judged_on} test sequences"
        if s.judged_on
        else f"{s.window:,} training sequences in a row"
    )
    share = f"at most {s.most_wrong} of " if s.most_wrong else ""
    bound = f", mean {s.measure} error < {s.error}" if s.error < float("inf") else ""
    return f"{share}{on} {'wrong' if share else 'right'} (every |error| < {s.tolerance}){bound}"


def _experiment(name: str, row: Row) -> Experiment:
    group = name if name in ASKS else name.split("-")[0]
    published = [Published("sequences", row.sequences, SOURCE, row.trials, row.note)]
    if row.successes is not None:
        published.insert(0, Published("successes", row.successes, SOURCE, row.trials))
    if row.wrong is not None:
        published.append(Published("wrong", row.wrong, SOURCE, note=f"of {row.settings.test}"))
    return Experiment(
        name,
        NAME,
        ASKS[group],
        row.settings,
        row.trials,
        row.limit,
        criterion(row.settings),
        tuple(published),
        ("paper1997", f"experiment-{group}"),
    )


def _reading(name: str, suffix: str, words: str, change: dict[str, Any]) -> Experiment:
    literal = _experiment(name, ROWS[name])
    return replace(
        literal,
        name=f"{name}-{suffix}",
        asks=f"Reading of {name}: {words}.",
        settings=replace(literal.settings, **change),
        tags=("readings",),
    )


def _whole(
    name: str, suffix: str, words: str, change: dict[str, Any], kind: type[Whole] = Whole
) -> Experiment:
    reading = _reading(name, suffix, words, change)
    return replace(reading, settings=kind(**vars(reading.settings)))


def _readings() -> Iterator[Experiment]:
    for name in ("4-1", "4-2"):
        for suffix, (words, change) in READINGS.items():
            yield _reading(name, suffix, words, change)
    for name in ("1-1", "1-2", "1-3", "1-4", "1-5"):
        yield _reading(name, *OUTPUTS)
        yield _whole(name, "bptt", "the whole gradient", {})
        yield _whole(name, "bptt-output-bias", f"the whole gradient, {OUTPUTS[1]}", OUTPUTS[2])
        both = f"the whole gradient, {OUTPUTS[1]}, and cells alone are fed back"
        yield _whole(name, "bptt-output-bias-cells", both, OUTPUTS[2], CellsFedBack)
    for name in ("1-1", "1-2", "1-3", "1-4", "1-5", "2a", "2b"):
        yield _reading(name, *STEPWISE)
    for name in (*(n for n in ROWS if n.startswith("2c")), "4-1"):
        yield _reading(name, *CAROUSEL)
    no_slope, suffix, words, change = READINGS["no-slope"], *END
    for name in ("2a", "2b"):
        arguments = {"arguments": ROWS[name].settings.arguments | change}
        yield _reading(name, "no-slope", *no_slope)
        yield _reading(name, suffix, words, arguments)
        both = f"{words}, {no_slope[0]}"
        yield _reading(name, f"{suffix}-no-slope", both, arguments | no_slope[1])


EXPERIMENTS = [*(_experiment(n, r) for n, r in ROWS.items()), *_readings()]
