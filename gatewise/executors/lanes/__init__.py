"""Many small networks at once, one per vector lane, learning by the 1997 rule or by RTRL."""

from gatewise.executors.lanes.generate import Network, source
from gatewise.executors.lanes.launch import Criterion, Lanes, Sequences
from gatewise.executors.lanes.task import Task

__all__ = ["Criterion", "Lanes", "Network", "Sequences", "Task", "source"]
