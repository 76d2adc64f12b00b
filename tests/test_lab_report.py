"""The report: complete, self-contained, and nothing in it that was not run."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gatewise import lab
from gatewise.diagnostics import study
from gatewise.lab import report
from gatewise.lab.experiment import Activity, Experiment, Outcome, Published, Spent, Work
from gatewise.lab.report.chapters import chapters
from gatewise.lab.store import Trial
from gatewise.lab.verdict import Summary, verdicts
from tests.test_lab import FAST

pytest.importorskip("scipy", reason="the extra `lab` is not installed")
CURVE = ((100, 0.5), (200, 0.1))
SHOWN = Activity({"input gate": [0.0, 1.0, 0.0], "cell": [0.0, 1.0, 1.0]}, (1,), "marked at 1")


def filled(path: Path) -> Path:
    """Ten trials of a row, four with an outcome for each of two kinds, one left in flight."""
    mine = Experiment(
        "mine<1>",
        "claims",
        "Is it & will it be?",
        FAST.settings,
        5,
        100,
        "in words",
        (Published("successes", 9, "somebody", 10), Published("sequences", 150, "else", 10)),
    )
    with lab.Store(path) as store:
        run = store.begin_run()
        for first in range(5):
            work = Work(3, first, 1, 100)
            store.begin(run, mine, work)
            if first < 4:
                numbers = {"weights": 93.0, "test_wrong": 2.0, "test_count": 2560.0}
                ended = Outcome(first, first > 0, 100 + 50 * first, numbers, CURVE, SHOWN)
                store.add(run, mine, work, ended, Spent(1.5, 1.0))
                store.end(mine, work)
    return path


def page(path: Path) -> str:
    with lab.Results([path]) as results:
        return report.html(report.rows(results, [FAST]), list(study(["rnn"], 20, 4, 0, 0)))


class Checker(HTMLParser):
    """Every element that is opened is closed; what is linked exists; nothing comes from outside."""

    VOID = {"meta", "br", "img", "link", "hr"}

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.open += [] if tag in self.VOID else [tag]
        self.ids += [v for k, v in attrs if k == "id" and v]
        target = given.get("href") or given.get("xlink:href") or ""
        self.links += [target[1:]] if target.startswith("#") else []
        assert tag != "script" and not target.startswith("http")
        assert (given.get("src") or "data:").startswith("data:")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing(tmp_path: Path) -> None:
    text = page(filled(tmp_path / "r.sqlite"))
    checker = Checker()
    checker.feed(text)
    assert not checker.open
    assert len(set(checker.ids)) == len(checker.ids)
    assert set(checker.links) <= set(checker.ids)


def test_the_page_says_what_was_run(tmp_path: Path) -> None:
    text = page(filled(tmp_path / "r.sqlite"))
    assert "mine&lt;1&gt;" in text and "Is it &amp; will it be?" in text  # a user's words are text
    assert "3 of 4" in text and "75% [30%, 95%]" in text  # Wilson's interval for 3 of 4
    assert "200 [76, 324]; median 200; 150 … 250" in text  # t = 4.303 with 2 degrees of freedom
    assert "1 at 0% of the most they may need" in text
    assert text.count("not decided") >= 4  # a trial is missing
    assert "marked at 1" in text and "input gate" in text
    assert f"gatewise lab run {FAST.name}" in text  # not run: with its command
    assert text.count("<svg") == 5  # the overview, gradients, the clearest gate; curves and gates


def test_markdown_has_a_row_per_experiment(tmp_path: Path) -> None:
    with lab.Results([filled(tmp_path / "r.sqlite")]) as results:
        found = report.rows(results, [FAST])
    drawn = report.pictures(found, [], "pictures")
    text = report.markdown(found, drawn)
    assert all(f"]({address})" in text and seen in text for address, (seen, _) in drawn.items())
    assert len(drawn) == 3  # the gate opens at the mark, so that it is shown
    [row] = [line for line in text.splitlines() if line.startswith("| mine<1>")]
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) == 2 and all(
        len({line.count("|") for line in table.splitlines()}) == 1 for table in tables
    )
    assert "3 of 4" in row and "somebody: 9 of 10 ?; else: 150 sequences ?" in row and "93" in row
    assert re.search(rf"- {FAST.name}: .*`gatewise lab run {FAST.name}`", text)
    assert "torch" in text


def test_another_limit_is_another_row_and_says_so(tmp_path: Path) -> None:
    short = replace(FAST, limit=7)
    with lab.Store(tmp_path / "r.sqlite") as store:
        store.begin(store.begin_run(), short, Work(0, 0, 1, 7))
    with lab.Results([tmp_path / "r.sqlite"]) as results:
        first, second = report.rows(results, [FAST])
    assert not first.begun and second.begun and first.anchor != second.anchor
    assert second.command == f"gatewise lab run {FAST.name} --limit 7"


def test_an_experiment_is_read_back_as_it_was() -> None:
    assert Experiment.from_record(FAST.record()).key == FAST.key


def row(name: str, published: tuple[Published, ...], ends: list[int | None]) -> report.Row:
    """An experiment whose trials needed so many sequences, or failed (None)."""
    made = replace(FAST, name=name, limit=1000, published=published, trials=len(ends), tags=())
    trials = tuple(
        Trial(
            Outcome(k, n is not None, n or 1000),
            0,
            (k, 1),
            60.0,
            None,
            f"2026-01-01T00:0{k}:30",
            {"cores": 2},
        )
        for k, n in enumerate(ends)
    )
    summary = Summary(made, trials, len(ends))
    return report.Row(made.key, summary, tuple(verdicts(summary)), ())


def test_a_network_that_diverged_leaves_the_others_figures() -> None:
    whole = row("some", (), [500, None, 600])
    errors = (0.25, float("nan"), 0.75)
    trials = tuple(
        replace(t, outcome=replace(t.outcome, numbers={"test_error": e}))
        for t, e in zip(whole.summary.trials, errors, strict=True)
    )
    told = dict(replace(whole, summary=replace(whole.summary, trials=trials)).figures)
    assert told == {"test error": "0.5 (0.25 … 0.75); no number in 1 of 3"}


def test_what_was_found_is_said_by_kind() -> None:
    five, mean = Published("successes", 5, "P", 5), Published("sequences", 100, "P", 5)
    alike: list[int | None] = [90, 95, 100, 105, 110]
    [chapter] = chapters(
        [
            row("rarer", (five,), [None] * 5),
            row("holds", (mean,), alike),
            row("slower", (mean,), [n * 3 for n in alike if n]),
            row("plain", (), [*alike[:4], None]),
        ]
    )
    assert chapter.state == "all complete" and chapter.matrix is None
    assert list(chapter.findings()) == [
        "Of 4 complete experiments, every trial succeeds in 2, none in 1.",
        "Every published figure holds: holds.",
        "Learnt less often than published: rarer (0 of 5, published 5 of 5).",
        "Learnt from more sequences: slower (3 times).",
        "Solved in some: plain (4 of 5).",
    ]
    # Five minutes of overlapping and touching minutes, in four experiments at once.
    assert chapter.elapsed == 300 and chapter.spent.clock == 4 * 5 * 60


def test_names_of_two_axes_make_a_table() -> None:
    made = [row(f"x/{a}/{b}", (), [1, 2]) for a in "abc" for b in "de" if a + b != "ce"]
    [chapter] = chapters(made)
    assert chapter.matrix is not None and chapter.matrix.columns == ("d", "e")
    assert chapter.matrix.lines == {
        "a": tuple(made[:2]),
        "b": tuple(made[2:4]),
        "c": (made[4], None),
    }


def test_readings_of_rows_make_a_table() -> None:
    made = [row(f"{a}-{b}", (), [1]) for a in ("1-1", "4-1") for b in ("mine", "mine-late")]
    [chapter] = chapters(made)
    assert chapter.matrix is not None and chapter.matrix.columns == ("mine", "mine-late")
    assert list(chapter.matrix.lines) == ["1-1", "4-1"]
