"""The command line: `gatewise`, and `python -m gatewise`."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

import typer

from gatewise.cli.app import app
from gatewise.cli.console import STOPPED, ReaderGone
from gatewise.cli.errors import BadInput

__all__ = ["main", "run"]


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(given or ["--help"], prog_name="gatewise", standalone_mode=False)
        if sys.stdout is not None:  # None where the shell has closed it
            sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except BadInput as error:
        return _complain(str(error))
    except typer.Exit as stop:
        return stop.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return STOPPED
    except (ReaderGone, BrokenPipeError):
        _leave_stdout()
        return 0
    except OSError as error:  # no room, no permission: what a command writes to has failed
        _leave_stdout()
        return _complain(str(error))
    except Exception as error:
        message = getattr(error, "format_message", None)  # what the parser says of its input
        if message is None:
            raise
        return _complain(message())


def _leave_stdout() -> None:
    """Python must not try to flush into a pipe that is closed, or a full disk, at exit."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(message: str) -> int:
    line = " ".join(message.split())
    print(f"gatewise: {line}", file=sys.stderr)
    return 2


def main() -> None:
    """The entry point of `gatewise` and `python -m gatewise`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    sys.exit(run())
