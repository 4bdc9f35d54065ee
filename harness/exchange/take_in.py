"""Taking a bundle in: its files into the runs folder, its rows into the database, all of it or nothing.

The order is what keeps it whole. Everything is unpacked and checked in a folder beside the others, `.import-SWEEP`.
Then, within one transaction: the rows are written, the sweep's folder gets its place by one rename, and the transaction
is committed. A process that is killed before the rename has written nothing that counts, and what it left beside the
others is removed by the next import. One that is killed between rename and commit leaves complete files that no row
speaks of; the next import finds that they are its own, by their checksums, and goes on. Rows without files, which no
later import would mend, can't come about.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlite_utils import Database

from harness.errors import HarnessError, MachineError, UserError
from harness.exchange.manifest import BESIDE, DATABASE, Manifest, of_sweep
from harness.exchange.pack import checksum
from harness.exchange.unpack import Bundle, opened
from harness.store.belonging import recorded
from harness.store.db import damage, open_store, writer_lock
from harness.store.migrations import MIGRATIONS


@dataclass(frozen=True)
class TakenIn:
    manifest: Manifest
    is_new: bool
    """False: the sweep was there already, the same in every row."""


def take_in(source: Path, database: Path, runs_dir: Path) -> TakenIn:
    """Add the sweep of a bundle to a database and its runs folder. Its rows stay those of their own machine.

    Raises UserError when the bundle is damaged, foreign or of a newer harness, or its sweep is there with other
    content; MachineError when there is no room. Nothing has changed then.
    """
    with opened(source) as bundle:
        sweep_id = bundle.manifest.sweep_id
        with writer_lock(database, f"import of {sweep_id}"), _beside(runs_dir, bundle) as unpacked:
            bundle.extract(unpacked)
            copy = unpacked / DATABASE
            _check(copy, bundle)
            with contextlib.closing(open_store(database)) as store:
                store.execute("ATTACH DATABASE ? AS bundle", [str(copy)])
                _check_tables(store, source)
                if _has(store, sweep_id):
                    if differing := ", ".join(_differing(store, sweep_id)):
                        raise UserError(
                            f"sweep {sweep_id} is in {database} already, with other content (in {differing}): "
                            "import it into a database of its own, with --db and --runs-dir"
                        )
                    return TakenIn(bundle.manifest, False)
                _add(store, bundle, unpacked / sweep_id, runs_dir / sweep_id)
    return TakenIn(bundle.manifest, True)


@contextlib.contextmanager
def _beside(runs_dir: Path, bundle: Bundle) -> Iterator[Path]:
    """A folder to unpack into that does not exist yet, in the file system of the runs folder, and gone afterwards."""
    folder = runs_dir / f".import-{bundle.manifest.sweep_id}"
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)  # of an import that was killed
        free = shutil.disk_usage(runs_dir).free
        # The database is there three times: unpacked, as it is brought up to date, and in the user's own.
        needed = bundle.bytes + 2 * bundle.manifest.files[DATABASE].bytes
        if needed > free:
            raise MachineError(
                f"{runs_dir} has {free / 1e9:,.1f} GB left, and {bundle.source} needs {needed / 1e9:,.1f}"
            )
        yield folder
    except OSError as error:
        raise MachineError(f"{error.filename or runs_dir} can't be written: {error.strerror}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check(copy: Path, bundle: Bundle) -> None:
    """Bring the unpacked database up to date and make sure that it is what the manifest says. Raises UserError."""
    source, manifest = bundle.source, bundle.manifest
    try:
        with contextlib.closing(sqlite3.connect(copy)) as db:
            db.execute("PRAGMA trusted_schema = OFF")
            # They would act when rows are read or written, and no harness makes any.
            acting = db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger' OR sql LIKE 'CREATE VIRTUAL%'")
            if found := acting.fetchall():
                raise UserError(f"{source}: its database holds {found[0][0]!r}, which no harness makes")
            if wrong_pages := damage(db):
                raise UserError(f"{source}: its database is damaged: {wrong_pages}")
            applied = {name for (name,) in db.execute("SELECT name FROM migrations")}
            if newer := sorted(applied - {step.__name__ for step in MIGRATIONS}):
                raise UserError(
                    f"{source} was packed by a newer harness (its database has {newer[-1]!r}): update this one"
                )
        with contextlib.closing(open_store(copy)) as db:
            _check_rows(db, source, manifest)
    except sqlite3.Error as error:
        raise UserError(f"{source}: its database is damaged: {error}") from error
    except UserError:
        raise
    except HarnessError as error:
        raise UserError(f"{source}: its database can't be brought up to date: {error}") from error


def _check_rows(db: Database, source: Path, manifest: Manifest) -> None:
    """Names that become paths are looked at: later commands believe what stands in the database."""
    sweep_id = manifest.sweep_id
    if db.execute("SELECT sweep_id FROM sweeps").fetchall() != [(sweep_id,)]:
        raise UserError(f"{source}: its database holds other sweeps than {sweep_id}")
    if broken := db.execute("PRAGMA foreign_key_check").fetchone():
        raise UserError(f"{source}: its database is damaged: a row of {broken[0]} belongs to none of {broken[2]}")
    for (run_id,) in db.execute("SELECT run_id FROM runs").fetchall():
        if not run_id.startswith(sweep_id) or not of_sweep(sweep_id, f"{sweep_id}/{run_id}") or "/" in run_id:
            raise UserError(f"{source}: {run_id!r} can't be the id of a run of sweep {sweep_id}")
    paths = db.execute("SELECT path FROM artefacts UNION SELECT log FROM grades WHERE log IS NOT NULL").fetchall()
    for (path,) in paths:
        if not of_sweep(sweep_id, path):
            raise UserError(f"{source}: the path {path!r} leads out of the folder of sweep {sweep_id}")
    missing = {file.path for file in manifest.missing}
    for path, sha256, size in db.execute("SELECT path, sha256, bytes FROM artefacts").fetchall():
        file = manifest.files.get(path)
        if file is None and path not in missing:
            raise UserError(f"{source}: {path} is neither in it nor said to be missing")
        if file is not None and (file.sha256, file.bytes) != (sha256, size):
            raise UserError(f"{source}: {path} is another file than its database names")


def _check_tables(store: Database, source: Path) -> None:
    own, others = (
        {table.name: set(table.columns) for table in recorded(store, schema)} for schema in ("main", "bundle")
    )
    if own != others:
        odd = sorted(name for name in own.keys() | others.keys() if own.get(name) != others.get(name))
        raise UserError(f"{source}: its database has other tables or columns than the harness makes: {odd[0]}")


def _has(store: Database, sweep_id: str) -> bool:
    return store.execute("SELECT 1 FROM main.sweeps WHERE sweep_id = ?", [sweep_id]).fetchone() is not None


def _differing(store: Database, sweep_id: str) -> list[str]:
    """The tables in which database and bundle tell different things of the sweep."""
    found = []
    for own, other in zip(recorded(store), recorded(store, "bundle"), strict=True):
        columns = ", ".join(own.columns)
        here = f"SELECT {columns} FROM main.{own.name} WHERE {own.where}"
        there = f"SELECT {columns} FROM bundle.{own.name} WHERE {other.where}"
        # Of what sweeps share, a database may have more: later calibrations of the machine.
        pairs = [(there, here)] if own.shared else [(there, here), (here, there)]
        if any(store.execute(f"{a} EXCEPT {b} LIMIT 1", {"sweep": sweep_id}).fetchone() for a, b in pairs):
            found.append(own.name)
    return found


def _add(store: Database, bundle: Bundle, unpacked: Path, folder: Path) -> None:
    """The rows and the files, both or none."""
    sweep_id = bundle.manifest.sweep_id
    there = folder.exists()
    if there and not _same_files(folder.parent, bundle.manifest):
        raise UserError(f"{folder} is there already, with other files than those of {bundle.source}: move it away")
    try:
        with store.atomic():
            store.execute("PRAGMA defer_foreign_keys = ON")
            _insert(store, sweep_id)
            if not there and unpacked.exists():
                unpacked.rename(folder)
    except BaseException as error:
        if not there and not _has(store, sweep_id):  # an interruption may have come after the commit
            shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, sqlite3.IntegrityError):
            raise UserError(
                f"a row of {bundle.source} is in the database already, with other content: {error}"
            ) from error
        if isinstance(error, sqlite3.Error):
            raise MachineError(f"the rows of {bundle.source} can't be written: {error}") from error
        raise


def _insert(store: Database, sweep_id: str) -> None:
    for table in recorded(store, "bundle"):
        columns = ", ".join(table.columns)
        rows = f"SELECT {columns} FROM bundle.{table.name} WHERE {table.where}"
        # What sweeps share is there already, or it is not the same and its key is taken.
        rows += f" EXCEPT SELECT {columns} FROM main.{table.name}" if table.shared else " ORDER BY rowid"
        store.execute(f"INSERT INTO main.{table.name} ({columns}) {rows}", {"sweep": sweep_id})


def _same_files(runs_dir: Path, manifest: Manifest) -> bool:
    for path, file in manifest.files.items():
        if path not in BESIDE:
            try:
                if checksum(runs_dir / path) != file:
                    return False
            except OSError:
                return False
    return True
