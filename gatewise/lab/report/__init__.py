"""What came of the experiments: one HTML page, or Markdown, from a file of results."""

from gatewise.lab.report.page import html
from gatewise.lab.report.rows import Row, rows
from gatewise.lab.report.text import markdown

__all__ = ["Row", "html", "markdown", "rows"]
