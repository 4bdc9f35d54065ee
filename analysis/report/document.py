"""A report as a list of sections of paragraphs, tables and plots, whatever the format that it is written in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Number:
    """A value with the ends of its interval, where it has one; all None where it is unknown. `percent`: a share."""

    value: float | None
    low: float | None = None
    high: float | None = None
    percent: bool = False


Value = Number | str | int | float | None
"""Of a cell of a table. None is unknown, and shown as a dash."""


@dataclass(frozen=True)
class Paragraph:
    text: str


@dataclass(frozen=True)
class Note:
    """What a reader must not miss: something that is left out, and why."""

    text: str


@dataclass(frozen=True)
class Bullets:
    items: Sequence[str]


@dataclass(frozen=True)
class Table:
    """`name` is the same in every format: an anchor, a label, a file's name. `query` is SQL that gives the rows behind
    it; `?` in it stands for the sweep's id."""

    name: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Value]]
    query: str
    digits: int = 3
    """Significant digits of floats, where they are shown to people."""


@dataclass(frozen=True)
class Plot:
    """`draw` makes the picture, anew each time. `alt` says in words what it shows."""

    name: str
    caption: str
    alt: str
    draw: Callable[[], Figure]
    query: str


Block = Paragraph | Note | Bullets | Table | Plot


@dataclass(frozen=True)
class Section:
    name: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Document:
    title: str
    subtitle: str
    sweeps: Sequence[str]
    sections: Sequence[Section] = field(default_factory=list)

    def blocks(self) -> Iterator[Block]:
        for section in self.sections:
            yield from section.blocks

    def tables(self) -> Iterator[Table]:
        return (block for block in self.blocks() if isinstance(block, Table))

    def plots(self) -> Iterator[Plot]:
        return (block for block in self.blocks() if isinstance(block, Plot))


def words_of(block: Paragraph | Note | Bullets) -> dict[str, Any]:
    """A block of words as JSON has it."""
    match block:
        case Paragraph(text):
            return {"type": "paragraph", "text": text}
        case Note(text):
            return {"type": "note", "text": text}
        case Bullets(items):
            return {"type": "list", "items": list(items)}


def shown(value: Value, digits: int = 3) -> str:
    """A value for people: so many significant digits, thousands apart; unknown is a dash, never a zero."""
    if value is None:
        return "–"
    if isinstance(value, Number):
        ends = [_share(end) if value.percent else shown(end, digits) for end in (value.value, value.low, value.high)]
        return ends[0] if value.low is None else f"{ends[0]} ({ends[1]} to {ends[2]})"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if value != value or value in (float("inf"), float("-inf")):
        return "–"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    if size < 10**-digits:
        return f"{value:.{digits - 1}e}"
    decimals = digits - 1
    while size >= 10 and decimals > 0:
        size, decimals = size / 10, decimals - 1
    while size < 1:
        size, decimals = size * 10, decimals + 1
    return f"{value:,.{decimals}f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value if abs(value) >= 0.0005 else 0.0:.1%}"  # not -0.0%
