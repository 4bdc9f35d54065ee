"""Sweeps of runs whose energy is typed in, for figures that can be computed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlite_utils import Database

from harness.analysis.metrics.cells import Cell, cells
from harness.store import migrations
from harness.store.db import open_store
from harness.store.records import insert_idle, insert_job, insert_run, insert_session, insert_sweep

COVERAGE = "cpu+dram"

Row = dict[str, Any]


def open_sweep(path: Path, **spec: Any) -> Database:
    db = open_store(path)
    insert_sweep(
        db, sweep_id="s", machine_id="m", facts={}, version="1", spec=spec, resolved={}, planned_runs=9
    )  # fmt: skip
    return db


def told(
    joules: float | None, component: str = "total", layer: str = "gross", phase: str = "agent", **other: Any
) -> Row:
    return {
        "source": "counters", "component": component, "layer": layer, "phase": phase, "joules": joules,
        "kind": "measured", "coverage": COVERAGE, "low_j": None, "high_j": None, "detail": None,
    } | other  # fmt: skip


def a_call(index: int, **changes: Any) -> Row:
    return {
        "call_index": index, "started_at": "", "offset_s": 0.0, "queued_s": 0.0, "duration_s": 1.0, "status": "ok",
        "truncated": 0, "dialect": "openai", "streamed": 1, "sent": 1, "tool_calls": 0, "request_bytes": 1,
        "asked": "{}", "prefill_s": 1.0, "decode_s": 2.0, "input_tokens": 100, "cached_tokens": 60,
        "output_tokens": 20,
    } | changes  # fmt: skip


def add(
    db: Database, position: int, energy: float | list[Row] | None = 100.0, calls: list[Row] | None = None,
    resolved: bool = False, **changes: Any,
) -> None:  # fmt: skip
    """A run of 10 s. `energy`: its gross joules as counted, all its rows, or None for no row."""
    run_id = f"s-{position:04d}"
    row = {
        "run_id": run_id, "sweep_id": "s", "position": position, "suite": "s", "task": f"t{position}", "agent": "a",
        "agent_version": "1", "engine": "ollama", "model": "m", "think": 0, "repetition": 1, "attempt": 1,
        "ended_by": "submitted", "verdict": "resolved" if resolved else "unresolved", "started_at": "",
        "ended_at": "", "duration_s": 13.0, "setup_s": 1.0, "agent_s": 10.0, "grading_s": 1.0, "image_digest": "",
        "image_source": "dockerfile", "flags": "[]", "harness_version": "1", "machine_id": "m", "session": 1,
        "energy_source": "counters",
    } | changes  # fmt: skip
    rows = [] if energy is None else energy if isinstance(energy, list) else [told(energy)]
    all_calls = [{"run_id": run_id, "call_id": f"{run_id}/{call['call_index']}", **call} for call in calls or []]
    insert_run(db, row, all_calls, rows, [], [])


def clock(joules: float) -> list[Row]:
    rows = [told(joules), told(joules / 2, layer="idle"), told(joules / 2, layer="net")]
    return [row | {"source": "codecarbon", "kind": "estimated_constant", "coverage": "cpu+ram"} for row in rows]


def in_phases(prefill: float, decode: float, rest: float, idle_share: float | None = 0.25) -> list[Row]:
    """A run whose joules went into three phases, with idle power taken off each."""
    parts = {"prefill": prefill, "decode": decode, "between_calls": rest}
    rows = [told(sum(parts.values())), *(told(joules, phase=phase) for phase, joules in parts.items())]
    if idle_share is not None:
        rows += [row | {"layer": "idle", "joules": row["joules"] * idle_share} for row in rows]
        rows += [row | {"layer": "net", "joules": row["joules"] * (1 - idle_share)} for row in rows if row["layer"] ==
                 "gross"]  # fmt: skip
    return rows


def only(db: Database, **options: Any) -> Cell:
    [cell] = cells(db, "s", **options)
    return cell


def job(
    db: Database, number: int, duration_s: float, joules: float | None, kind: str = "measured", **other: Any
) -> None:
    if not db.table("sessions").count_where("sweep_id = 's'"):
        insert_session(db, "s", 1, {}, {}, None)
    row = {
        "sweep_id": "s", "number": number, "session": 1, "job": "control", "before_position": number, "what": "hash",
        "started_at": "", "duration_s": duration_s, "output_tokens": None, "joules": joules, "kind": kind,
        "coverage": COVERAGE, "detail": None,
    } | other  # fmt: skip
    insert_job(db, row)


def idle(db: Database, number: int, **changes: Any) -> None:
    if not db.table("sessions").count_where("sweep_id = 's'"):
        insert_session(db, "s", 1, {}, {}, None)
    insert_idle(
        db,
        [
            {
                "sweep_id": "s", "number": number, "session": 1, "before_position": 0, "state": "loaded", "model": "m",
                "started_at": "", "duration_s": 60.0, "source": "counters", "component": component, "watts": 8.5,
                "kind": "measured", "coverage": COVERAGE, "busy_cores": 0.04, "detail": None,
            } | changes
            for component in ("cpu", "total")
        ],
    )  # fmt: skip


def old_database(path: Path) -> None:
    """A database as the schema's third step left it, with a run of each kind of energy."""
    db = Database(path)
    db["migrations"].create({"name": str, "applied_at": str}, pk="name")
    for step in migrations.MIGRATIONS[:3]:
        step(db)
        db["migrations"].insert({"name": step.__name__, "applied_at": ""})
    db["machines"].insert({"machine_id": "m", "facts": "{}"})
    db["sweeps"].insert(
        {"sweep_id": "s", "created_at": "", "machine_id": "m", "harness_version": "0", "spec": "{}", "resolved": "{}",
         "planned_runs": 2}
    )  # fmt: skip
    for position, kind in enumerate(("estimated", "estimated_constant", "unavailable")):
        run_id = f"s-{position:04d}"
        db["runs"].insert(
            {
                "run_id": run_id, "sweep_id": "s", "position": position, "suite": "s", "task": "t", "agent": kind,
                "agent_version": "1", "engine": "ollama", "model": "m", "think": 0, "repetition": 1, "attempt": 1,
                "ended_by": "submitted", "verdict": "unresolved", "started_at": "", "ended_at": "", "duration_s": 3.0,
                "setup_s": 1.0, "agent_s": 10.0, "grading_s": 1.0, "image_digest": "", "image_source": "dockerfile",
                "flags": "[]", "harness_version": "0", "machine_id": "m",
            }
        )  # fmt: skip
        db["energy"].insert(
            {"run_id": run_id, "source": "codecarbon", "component": "total", "layer": "gross", "phase": "agent",
             "joules": None if kind == "unavailable" else 208.0, "kind": kind, "coverage": "cpu+ram"}
        )  # fmt: skip
    db.conn.commit()
    db.close()
