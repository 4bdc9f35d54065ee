"""Packing a sweep: its rows in a database of their own, and its files, into one archive.

The same sweep gives the same bytes on every machine: members in one order, no times, owners or names of users.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from harness import __version__, owned
from harness.errors import MachineError
from harness.exchange.manifest import DATABASE, MANIFEST, README, SPEC, File, Manifest, Missing, of_sweep
from harness.spec import TABLES
from harness.store.belonging import recorded
from harness.store.db import new_store
from harness.toml import toml_value

IMAGES = "SELECT DISTINCT suite, task, image_digest, image_source, image_origin FROM runs ORDER BY 1, 2, 3"
AGENTS = "SELECT DISTINCT agent, agent_version, agent_commit, bundle, overrides FROM runs ORDER BY 1, 2, 3, 4"
MODELS = "SELECT DISTINCT engine, engine_version, model, model_digest FROM runs WHERE engine != 'none' ORDER BY 1, 3, 2"

ABOUT = """\
Sweep {sweep_id}: {runs} of {planned} planned runs of coding agents, with calls, tokens, energy and verdicts.

With the harness: `harness import {sweep_id}.tar.gz` checks every checksum and adds the sweep to your own. Unpacked,
this folder is a runs folder by itself: `harness report --runs-dir {folder}`.

Without it:

{database}     SQLite; `SELECT * FROM runs_summary` has a row for each run
{spec}      what was asked for; `harness sweep --spec {spec}` asks for the same again
{manifest}  versions, digests of images and models, facts of the machine, SHA-256 of every file
{sweep_id}/
               the files of each run, each compressed with gzip: calls.jsonl and messages.jsonl (what was said),
               patch.diff, logs, power.json (raw readings); the table artefacts names them all

Energy has a kind: measured, estimated, estimated_constant (a clock) or unavailable. An empty cell is unknown, never
zero. Rows of different machines are never pooled.
"""


@dataclass(frozen=True)
class Packed:
    file: Path
    bytes: int
    files: int
    missing: list[Missing]


def pack(database: Path, runs_dir: Path, sweep_id: str, target: Path) -> Packed:
    """Write a sweep of an up-to-date database to `target`. A file of a run that is gone or damaged is left out, and the
    manifest says so.

    Raises OSError when `target` can't be written, MachineError when the database can't be read.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in owned.abandoned(target.parent):
        owned.remove(left)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=owned.prefix()) as temporary:
        folder = Path(temporary)
        try:
            manifest, texts = _describe(database, runs_dir, sweep_id, folder)
        except sqlite3.Error as error:
            raise MachineError(f"sweep {sweep_id} can't be copied from {database}: {error}") from error
        part = folder / target.name
        with part.open("wb") as raw, gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=6, mtime=0) as gz:
            _write(gz, manifest, texts, folder / DATABASE, runs_dir)
        with part.open("rb+") as written:
            os.fsync(written.fileno())
        part.rename(target)
    return Packed(target, target.stat().st_size, len(manifest.files), manifest.missing)


def _describe(database: Path, runs_dir: Path, sweep_id: str, folder: Path) -> tuple[Manifest, dict[str, bytes]]:
    """The sweep's rows as a database in `folder`, and what goes before them: the manifest, and files of text."""
    rows = _copy_rows(database, sweep_id, folder / DATABASE)
    with contextlib.closing(sqlite3.connect(folder / DATABASE)) as db:
        db.row_factory = sqlite3.Row
        [sweep] = _rows(db, "SELECT * FROM sweeps")
        machines = {row["machine_id"]: json.loads(row["facts"]) for row in _rows(db, "SELECT * FROM machines")}
        files, missing = _files(db, runs_dir, sweep_id)
        images, agents, models = (_rows(db, query) for query in (IMAGES, AGENTS, MODELS))
    about = ABOUT.format(
        sweep_id=sweep_id, runs=rows["runs"], planned=sweep["planned_runs"], folder=f"harness-{sweep_id}",
        database=DATABASE, spec=SPEC, manifest=MANIFEST,
    )  # fmt: skip
    texts = {README: about.encode(), SPEC: _spec(json.loads(sweep["spec"])).encode()}
    files |= {name: File(sha256=hashlib.sha256(text).hexdigest(), bytes=len(text)) for name, text in texts.items()}
    files[DATABASE] = checksum(folder / DATABASE)
    manifest = Manifest(
        harness_version=__version__, sweep_id=sweep_id, planned_runs=sweep["planned_runs"], runs=rows["runs"],
        machines=machines, resolved=json.loads(sweep["resolved"]), rows=rows, files=dict(sorted(files.items())),
        missing=missing, images=images, agents=agents, models=models,
    )  # fmt: skip
    return manifest, texts


def _copy_rows(database: Path, sweep_id: str, copy: Path) -> dict[str, int]:
    """The sweep's rows of every table into a new database. Returns how many, by table."""
    # As `read_store` reads it: where its folder can't be written, what has reached the file itself.
    writable = os.access(database, os.W_OK) and os.access(database.parent, os.W_OK)
    source = f"{database.absolute().as_uri()}?mode=ro{'' if writable else '&immutable=1'}"
    rows: dict[str, int] = {}
    with contextlib.closing(new_store(copy)) as db:
        db.execute("ATTACH DATABASE ? AS source", [source])
        with db.atomic():  # one moment of a database that a sweep may be writing
            db.execute("PRAGMA defer_foreign_keys = ON")
            for table in recorded(db, "source"):
                columns = ", ".join(table.columns)
                rows[table.name] = db.execute(
                    f"INSERT INTO main.{table.name} ({columns}) SELECT {columns} FROM source.{table.name} "
                    f"WHERE {table.where} ORDER BY rowid",
                    {"sweep": sweep_id},
                ).rowcount
            # When a database got its schema is of that database, not of the sweep.
            db.execute("UPDATE main.migrations SET applied_at = NULL")
    return rows


def _rows(db: sqlite3.Connection, query: str) -> list[dict[str, Any]]:
    return [dict(row) for row in db.execute(query)]


def _files(db: sqlite3.Connection, runs_dir: Path, sweep_id: str) -> tuple[dict[str, File], list[Missing]]:
    """The files of the runs whose content is what the database says, and the others."""
    files: dict[str, File] = {}
    missing = []
    for row in _rows(db, "SELECT * FROM artefacts ORDER BY run_id, name"):
        if not of_sweep(sweep_id, row["path"]):
            why = "it lies outside of the sweep's folder"
        else:
            try:
                found = checksum(runs_dir / row["path"])
                if (found.sha256, found.bytes) == (row["sha256"], row["bytes"]):
                    files[row["path"]] = found
                    continue
                why = "it is damaged: its checksum is another"
            except FileNotFoundError:
                why = "it is gone"
            except OSError as error:
                why = f"it can't be read: {error.strerror}"
        missing.append(Missing(run_id=row["run_id"], name=row["name"], path=row["path"], why=why))
    return files, missing


def checksum(path: Path) -> File:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return File(sha256=digest, bytes=file.tell())


def _spec(spec: dict[str, Any]) -> str:
    """A stored spec as a file for `harness sweep --spec`; what was left to the harness stays so."""
    given = {name: value for name, value in spec.items() if value is not None}
    of_tables = {name for names in TABLES.values() for name in names}
    lines = [f"{name} = {toml_value(value)}" for name, value in given.items() if name not in of_tables]
    for table, names in TABLES.items():
        lines += ["", f"[{table}]", *(f"{name} = {toml_value(given[name])}" for name in names if name in given)]
    return "\n".join(lines) + "\n"


def _write(
    stream: gzip.GzipFile, manifest: Manifest, texts: dict[str, bytes], database: Path, runs_dir: Path
) -> None:  # fmt: skip
    """The manifest first, so that a reader knows what may follow."""
    own = json.dumps(manifest.model_dump(), indent=1, ensure_ascii=True).encode() + b"\n"
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for name, size, content in _members(own, manifest, texts, database, runs_dir):
            member = tarfile.TarInfo(f"{manifest.folder}/{name}")  # times and owners are 0, names of owners empty
            member.size = size
            with content:
                tar.addfile(member, content)


def _members(
    own: bytes, manifest: Manifest, texts: dict[str, bytes], database: Path, runs_dir: Path
) -> Iterator[tuple[str, int, IO[bytes]]]:
    for name, text in [(MANIFEST, own), *sorted(texts.items())]:
        yield name, len(text), io.BytesIO(text)
    for name, file in manifest.files.items():
        if name not in texts:
            yield name, file.bytes, (database if name == DATABASE else runs_dir / name).open("rb")
