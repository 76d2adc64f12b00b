"""The table of contents: complete, and free until something is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import gatewise


def names_for_type_checkers() -> set[str]:
    """What the TYPE_CHECKING block of the package imports."""
    tree = ast.parse(Path(gatewise.__file__).read_text("utf-8"))
    (block,) = (n for n in tree.body if isinstance(n, ast.If))
    found = (n for n in ast.walk(block) if isinstance(n, ast.ImportFrom))
    return {alias.asname or alias.name for node in found for alias in node.names}


@pytest.mark.parametrize("name", gatewise.__all__)
def test_every_name_is_there_and_listed(name: str) -> None:
    assert getattr(gatewise, name) is getattr(gatewise, name)
    assert name in dir(gatewise)


def test_type_checkers_see_what_there_is_at_run_time() -> None:
    assert names_for_type_checkers() == set(gatewise.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'gatewise' has no attribute 'Lstm'"):
        _ = gatewise.Lstm


@pytest.mark.parametrize("arguments", ["['--help']", "['train', '--help']", "['shw']", "['show']"])
def test_help_and_bad_usage_load_neither_torch_nor_sympy(arguments: str) -> None:
    program = (
        "import sys; from gatewise.cli import run; "
        f"run({arguments}); sys.exit(bool({{'torch', 'sympy', 'numpy'}} & {{*sys.modules}}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 0
