"""Imports point one way, and modules stay small."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import gatewise

ROOT = Path(gatewise.__file__).parent
LIMIT = 500  # lines: what one can still read in one sitting

# Each part of the package, and what it may import besides itself. A part may always import what
# the parts it names may import. A new part must be placed here.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "equations": (),
    "cells": ("equations",),
    "executors": ("cells",),
    "layers": ("executors",),
    "learning": ("layers",),
    "diagnostics": ("layers",),
    "streaming": ("layers",),
    "export": ("layers",),
    "tasks": ("layers",),
    "models": ("layers",),
    "lab": ("models", "learning", "diagnostics", "tasks", "benchmark"),
    "benchmark": ("models", "tasks"),
    "console": ("benchmark",),
    "demo": ("console",),
    "cli": ("lab", "streaming", "export", "demo"),
    "__main__": ("cli",),
}
# Programs may stand on the root, the table of contents of everything below them.
PROGRAMS = ("benchmark", "console", "demo", "cli", "__main__")
MODULES = sorted(p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py")


def below(part: str) -> set[str]:
    direct = MAY_IMPORT[part]
    return {*direct}.union(*(below(d) for d in direct))


def part_of(module: tuple[str, ...]) -> str:
    """The part of `gatewise.…`: layers, _layers and layers_x belong to the part `layers`."""
    name = module[1] if module[1] == "__main__" else module[1].strip("_")
    if name not in MAY_IMPORT and name.split("_")[0] in MAY_IMPORT:
        name = name.split("_")[0]
    assert name in MAY_IMPORT, f"{'.'.join(module)}: place {name!r} in MAY_IMPORT"
    return name


def is_module(name: str) -> bool:
    return (ROOT / name).is_dir() or (ROOT / f"{name}.py").is_file()


def imports(path: Path) -> list[tuple[int, tuple[str, ...]]]:
    """(line, module) of every import of gatewise in the file, inside functions too."""
    package = ("gatewise", *path.relative_to(ROOT).parts[:-1])
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names: list[tuple[str, ...]] = []
        if isinstance(node, ast.Import):
            names = [tuple(a.name.split(".")) for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = base + tuple((node.module or "").split(".") if node.module else ())
            # `from gatewise import x` imports the module x, or a name of the root.
            names = [(*module, a.name) if len(module) == 1 else module for a in node.names]
        found += [(node.lineno, n) for n in names if n[0] == "gatewise"]
    return found


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_imports_point_one_way(path: Path) -> None:
    here = part_of(("gatewise", *path.relative_to(ROOT).with_suffix("").parts))
    allowed = below(here) | {here}
    for line, module in imports(path):
        at = f"{ids(path)}:{line} imports {'.'.join(module)}"
        if module[1:] and is_module(module[1]):
            assert part_of(module) in allowed, f"{at}; {here} may import {sorted(allowed)}"
        else:
            assert here in PROGRAMS, f"{at}: import it from the part that defines it"


@pytest.mark.parametrize("path", [ROOT / "__init__.py", *MODULES], ids=ids)
def test_a_module_fits_in_one_sitting(path: Path) -> None:
    lines = len(path.read_text("utf-8").splitlines())
    assert lines <= LIMIT, f"{ids(path)} has {lines} lines"


def test_order_has_no_cycle() -> None:
    for part in MAY_IMPORT:
        assert part not in below(part)


def test_the_reader_of_imports_sees_every_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    source = tmp_path / "cells" / "x.py"
    source.parent.mkdir()
    source.write_text(
        "import gatewise.layers as l\n"
        "from gatewise.models.text import Text\n"
        "from gatewise import cli, tanh\n"
        "from ..executors import run\n"
        "from . import lstm\n"
        "import torch\n"
        "def f():\n    from gatewise.lab import trial\n"
    )
    assert imports(source) == [
        (1, ("gatewise", "layers")),
        (2, ("gatewise", "models", "text")),
        (3, ("gatewise", "cli")),
        (3, ("gatewise", "tanh")),
        (4, ("gatewise", "executors")),
        (5, ("gatewise", "cells")),
        (8, ("gatewise", "lab")),
    ]
