"""What loops come to, kept with the runs (tables `histories` and `loops`): journals are read once for each run and each
set of rules."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from harness.analysis.loops.detector import Loop
from harness.analysis.loops.digest import Digest, as_row, digest_of, loops_of, of_row
from harness.analysis.loops.kinds import DETECTOR
from harness.analysis.loops.stored import analyse
from harness.store.records import put_history

RUN = """run_id, position, agent, engine, model, task, repetition, outcome, counts, left_out, ended_by, verdict,
claimed, calls, input_tokens, output_tokens, agent_s, duration_s, sandbox_peak_anon_bytes, engine_peak_bytes,
energy_j, net_energy_j, energy_kind, energy_coverage, machine_id, guard"""


def digests(db: Database, runs_dir: Path, sweep_id: str) -> list[Digest]:
    """Every run of a sweep, in its order.

    Runs whose loops were not searched for, or by other rules, or whose journal could not be read, are read from their
    journals, and what is found is kept where the database can be written.
    """
    known = {
        row["run_id"]: row
        for row in db.query(
            "SELECT histories.* FROM histories JOIN runs USING (run_id) WHERE sweep_id = ? AND detector = ?",
            [sweep_id, DETECTOR],
        )
    }
    loops: dict[str, list[Loop]] = {}
    for row in db.query(
        "SELECT loops.* FROM loops JOIN runs USING (run_id) WHERE sweep_id = ? ORDER BY run_id, number", [sweep_id]
    ):
        loops.setdefault(row["run_id"], []).append(_loop(row))
    runs = db.query(
        f"SELECT {', '.join(f'runs_summary.{name.strip()}' for name in RUN.split(','))}, "
        "runs.ended_detail, runs.verdict_detail "
        "FROM runs_summary JOIN runs USING (run_id) WHERE runs.sweep_id = ? ORDER BY runs.position",
        [sweep_id],
    )
    return [
        of_row(run, known.pop(run["run_id"]), tuple(loops.pop(run["run_id"], ())))
        if run["run_id"] in known
        else _found(db, runs_dir, run)
        for run in [{name: _once(value) for name, value in run.items()} for run in runs]
    ]


def _once(value: Any) -> Any:
    """A text that many rows have, kept once."""
    return sys.intern(value) if type(value) is str else value


def keep_digest(db: Database, runs_dir: Path, run_id: str) -> Digest:
    """Search a run for loops and keep what is found: of a journal that can't be read nothing, since it may come back.

    Raises sqlite3.OperationalError when it can't be written.
    """
    digest = digest_of(analyse(db, runs_dir, run_id))
    if digest.unanalysable:
        return digest
    put_history(db, as_row(digest, DETECTOR), loops_of(digest))
    return digest


def _found(db: Database, runs_dir: Path, run: Mapping[str, Any]) -> Digest:
    try:
        digest = keep_digest(db, runs_dir, run["run_id"])
    except sqlite3.OperationalError:  # an archive, or a sweep is writing: it is found again the next time
        digest = digest_of(analyse(db, runs_dir, run["run_id"]))
    return replace(digest, run=run)


def _loop(row: Mapping[str, Any]) -> Loop:
    return Loop(row["kind"], row["conversation"], row["onset"], row["end"], row["steps"], row["plain_at"])
