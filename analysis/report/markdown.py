"""A report as Markdown, its plots as SVG files beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from harness.analysis.report.document import Block, Bullets, Document, Note, Paragraph, Plot, Table, shown
from harness.analysis.report.plots import as_svg

SPECIAL = re.compile(r"([\\`*_\[\]<>|#])")


def write(document: Document, target: Path) -> list[Path]:
    """Returns the files that were written. Raises OSError."""
    folder = target.with_name(f"{target.stem}-plots")
    files = [target]
    for plot in document.plots():
        folder.mkdir(parents=True, exist_ok=True)
        files.append(folder / f"{plot.name}.svg")
        files[-1].write_text(as_svg(plot.draw()), encoding="utf-8")
    lines = [f"# {_plain(document.title)}", "", _plain(document.subtitle), ""]
    for section in document.sections:
        lines += [f"## {_plain(section.title)}", ""]
        for block in section.blocks:
            lines += [*_block(block, folder.name), ""]
    target.write_text("\n".join(lines), encoding="utf-8")
    return files


def _block(block: Block, folder: str) -> Iterator[str]:
    match block:
        case Paragraph(text):
            yield _plain(text)
        case Note(text):
            yield f"> {_plain(text)}"
        case Bullets(items):
            yield from (f"- {_plain(item)}" for item in items)
        case Plot():
            yield f"![{_plain(block.alt)}]({quote(folder)}/{block.name}.svg)"
            yield ""
            yield f"*{_plain(block.caption)}*"
        case Table():
            yield f"*{_plain(block.caption)}*"
            yield ""
            yield _row(block.columns)
            yield _row(["---" if number == 0 else "---:" for number in range(len(block.columns))])
            yield from (_row([_plain(shown(value, block.digits)) for value in row]) for row in block.rows)


def _row(cells: list[str] | tuple[str, ...] | object) -> str:
    return f"| {' | '.join(cells)} |"  # type: ignore[arg-type]


def _plain(text: str) -> str:
    return SPECIAL.sub(r"\\\1", text).replace("\n", " ")
