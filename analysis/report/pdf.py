"""A report as PDF, set by Typst, which needs no TeX on the machine."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import typst

from harness.analysis.report.document import (
    Block,
    Bullets,
    Document,
    Note,
    Number,
    Paragraph,
    Plot,
    Table,
    shown,
    words_of,
)
from harness.analysis.report.plots import as_pdf

TEMPLATE = Path(__file__).with_name("report.typ")


def write(document: Document, target: Path) -> list[Path]:
    """Returns the file that was written. Raises OSError."""
    with tempfile.TemporaryDirectory(prefix="harness-report-") as name:
        folder = Path(name)
        for plot in document.plots():
            (folder / f"{plot.name}.pdf").write_bytes(as_pdf(plot.draw()))
        content = {
            "title": document.title,
            "subtitle": document.subtitle,
            "sections": [
                {"title": section.title, "blocks": [_block(block) for block in section.blocks]}
                for section in document.sections
            ],
        }
        (folder / "report.json").write_text(json.dumps(content), encoding="utf-8")
        shutil.copy(TEMPLATE, folder / "report.typ")
        made = folder / "report.pdf"
        typst.compile(str(folder / "report.typ"), output=str(made), root=name)
        shutil.copyfile(made, target)
    return [target]


def _block(block: Block) -> dict[str, Any]:
    match block:
        case Paragraph() | Note() | Bullets():
            return words_of(block)
        case Plot():
            return {"type": "plot", "file": f"{block.name}.pdf", "caption": block.caption, "alt": block.alt}
        case Table():
            return {
                "type": "table",
                "caption": block.caption,
                "columns": list(block.columns),
                "numeric": [
                    all(row[number] is None or isinstance(row[number], int | float | Number) for row in block.rows)
                    for number in range(len(block.columns))
                ],
                "rows": [[shown(value, block.digits) for value in row] for row in block.rows],
            }
