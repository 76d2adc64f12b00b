"""Every cell of the registry on every executor, against the float64 reference, by name."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gatewise.cells import REGISTRY
from gatewise.executors import (
    EXECUTORS,
    Request,
    Result,
    SlowPathError,
    choose,
    cpu,
    reference,
    run,
    scan,
)
from tests.support import (
    FORWARD,
    GRADIENT,
    Problem,
    assert_close,
    looseness,
    named,
    options,
    problem,
    run_with_gradients,
)

# (executor, dtype): the float64 reference is the judge and not among them.
CANDIDATES = {
    "reference-float32": ("reference", torch.float32),
    "cpu-float32": ("cpu", torch.float32),
    "cpu-float64": ("cpu", torch.float64),
}
EVERYTHING = ("lengths", "resets", "reverse", "record", "feedback_mask", "zoneout")
# All but the last run on the same kernel; what is recorded and zoned out is compiled in, and
# compiling is most of the time these tests take. So the combinations below are for cells that
# differ most: plain, split gate, blocks with gate feedback, per-unit parameters.
OPTIONS = [(), ("lengths",), ("resets",), ("reverse",), ("feedback_mask",), EVERYTHING]
COMPILED_IN = [("record",), ("zoneout",), ("zoneout-eval", "lengths")]
REPRESENTATIVES = ["lstm", "gru", "lstm-1997-blocks", "lstm-peephole"]


def case(cell: str, candidate: str, chosen: tuple[str, ...]) -> object:
    label = "everything" if chosen == EVERYTHING else "+".join(chosen) or "plain"
    return pytest.param(cell, *CANDIDATES[candidate], chosen, id=f"{cell}-{candidate}-{label}")


CASES = [
    case(cell, candidate, chosen)
    for cell in REGISTRY
    for candidate in CANDIDATES
    for chosen in OPTIONS
    if chosen != EVERYTHING or candidate != "cpu-float64" or cell in REPRESENTATIVES
] + [case(cell, "cpu-float32", chosen) for cell in REPRESENTATIVES for chosen in COMPILED_IN]
SHAPES = [
    # steps, batch, inputs, hidden: below, at and beyond whole vectors and tiles
    (1, 1, 1, 1),
    (9, 17, 3, 33),
    (9, 1, 5, 33),
    (4, 3, 0, 7),
    (0, 3, 5, 7),
    (9, 0, 5, 7),
]


def executor(name: str) -> Callable[[Request], Result]:
    """Runs a request on `name`.

    Where the kernel has obstacles, it runs where the choice leads, and that choice must name
    them: falling back is allowed, falling back in silence is not.
    """

    def execute(request: Request) -> Result:
        obstacles = tuple(cpu.obstacles(request)) if name == "cpu" else ()
        if obstacles:
            chosen = choose(request)
            assert chosen.executor == ("reference" if scan.obstacles(request) else "scan")
            assert chosen.reasons == obstacles
            assert obstacles[0] in str(chosen)
            with pytest.raises(ValueError, match=re.escape(obstacles[0])):
                choose(request, "cpu")
            if chosen.executor == "reference":
                with pytest.raises(SlowPathError, match=re.escape(obstacles[0])):
                    choose(request, strict=True)
            return run(request)
        return run(request, name)

    return execute


def check(p: Problem, name: str, dtype: torch.dtype) -> None:
    expected, slopes = run_with_gradients(p, reference.run)
    actual, gradients = run_with_gradients(p.cast(dtype), executor(name))
    assert {t.dtype for t in actual.values()} == {dtype}
    assert_close(actual, expected, FORWARD[dtype] * looseness(p))
    assert_close(gradients, slopes, GRADIENT[dtype] * looseness(p), "gradient by ")


@pytest.mark.parametrize(("cell", "name", "dtype", "chosen"), CASES)
def test_options(cell: str, name: str, dtype: torch.dtype, chosen: tuple[str, ...]) -> None:
    check(options(problem(cell), *chosen), name, dtype)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "x".join(map(str, s)))
@pytest.mark.parametrize(("name", "dtype"), CANDIDATES.values(), ids=CANDIDATES)
@pytest.mark.parametrize("cell", REGISTRY)
def test_shapes(cell: str, name: str, dtype: torch.dtype, shape: tuple[int, int, int, int]) -> None:
    steps, batch, inputs, hidden = shape
    if cell == "lstm-layernorm":
        # One normalised input, or unit, does not depend on its own size: gradients are zero up
        # to rounding and have no relative error.
        inputs, hidden = max(inputs, 2), max(hidden, 2)
    # Seed 3: at 1x1x1x1 the one unit does not saturate (see support.problem).
    check(problem(cell, steps, batch, inputs, hidden, seed=3), name, dtype)


@pytest.mark.parametrize(
    ("cell", "chosen"),
    [(cell, ()) for cell in REGISTRY]
    + [(cell, (*EVERYTHING[:-1], "zoneout-eval")) for cell in REPRESENTATIVES],
    ids=lambda v: v if isinstance(v, str) else "everything" if v else "plain",
)
def test_inference(cell: str, chosen: tuple[str, ...]) -> None:
    """Without gradients another kernel runs, one that keeps nothing for a backward pass."""
    p = options(problem(cell, batch=5), *chosen)
    with torch.no_grad():
        actual = named(executor("cpu")(p.cast(torch.float32).request()))
        expected = named(reference.run(p.request()))
    assert_close(actual, expected, FORWARD[torch.float32] * looseness(p))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("chosen", [("lengths", "resets"), EVERYTHING])
def test_projection(chosen: tuple[str, ...], dtype: torch.dtype) -> None:
    for shape in ((9, 3, 5, 7), (5, 17, 3, 33)):
        p = options(problem("lstm", *shape, proj_size=shape[-1] // 2), *chosen)
        if p.options.get("feedback_mask") is not None:  # of what is fed back: the projected output
            p = p.with_options(feedback_mask=p.options["feedback_mask"][:, : shape[-1] // 2])
        check(p, "cpu", dtype)
        if _a_compiler_is_there():
            assert cpu.obstacles(p.cast(dtype).request()) == []


@pytest.mark.parametrize("cell", REGISTRY)
def test_without_bias(cell: str) -> None:
    check(problem(cell, bias=False), "cpu", torch.float32)


@pytest.mark.parametrize("cell", ["lstm", "gru", "lstm-1997-blocks", "lstm-peephole"])
@given(
    steps=st.integers(0, 6),
    batch=st.integers(0, 9),
    inputs=st.integers(1, 9),
    hidden=st.integers(1, 40),
    chosen=st.sets(st.sampled_from(["lengths", "resets", "reverse", "feedback_mask"])),
)
def test_any_shape_and_options(
    cell: str, steps: int, batch: int, inputs: int, hidden: int, chosen: set[str]
) -> None:
    p = problem(cell, steps, batch, inputs, hidden, seed=steps + 7 * hidden)
    check(options(p, *sorted(chosen)), "cpu", torch.float32)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_same_bits_every_time(cell: str) -> None:
    p = options(problem(cell, 9, 17, 5, 33), "lengths", "resets").cast(torch.float32)
    first, second = (run_with_gradients(p, executor("cpu")) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert all(torch.equal(a[n], b[n]) for n in a)


@pytest.mark.parametrize("batch", [1, 17])
def test_many_threads(batch: int) -> None:
    """Large enough to be split: over rows where there are some, over units where there are not."""
    torch.set_num_threads(3)
    check(problem("lstm", 6, batch, 40, 300), "cpu", torch.float32)


def test_a_long_sequence_keeps_the_contract() -> None:
    """The contract holds up to 1000 steps: errors do not pile up over time."""
    check(problem("lstm", 1000, 2, 3, 17), "cpu", torch.float32)


def test_carried_chunks_equal_one_run() -> None:
    p = problem("lstm", steps=9).cast(torch.float32)
    whole = executor("cpu")(p.request())
    first = Problem(p.layout, p.x[:4], p.state, p.parameters).request()
    begun = executor("cpu")(first)
    rest = Request(first.trace, first.weights, p.x[4:], begun.state)
    ended = executor("cpu")(rest)
    assert torch.equal(torch.cat([begun.output, ended.output]), whole.output)
    assert all(torch.equal(ended.state[s], whole.state[s]) for s in whole.state)


def _a_compiler_is_there() -> bool:
    named_one = os.environ.get("GATEWISE_CC")
    found = [c for c in (named_one, "cc", "gcc", "clang") if c and shutil.which(c)]
    return bool(found) or importlib.util.find_spec("ziglang") is not None


@pytest.mark.skipif(not _a_compiler_is_there(), reason="no C compiler: no kernels to test")
@pytest.mark.parametrize("cell", REGISTRY)
def test_cells_have_a_kernel_for_every_option(cell: str) -> None:
    """Guards the tests above: without it, a kernel that refuses everything would pass them."""
    p = options(problem(cell), *EVERYTHING).cast(torch.float32)
    assert cpu.obstacles(p.request()) == []
    assert choose(p.request(), strict=True).executor == "cpu"


def test_choice_of_executor() -> None:
    request = problem("lstm").cast(torch.float32).request()
    assert choose(request, "reference").executor == "reference"
    assert "asked for" in str(choose(request, "reference"))
    with pytest.raises(SlowPathError, match="strict=True refuses"):
        choose(request, "reference", strict=True)
    with pytest.raises(ValueError, match=f"one of {', '.join(EXECUTORS)}, got 'gpu'"):
        choose(request, "gpu")
