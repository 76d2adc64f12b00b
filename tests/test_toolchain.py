"""Finding a compiler, compiling once, and what happens where that fails."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import gatewise as gw
from gatewise.equations import trace
from gatewise.executors import cpu
from gatewise.executors.cpu import kernel as kernels
from gatewise.executors.cpu import toolchain

pytestmark = pytest.mark.skipif(not toolchain.ladder(), reason="this machine has no C compiler")

RUN = """
import torch, gatewise as gw
layer = gw.Recurrent("lstm-coupled", 3, 4)
torch.manual_seed(0)
x = torch.randn(5, 2, 3)
print(gw.explain(layer, x).executor, layer(x)[0].isfinite().all().item())
"""


def run_python(code: str, cache: Path, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "default", "-c", code],
        env={**os.environ, "GATEWISE_CACHE": str(cache), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(gw.__file__).parents[1],
    )


def test_eight_processes_compile_the_same_cell_at_once(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    started = [run_python(RUN, cache) for _ in range(8)]
    results = [p.communicate(timeout=240) for p in started]
    assert [out.split() for out, _ in results] == [["cpu", "True"]] * 8, results
    libraries = list(cache.glob("*.so"))
    assert len(libraries) == 2  # the kernel and the thread pool, once each
    assert not list(cache.glob("compiling-*"))
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700


def test_without_a_compiler_everything_runs_on_the_reference(tmp_path: Path) -> None:
    empty = tmp_path / "no-programs"
    empty.mkdir()
    hide = "import importlib.util as u; f = u.find_spec\n"
    hide += "u.find_spec = lambda n, *a: None if n == 'ziglang' else f(n, *a)\n"
    twice = RUN + "\nprint(gw.GRU(3, 4)(x)[0].shape)\nprint(gw.explain(layer, x))"
    out, err = run_python(hide + twice, tmp_path / "cache", PATH=str(empty)).communicate(
        timeout=120
    )
    assert out.startswith("reference True")
    assert "no working C compiler (tried $GATEWISE_CC (not set), cc, gcc, clang, the zig" in out
    assert err.count("RuntimeWarning") == 1, err
    assert "pip install gatewise[cc]" in err


def test_a_chosen_compiler_that_fails_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken-cc"
    broken.write_text("#!/bin/sh\necho cannot compile today >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("GATEWISE_CC", str(broken))
    monkeypatch.setenv("GATEWISE_CACHE", str(tmp_path / "cache"))
    assert cpu.prepare(trace(gw.get_cell("rnn"))) > 0
    monkeypatch.setattr(toolchain, "ladder", lambda: [toolchain.Compiler((str(broken),), ())])
    with pytest.raises(toolchain.NoCompilerError, match="cannot compile today"):
        cpu.prepare(trace(gw.get_cell("rnn-relu")))


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_cache_that_cannot_be_trusted_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    monkeypatch.setenv("GATEWISE_CACHE", str(open_to_all))
    assert toolchain.cache_folder() != open_to_all  # anybody could put a library there
    read_only = tmp_path / "read-only"
    read_only.mkdir()
    monkeypatch.setenv("GATEWISE_CACHE", str(read_only))
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != read_only)  # root may write
    assert toolchain.cache_folder() != read_only
    monkeypatch.setenv("GATEWISE_CACHE", str(tmp_path / "a-file"))
    (tmp_path / "a-file").write_text("not a folder")
    assert toolchain.cache_folder() != tmp_path / "a-file"
    assert cpu.prepare(trace(gw.get_cell("rnn"))) > 0


def test_a_damaged_library_is_compiled_again(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    run_python(RUN, cache).communicate(timeout=120)
    libraries = sorted(cache.glob("*.so"))
    sizes = [library.stat().st_size for library in libraries]
    for library in libraries:
        library.write_bytes(library.read_bytes()[:1000])
    out, err = run_python(RUN, cache).communicate(timeout=120)
    assert out.split() == ["cpu", "True"], err
    assert [library.stat().st_size for library in libraries] == sizes


def test_the_key_tells_cells_types_and_compilers_apart() -> None:
    spec = kernels.KernelSpec
    lstm, gru = trace(gw.get_cell("lstm")), trace(gw.get_cell("gru"))
    keys = {
        kernels._fingerprint(s)
        for s in (
            spec(lstm, torch.float32, True),
            spec(lstm, torch.float64, True),
            spec(lstm, torch.float32, False),
            spec(lstm, torch.float32, True, ("c",)),
            spec(lstm, torch.float32, True, (), ("c",)),
            spec(gru, torch.float32, True),
        )
    }
    assert len(keys) == 6
    same = trace(gw.cells.LSTM())
    assert kernels._fingerprint(spec(same, torch.float32, True)) in keys


NARROW = {"x86_64": ["-march=haswell", "-march=x86-64"], "AMD64": ["-march=haswell"]}


@pytest.mark.parametrize("flag", NARROW.get(os.uname().machine, []))
@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_narrower_instruction_sets_compute_the_same(
    flag: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = gw.Recurrent(name, 5, 21)
    x = torch.randn(7, 9, 5, requires_grad=True)
    leaves = [x, *layer.parameters()]
    wide = torch.autograd.grad(layer(x)[0].square().sum(), leaves)
    monkeypatch.setattr(toolchain, "_native_flags", lambda: (flag,))
    monkeypatch.setattr(kernels, "_kernels", {})
    narrow = torch.autograd.grad(layer(x)[0].square().sum(), leaves)
    made = kernels.kernel(trace(layer.cell), torch.float32, True)
    assert not isinstance(made, str)
    assert made.lanes == {"-march=haswell": 8, "-march=x86-64": 4}[flag]
    for a, b in zip(narrow, wide, strict=True):
        # float32 sums in another order: a few units in the last place of the largest number
        assert (a - b).norm() <= 1e-6 * b.norm()


def test_arm64_compiles() -> None:
    zig = pytest.importorskip("ziglang")
    assert zig
    import tempfile

    with tempfile.TemporaryDirectory() as work:
        source = Path(work) / "kernel.c"
        source.write_text(cpu.source(trace(gw.get_cell("lstm"))))
        compiler = toolchain.Compiler(
            (sys.executable, "-m", "ziglang", "cc"), ("-target", "aarch64-linux-gnu")
        )
        assert compiler.compile(source, Path(work) / "kernel.so") is None


def test_a_layer_that_is_never_differentiated_backward_frees_its_buffers() -> None:
    import gc
    import weakref

    layer, x = gw.LSTM(3, 16), torch.randn(4, 2, 3)
    output, _ = layer(x)
    alive = weakref.ref(output)
    gc.disable()  # by reference counts alone: the graph must hold no cycle
    try:
        del output, _
        assert alive() is None
    finally:
        gc.enable()
