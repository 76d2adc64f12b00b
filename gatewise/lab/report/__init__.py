"""What came of the experiments: one HTML page, or Markdown, from files of results."""

from gatewise.lab.report.page import html
from gatewise.lab.report.rows import Row, rows
from gatewise.lab.report.text import markdown, pictures

__all__ = ["Row", "html", "markdown", "pictures", "rows"]
