"""Settings of every test: threads, seeds, property testing, one kernel cache per run."""

from __future__ import annotations

import os
import random
import shutil
import tempfile

import hypothesis
import numpy as np
import pytest
import torch

# The first process of a run makes the folder; its xdist workers inherit the variable, so that
# every kernel is compiled once per run, and none comes from an earlier state of the code.
_CACHE = None
if "PYTEST_XDIST_WORKER" not in os.environ:
    _CACHE = tempfile.mkdtemp(prefix="gatewise-test-kernels-")
    os.environ["GATEWISE_CACHE"] = _CACHE

# Examples are the same in every run: a failure seen once is seen again. `explore` looks further.
hypothesis.settings.register_profile(
    "ci", deadline=None, derandomize=True, max_examples=20, database=None
)
hypothesis.settings.register_profile("explore", deadline=None, max_examples=500)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_unconfigure() -> None:
    if _CACHE is not None:
        shutil.rmtree(_CACHE, ignore_errors=True)


@pytest.fixture(autouse=True)
def settled() -> None:
    """One thread, because pytest's workers share the cores; the same random numbers.

    A test of splitting work among threads asks for more itself.
    """
    torch.set_num_threads(1)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - libraries under test may draw from the global state
    torch.manual_seed(0)


@pytest.fixture(params=["reference", "cpu"])
def executor(request: pytest.FixtureRequest) -> str:
    """What to make a layer with: the reference, then the kernel wherever there is one.

    The second is skipped where not even a plain LSTM has a kernel.
    """
    import gatewise as gw  # after the environment above

    if request.param == "reference":
        return "reference"
    found = gw.explain(gw.LSTM(3, 4), torch.zeros(1, 1, 3))
    if found.executor != "cpu":
        pytest.skip(f"no kernel: {found}")
    return "auto"
