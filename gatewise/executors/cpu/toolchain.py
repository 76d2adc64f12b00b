"""C compilers: finding one, compiling once, keeping the result.

Ladder: $GATEWISE_CC, then cc, gcc, clang, then the `ziglang` wheel; at its end one warning
that names what was tried, and the reference executor does the work.

The cache ($GATEWISE_CACHE, else $XDG_CACHE_HOME/gatewise, else ~/.cache/gatewise) belongs to
the user alone. A file is written under a temporary name and renamed, under a lock per key, so
that many processes may ask for the same kernel at once; a cache that cannot be written is
replaced by a temporary folder for the life of the process.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# -O2: what must be unrolled says so itself; -O3 compiles 1.6 times longer for the same code.
# -ffp-contract=fast lets products and sums fuse, which only adds accuracy. The two "no" flags
# give up errno and floating-point exceptions, which nothing here reads. -ffast-math is not
# used: it would remove the rounding trick in vector.h.
FLAGS = (
    "-O2",
    "-std=gnu11",
    "-shared",
    "-fPIC",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
)
LIBRARIES = ("-lm", "-lpthread")
_LONGEST_COMPILE_S = 300


class NoCompilerError(RuntimeError):
    """No compiler of the ladder produced a library; the text says what was tried."""


@dataclass(frozen=True)
class Compiler:
    """A command that compiles C, and the flags that select this machine's instructions."""

    command: tuple[str, ...]
    native: tuple[str, ...]

    @functools.cached_property
    def identity(self) -> str:
        """Changes when the compiler does; without starting it."""
        path = shutil.which(self.command[0]) or self.command[0]
        stat = os.stat(os.path.realpath(path))
        return f"{shlex.join(self.command)} {stat.st_size} {stat.st_mtime_ns}"

    def compile(self, source: Path, target: Path) -> str | None:
        """Compile; None on success, otherwise what the compiler said."""
        command = [*self.command, *self.native, *FLAGS, "-o", str(target), str(source), *LIBRARIES]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_LONGEST_COMPILE_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{shlex.join(self.command)}: {error}"
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            return f"{shlex.join(self.command)}: {lines[0]}"
        return None


def _native_flags() -> tuple[str, ...]:
    if platform.machine() in ("arm64", "aarch64"):
        return ("-mcpu=native",)
    # GCC's tuning for Zen, and from 13 on its general one, parts some fused products of 32 bytes
    # into two operations. Which, depends on the tile, and so would the last bits of a number: two
    # threads would not give what one gives. Haswell's tuning parts none.
    features = cpu_features().split()
    narrow = "fma" in features and "avx512f" not in features
    return ("-march=native", "-mtune=haswell") if narrow else ("-march=native",)


def ladder() -> list[Compiler]:
    """The compilers to try, first to last."""
    commands: list[tuple[str, ...]] = []
    chosen = os.environ.get("GATEWISE_CC", "").strip()
    if chosen:
        commands.append(tuple(shlex.split(chosen)))
    commands += [(name,) for name in ("cc", "gcc", "clang")]
    found = [c for c in commands if shutil.which(c[0])]
    if importlib.util.find_spec("ziglang"):
        found.append((sys.executable, "-m", "ziglang", "cc"))
    return [Compiler(c, _native_flags()) for c in dict.fromkeys(found)]


def tried() -> str:
    """The ladder in words, for messages."""
    chosen = os.environ.get("GATEWISE_CC", "").strip()
    names = [f"$GATEWISE_CC={chosen}"] if chosen else ["$GATEWISE_CC (not set)"]
    return ", ".join([*names, "cc", "gcc", "clang", "the ziglang wheel"])


@functools.cache
def cpu_features() -> str:
    """What tells one processor's instruction set from another's."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as f:
            lines = {line.split(":")[0].strip(): line for line in f if ":" in line}
        return lines.get("flags") or lines.get("Features") or platform.machine()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"


def digest(*parts: str) -> str:
    """A name for everything that decides the compiled result."""
    h = hashlib.sha256()
    for part in (*parts, *FLAGS, cpu_features(), sys.platform):
        h.update(part.encode() + b"\0")
    return h.hexdigest()[:32]


@functools.cache
def _temporary_cache() -> Path:
    path = Path(tempfile.mkdtemp(prefix="gatewise-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def cache_folder() -> Path:
    """The user's kernel cache, made if need be; a temporary folder if it cannot be used."""
    named = os.environ.get("GATEWISE_CACHE")
    base = os.environ.get("XDG_CACHE_HOME")
    if named:
        path = Path(named)
    else:
        path = (Path(base) if base else Path.home() / ".cache") / "gatewise"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        # What lies here is executed: nobody else may have put it there.
        stat = path.stat()
        if hasattr(os, "getuid") and (stat.st_uid != os.getuid() or stat.st_mode & 0o022):
            return _temporary_cache()
        return path if os.access(path, os.W_OK) else _temporary_cache()
    except OSError:
        return _temporary_cache()


@contextmanager
def _locked(path: Path):
    with open(path, "w") as f:
        try:
            import fcntl

            fcntl.flock(f, fcntl.LOCK_EX)
        except (ImportError, OSError):
            f.write("")  # no locks here: the worst case is the same kernel compiled twice
        yield


def library(key: str, source: Callable[[], str]) -> ctypes.CDLL:
    """The library named `key`, compiled from `source()` where the cache has none.

    Raises NoCompilerError.
    """
    folder = cache_folder()
    errors: list[str] = []
    compilers = ladder()
    for compiler in compilers:
        name = digest(key, compiler.identity, *compiler.native)
        path = folder / f"{name}.so"
        loaded = _load(path)
        if loaded is not None:
            return loaded
        with _locked(folder / f"{name}.lock"):
            loaded = _load(path)  # another process may have made it meanwhile
            if loaded is not None:
                return loaded
            error = _compile(compiler, source(), path)
        if error is None:
            loaded = _load(path)
            if loaded is not None:
                return loaded
            error = f"{shlex.join(compiler.command)}: the compiled library does not load"
        errors.append(error)
    raise NoCompilerError(
        f"no working C compiler (tried {tried()})" + "".join(f"; {e}" for e in errors)
    )


def _compile(compiler: Compiler, text: str, path: Path) -> str | None:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="compiling-") as work:
        source, target = Path(work) / "kernel.c", Path(work) / "kernel.so"
        source.write_text(text, encoding="utf-8")
        error = compiler.compile(source, target)
        if error is None:
            seal = Path(work) / "kernel.sha256"
            seal.write_text(hashlib.sha256(target.read_bytes()).hexdigest())
            os.replace(seal, path.with_suffix(".sha256"))
            os.replace(target, path)
        return error


def _load(path: Path) -> ctypes.CDLL | None:
    """The library at `path`, if it is there and whole.

    Loading one that was cut short, by a full disk say, would end the process.
    """
    try:
        sealed = path.with_suffix(".sha256").read_text()
        if hashlib.sha256(path.read_bytes()).hexdigest() != sealed:
            return None
        return ctypes.CDLL(str(path))
    except OSError:
        return None


@functools.cache
def warn_no_compiler(message: str) -> None:
    """Said once per process."""
    warnings.warn(
        f"gatewise runs on the reference executor, many times slower: {message}. "
        "Install a C compiler or `pip install gatewise[cc]`.",
        RuntimeWarning,
        stacklevel=2,
    )
