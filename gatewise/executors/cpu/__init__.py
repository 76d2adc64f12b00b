"""Fused C kernels, derived from a cell's equations, compiled on first use."""
from gatewise.executors.cpu.launch import obstacles, run

__all__ = ["obstacles", "run"]
