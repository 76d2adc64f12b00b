"""Looking into a layer without changing it."""

from gatewise.diagnostics.gradient_flow import Flow, gradient_flow, study
from gatewise.diagnostics.plots import plot_gradient_flow

__all__ = ["Flow", "gradient_flow", "plot_gradient_flow", "study"]
