"""Whether what was computed once can be computed in a forked child too."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable

import torch


def assert_a_forked_child_computes(run: Callable[[], torch.Tensor]) -> None:
    """`run` gives the same bits in a child, forked after it ran here, within a minute."""
    with torch.no_grad():
        want = run().numpy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python >= 3.12 warns of forks with threads
            child = os.fork()
        if child == 0:
            signal.alarm(60)
            os._exit(0 if (run().numpy() == want).all() else 1)
        assert os.waitpid(child, 0)[1] == 0
