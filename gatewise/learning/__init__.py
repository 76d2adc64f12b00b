"""How to differentiate is an object handed over, not a property of a layer."""

from gatewise.learning.traces import ForwardTraces

__all__ = ["ForwardTraces"]
