"""States as layers return them: one tensor, or a tuple with named fields."""

from __future__ import annotations

from typing import Any

import torch

from gatewise.layers import make_state


def detached(state: Any) -> Any:
    """The state without its graph; None stays None, a state of zeros."""
    if state is None:
        return None
    if isinstance(state, torch.Tensor):
        return state.detach()
    if not hasattr(state, "_fields"):
        return type(state)(s.detach() for s in state)
    return make_state(state._fields, (s.detach() for s in state))
