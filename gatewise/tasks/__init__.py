"""The tasks of the long-time-lag experiments: each is one C file, drawn by training and Python."""

from gatewise.tasks.adding import adding

__all__ = ["adding"]
