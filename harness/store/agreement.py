"""Whether rows and files agree: each artefact is the file that was stored, and no file is there without its row."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from harness.errors import UserError
from harness.store import records

OF_A_RUN = re.compile(r"-(\d{4,}|warmup-\d+)")  # how the name of its folder goes on after the sweep's
KEPT = (".gz", ".part")  # how the names of artefacts end, whole or not


def damaged(db: Database, runs_dir: Path, sweep_id: str) -> dict[str, str]:
    """The runs of which a file is not what was stored, by their ids, each with the first such file and what it is.

    Raises UserError for a file that this user may not read.
    """
    rows = db.query(
        "SELECT artefacts.* FROM artefacts JOIN runs USING (run_id) WHERE sweep_id = ? ORDER BY run_id, name",
        [sweep_id],
    )
    found: dict[str, str] = {}
    for row in rows:
        if row["run_id"] not in found and (what := _problem(runs_dir / row["path"], row)) is not None:
            found[row["run_id"]] = f"{row['path']} {what}"
    return found


def mend(db: Database, runs_dir: Path, sweep_id: str) -> Iterator[str]:
    """Take out of a sweep that is continued what is not whole: runs of which a file is not what was stored, which are
    then to be made again, and files that belong to no run. Says what was taken out.

    Raises UserError when not one file of the sweep is where it should be: then it is the folder that is wrong; and for
    a file that this user may not read, of which nobody knows whether it is whole.
    """
    folder = runs_dir / sweep_id
    runs = {run["run_id"]: run for run in records.runs_of(db, sweep_id)}
    if runs and not folder.is_dir():
        raise UserError(
            f"the files of sweep {sweep_id} are not in {runs_dir}: name the folder that has {sweep_id} with --runs-dir"
        )
    for run_id, what in damaged(db, runs_dir, sweep_id).items():
        records.set_aside(db, runs[run_id], f"made again: {what}")
        yield f"run {runs[run_id]['position']} is made again: {what}"
        del runs[run_id]
    known = {
        runs_dir / row["path"]
        for row in db.query("SELECT path FROM artefacts JOIN runs USING (run_id) WHERE sweep_id = ?", [sweep_id])
    }
    for path in folder.glob(f"{sweep_id}-*"):
        if OF_A_RUN.fullmatch(path.name.removeprefix(sweep_id)) and path.name not in runs:
            shutil.rmtree(path, ignore_errors=True)
    for run_id in runs:
        for path in (folder / run_id).rglob("*"):
            if path not in known and path.name.endswith(KEPT):
                path.unlink()


def _problem(path: Path, row: dict[str, Any]) -> str | None:
    try:
        with path.open("rb") as file:
            if path.stat().st_size == row["bytes"] and hashlib.file_digest(file, "sha256").hexdigest() == row["sha256"]:
                return None
    except FileNotFoundError:
        return "is gone"
    except PermissionError as error:
        raise UserError(f"{path} can't be read by this user: give it back to who runs the sweep (chown)") from error
    except OSError as error:
        return f"can't be read ({error.strerror})"
    return "is not the file that was stored"
