"""Speed, memory and first use beside other libraries; see `suites` for what is compared."""

from gatewise.benchmark.case import Case, Shape
from gatewise.benchmark.picture import plot
from gatewise.benchmark.probes import first_use_seconds
from gatewise.benchmark.report import Report, Row, Runner, kept_files
from gatewise.benchmark.runner import FULL, QUICK, Budget, Deviation
from gatewise.benchmark.suites import DEMO, SUITES, select

__all__ = [
    "DEMO",
    "FULL",
    "QUICK",
    "SUITES",
    "Budget",
    "Case",
    "Deviation",
    "Report",
    "Row",
    "Runner",
    "Shape",
    "first_use_seconds",
    "kept_files",
    "plot",
    "select",
]
