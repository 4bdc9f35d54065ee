"""A report's numbers for programs: one JSON document, or a CSV file for each table."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.analysis.report.document import (
    Block,
    Bullets,
    Document,
    Note,
    Number,
    Paragraph,
    Plot,
    Table,
    Value,
    words_of,
)


def write_json(document: Document, target: Path) -> list[Path]:
    """Returns the file that was written. Raises OSError."""
    content = {
        "title": document.title,
        "sweeps": list(document.sweeps),
        "sections": [
            {"name": section.name, "title": section.title, "blocks": [_block(block) for block in section.blocks]}
            for section in document.sections
        ],
    }
    target.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return [target]


# What a spreadsheet would reckon, and not a number with its sign.
FORMULA = re.compile(r"[=@\t\r]|[+-](?![\d.,]*\s?%?$).")


def write_csv(document: Document, folder: Path) -> list[Path]:
    """A file for each table, numbers with their intervals as three columns; notes and captions in README.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    said = [document.title, ""]
    for section in document.sections:
        for block in section.blocks:
            if isinstance(block, Table):
                files.append(folder / f"{block.name}.csv")
                _write_table(block, files[-1])
                said.append(f"{files[-1].name}: {block.caption}")
            elif isinstance(block, Note):
                said.append(f"Note: {block.text}")
    files.append(folder / "README.txt")
    files[-1].write_text("\n".join(said) + "\n", encoding="utf-8")
    return files


def _write_table(table: Table, path: Path) -> None:
    spread = [any(isinstance(row[number], Number) for row in table.rows) for number in range(len(table.columns))]
    heads: list[str] = []
    for name, is_spread in zip(table.columns, spread, strict=True):
        heads += [name, f"{name} low", f"{name} high"] if is_spread else [name]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(heads)
        writer.writerows(_flat(row, spread) for row in table.rows)


def _flat(row: Sequence[Value], spread: Sequence[bool]) -> list[Any]:
    found: list[Any] = []
    for value, is_spread in zip(row, spread, strict=True):
        if isinstance(value, Number):
            found += [value.value, value.low, value.high]
        else:
            text = _inert(value)
            found += [text, None, None] if is_spread else [text]
    return found


def _inert(value: Value) -> Value:
    """A text as a spreadsheet takes it for text, also where it begins as a formula does: names are other people's."""
    return f"'{value}" if isinstance(value, str) and FORMULA.match(value) else value


def _block(block: Block) -> dict[str, Any]:
    match block:
        case Paragraph() | Note() | Bullets():
            return words_of(block)
        case Plot():
            return {"type": "plot", "name": block.name, "caption": block.caption, "query": block.query}
        case Table():
            return {
                "type": "table",
                "name": block.name,
                "caption": block.caption,
                "columns": list(block.columns),
                "rows": [[_value(value) for value in row] for row in block.rows],
                "query": block.query,
            }


def _value(value: Value) -> Any:
    if isinstance(value, Number):
        return {"value": _value(value.value), "low": _value(value.low), "high": _value(value.high)}
    return None if isinstance(value, float) and not math.isfinite(value) else value
