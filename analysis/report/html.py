"""A report as one HTML file that refers to nothing outside of itself."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from harness.analysis.report.document import Bullets, Document, Note, Number, Paragraph, Plot, Table, Value, shown
from harness.analysis.report.plots import INK, as_svg


def write(document: Document, target: Path) -> list[Path]:
    """Returns the file that was written. Raises OSError."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(picture=_picture, shown=shown, is_number=_is_number)
    environment.tests.update(
        paragraph=lambda block: isinstance(block, Paragraph),
        note=lambda block: isinstance(block, Note),
        bullets=lambda block: isinstance(block, Bullets),
        plot=lambda block: isinstance(block, Plot),
        table=lambda block: isinstance(block, Table),
    )
    blocks = [block for block in document.blocks() if isinstance(block, Plot | Table)]
    queries: dict[str, list[Plot | Table]] = {}
    for block in blocks:
        queries.setdefault(block.query, []).append(block)
    page = environment.get_template("report.html.j2").render(
        document=document, queries=queries, number_of={query: number for number, query in enumerate(queries, 1)}
    )
    target.write_text(page, encoding="utf-8")
    return [target]


def _is_number(value: Value) -> bool:
    return value is None or isinstance(value, int | float | Number)


def _picture(plot: Plot) -> Markup:
    """The plot's own SVG, whose ids are made the page's and whose ink is the reader's. Text in it is escaped."""
    svg = as_svg(plot.draw()).replace(INK, "currentColor")
    for before in ('id="', "url(#", 'href="#'):
        svg = svg.replace(before, f"{before}{plot.name}-")
    return Markup(svg)
