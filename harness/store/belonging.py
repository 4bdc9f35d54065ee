"""Which rows of the database belong to a sweep. Told by each table's columns, so that a new table is not forgotten."""

from __future__ import annotations

from dataclasses import dataclass

from sqlite_utils import Database

EVERYWHERE = frozenset({"endings", "outcomes", "flags", "migrations"})
"""Tables that the harness itself fills in every database: they belong to no sweep."""

DERIVED = frozenset({"histories", "loops"})
"""Tables that are made of others' files by whoever asks for them: what is in them is no part of a sweep's record."""

RUNS = "SELECT run_id FROM {schema}.runs WHERE sweep_id = :sweep"
MACHINES = (
    "SELECT machine_id FROM {schema}.sweeps WHERE sweep_id = :sweep "
    "UNION SELECT machine_id FROM {schema}.runs WHERE sweep_id = :sweep"
)


@dataclass(frozen=True)
class Table:
    """A table with rows of sweeps."""

    name: str
    columns: tuple[str, ...]
    shared: bool
    """Its rows are of a machine, and other sweeps may have the same ones."""
    where: str
    """The condition for a sweep's rows, with the sweep's id as :sweep."""


def tables(db: Database, schema: str = "main") -> list[Table]:
    """Every table with rows of sweeps, by name. Raises LookupError for one whose rows can't be told to be a sweep's."""
    names = db.execute(
        f"SELECT name FROM {schema}.sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' "
        "ORDER BY name"
    ).fetchall()
    return [_table(db, schema, name) for (name,) in names if name not in EVERYWHERE]


def recorded(db: Database, schema: str = "main") -> list[Table]:
    """Those that are a sweep's record: what is derived from it is made anew where the sweep goes."""
    return [table for table in tables(db, schema) if table.name not in DERIVED]


def _table(db: Database, schema: str, name: str) -> Table:
    columns = tuple(row[1] for row in db.execute(f'PRAGMA {schema}.table_info("{name}")').fetchall())
    if "sweep_id" in columns:
        return Table(name, columns, False, "sweep_id = :sweep")
    if "run_id" in columns:
        return Table(name, columns, False, f"run_id IN ({RUNS.format(schema=schema)})")
    if "machine_id" in columns:
        return Table(name, columns, True, f"machine_id IN ({MACHINES.format(schema=schema)})")
    raise LookupError(f"nothing says which rows of the table {name} belong to a sweep")
