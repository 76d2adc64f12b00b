"""Every Python block of the documentation runs, and the README's table tells the truth."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from gatewise.executors import cpu
from tests.support import options, problem

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
# Indented, too: a block may stand in a list.
BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


def blocks() -> list[object]:
    found = []
    for page in PAGES:
        text = page.read_text("utf-8")
        for match in BLOCK.finditer(text):
            indent, code = match.groups()
            line = text[: match.start()].count("\n") + 2
            code = re.sub(f"^{indent}", "", code, flags=re.MULTILINE)
            found.append(pytest.param(page, line, code, id=f"{page.name}:{line}"))
    return found


@pytest.mark.parametrize(("page", "line", "code"), blocks())
def test_block_runs(
    page: Path, line: int, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each block stands alone; lines are counted so that an error points into the page."""
    monkeypatch.chdir(tmp_path)  # what an example writes does not land in the repository
    exec(compile("\n" * (line - 1) + code, str(page), "exec"), {"__name__": "example"})


def test_readme_has_its_examples() -> None:
    code = [m.group(2) for m in BLOCK.finditer((ROOT / "README.md").read_text("utf-8"))]
    assert any("gw.LSTM(" in c for c in code)
    assert any("(Cell)" in c for c in code)


def what_runs_where() -> dict[str, str]:
    """First column of the README's table -> its last column."""
    text = (ROOT / "README.md").read_text("utf-8").split("## What runs where")[1]
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return {row[0].strip(): row[-1].strip() for row in rows[2:]}


def obstacles(cell: str, dtype: torch.dtype, *chosen: str, proj_size: int = 0) -> list[str]:
    p = problem(cell, proj_size=proj_size)
    return cpu.obstacles(options(p, *chosen).cast(dtype).request())


def test_table_of_what_runs_where_is_true() -> None:
    if obstacles("lstm", torch.float32):
        pytest.skip("no C compiler: no kernels")
    table = what_runs_where()
    measured = {
        "every cell": obstacles("lstm", torch.float32),
        "… or several": obstacles("lstm-layernorm", torch.float32)
        + obstacles("gru-reset-before", torch.float32),
        "a product inside the step with": obstacles(
            "gru-reset-before", torch.float32, "feedback_mask"
        ),
        "float32, float64": obstacles("lstm", torch.float64),
        "float16, bfloat16": obstacles("lstm", torch.bfloat16),
        "`lengths`": obstacles("lstm", torch.float32, "lengths", "resets", "reverse", "record"),
        "zoneout": obstacles("lstm", torch.float32, "zoneout", "feedback_mask"),
        "`proj_size`": obstacles("lstm", torch.float32, proj_size=3),
    }
    for start, found in measured.items():
        [claim] = [c for row, c in table.items() if row.startswith(start)]
        assert claim == ("reference" if found else "yes"), f"{start}: {found or 'a kernel'}"


def test_architecture_names_what_exists() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    for path in re.findall(r"`((?:gatewise|tests)/[\w/.]+)`", text):
        assert (ROOT / path).exists(), f"ARCHITECTURE.md names {path}"
