"""A sweep's rows as Parquet, a file for each table, with types and the meaning of every column. Reads the store and
nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlite_utils import Database

from harness.store.belonging import tables
from harness.store.columns import TABLES, VIEW, meaning_of

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 10_000  # of a group: some 15 MB of the widest table while they are turned into columns


@dataclass(frozen=True)
class _Column:
    name: str
    declared: str  # type in the database; empty for what a view computes
    meaning: str

    @property
    def is_boolean(self) -> bool:
        """SQLite has none: one is a column of which the schema says when it is 1."""
        return self.meaning.startswith("1 when ")


def write_tables(db: Database, sweep_id: str, folder: Path, version: str) -> list[dict[str, Any]]:
    """One file in `folder` for each table with rows of sweeps; `runs` has the columns of `runs_summary` beside its own.

    `version` is the harness's. Returns a row for each file. Raises OSError, and ImportError without pyarrow.
    """
    [sweep] = db.query("SELECT * FROM sweeps WHERE sweep_id = ?", [sweep_id])
    record = {"harness_version": version, "sweep_id": sweep_id, "sweep": json.dumps(sweep)}
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for table in tables(db):
        declared = {column.name: column.type for column in db.table(table.name).columns}
        columns = [_Column(name, declared[name], meaning_of(table.name, name)) for name in table.columns]
        source = table.name
        if table.name == "runs":
            beside = [
                _Column(column.name, column.type, meaning_of(VIEW, column.name))
                for column in db.view(VIEW).columns
                if column.name not in table.columns
            ]
            columns += beside
            names = ", ".join(f"{VIEW}.{column.name}" for column in beside)
            source = f"(SELECT runs.rowid, runs.*, {names} FROM runs JOIN {VIEW} USING (run_id))"
        wanted = ", ".join(column.name for column in columns)
        query = f"SELECT {wanted} FROM {source} WHERE {table.where} ORDER BY rowid"
        path = folder / f"{table.name}.parquet"
        rows = _write(path, db, query, sweep_id, columns, record | {"meaning": TABLES[table.name]})
        files.append({"file": str(path), "rows": rows, "columns": len(columns)})
    return files


def _write(
    path: Path, db: Database, query: str, sweep_id: str, columns: Sequence[_Column], record: dict[str, str]
) -> int:
    """Row group after row group: a store may hold millions of calls. The file appears when it is whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [pa.field(column.name, _type(column), metadata={"description": column.meaning}) for column in columns],
        metadata=record,
    )
    part = path.with_name(f".{path.name}.part")
    written = 0
    try:
        with pq.ParquetWriter(part, schema, compression="zstd") as writer:
            for rows in _groups(db, query, sweep_id):
                values = zip(*rows, strict=True)
                arrays = [
                    pa.array(_values(column, found), type=field.type)
                    for column, found, field in zip(columns, values, schema, strict=True)
                ]
                writer.write_batch(pa.record_batch(arrays, schema=schema))
                written += len(rows)
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)
    return written


def _groups(db: Database, query: str, sweep_id: str) -> Iterator[list[tuple[Any, ...]]]:
    found = db.execute(query, {"sweep": sweep_id})
    while rows := found.fetchmany(ROWS):
        yield rows


def _type(column: _Column) -> pa.DataType:
    import pyarrow as pa

    if column.is_boolean:
        return pa.bool_()
    return {"INTEGER": pa.int64(), "REAL": pa.float64()}.get(column.declared, pa.string())


def _values(column: _Column, found: Sequence[Any]) -> Sequence[Any]:
    return [None if value is None else bool(value) for value in found] if column.is_boolean else found
