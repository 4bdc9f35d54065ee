"""The formats in which a report can be had."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.analysis.report import data_files, html, latex, markdown, pdf
from harness.analysis.report.document import Document

WRITERS: dict[str, Callable[[Document, Path], list[Path]]] = {
    "html": html.write,
    "md": markdown.write,
    "latex": latex.write,
    "pdf": pdf.write,
    "json": data_files.write_json,
    "csv": data_files.write_csv,
}
"""Each takes where to write, gives the files that it wrote, the first of them the report's own, and raises OSError."""
