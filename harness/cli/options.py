"""Options that several commands share, and how every command prints."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.errors import UserError
from harness.visible import for_terminal

Db = Annotated[
    Path | None,
    typer.Option("--db", help="The database. Default: HARNESS_DB, or harness.db in the runs folder."),
]
RunsDir = Annotated[
    Path | None, typer.Option("--runs-dir", help="Where artefacts go. Default: HARNESS_RUNS, or ./runs.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


Data = Annotated[
    Path | None,
    typer.Option("--data", help="Rows of a data set's suite, as JSON Lines. Default: HARNESS_DATA, or its publisher."),
]

WIDE = 160  # characters of a line where nothing says how many there are
SENTENCE = 32  # characters, from which on a cell may be folded


def places(db: Path | None, runs_dir: Path | None) -> tuple[Path, Path]:
    """The database and the runs folder that flags, environment and defaults come to."""
    from harness import paths

    folder = runs_dir or paths.runs_dir()
    if db is None:
        import os

        db = Path(os.environ["HARNESS_DB"]) if os.environ.get("HARNESS_DB") else folder / "harness.db"
    return db.absolute(), folder.absolute()


def words(text: str | None) -> list[str] | None:
    """A comma-separated list as the user typed it; None stays None."""
    if text is None:
        return None
    return [word.strip() for word in text.split(",") if word.strip()]


def names(text: str | None, flag: str) -> list[str]:
    """A list of names; empty for none given. Raises UserError for one that was given empty: an unset shell variable
    must not turn "these" into "all"."""
    found = words(text)
    if found == []:
        raise UserError(f"{flag} is empty: name at least one, or leave the flag out")
    return found or []


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=str))


def print_table(title: str | None, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table on standard output; numbers are right-aligned."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [[shown(value) for value in row] for row in rows]
    lengths = [max(len(row[number]) for row in [list(columns), *cells]) for number in range(len(columns))]
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[number], int | float | None) for row in rows)
        table.add_column(
            column,
            justify="right" if numeric else "left",
            overflow="fold",
            no_wrap=number == 0 or lengths[number] <= SENTENCE,
        )
    for row in cells:
        table.add_row(*map(Text, row))  # which is no markup, whoever wrote it
    console = Console()
    # A file or a pipe has no width of its own. A terminal that is too narrow wraps lines, which loses nothing; the
    # table would cut words and leave out columns.
    least = sum(length if number == 0 else min(length, SENTENCE) for number, length in enumerate(lengths))
    needed = least + 3 * len(lengths)
    Console(width=max(console.width if console.is_terminal else WIDE, needed)).print(table)


def shown(value: Any) -> str:
    """A value for people: unknown is a dash, never a zero."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.1f}"
    return for_terminal(str(value))


def print_or_json(as_json: bool, title: str | None, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Rows as JSON (all fields) or as a table (the named ones)."""
    if as_json:
        print_json(list(rows))
    elif not rows:
        print("nothing to show")
    else:
        print_table(title, columns, [[row.get(column) for column in columns] for row in rows])
