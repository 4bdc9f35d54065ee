"""Writing a sweep and its runs: each run in one transaction, so that it is there whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlite_utils import Database

from harness.errors import UserError, nearest
from harness.outcome import ENDINGS


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def insert_sweep(
    db: Database,
    *,
    sweep_id: str,
    machine_id: str,
    facts: Mapping[str, Any],
    version: str,
    spec: Mapping[str, Any],
    resolved: Mapping[str, Any],
    planned_runs: int,
) -> None:
    with db.atomic():
        _note_machine(db, machine_id, facts)
        db.table("sweeps").insert(
            {
                "sweep_id": sweep_id,
                "created_at": now(),
                "ended_at": None,
                "machine_id": machine_id,
                "harness_version": version,
                "spec": json.dumps(spec),
                "resolved": json.dumps(resolved),
                "planned_runs": planned_runs,
            }
        )


def _note_machine(db: Database, machine_id: str, facts: Mapping[str, Any]) -> None:
    row = {"machine_id": machine_id, "facts": json.dumps(facts, sort_keys=True)}
    db.table("machines").insert(row, pk="machine_id", ignore=True)


def end_sweep(db: Database, sweep_id: str) -> None:
    db.table("sweeps").update(sweep_id, {"ended_at": now()})


def next_session(db: Database, sweep_id: str) -> int:
    return 1 + int(db.table("sessions").count_where("sweep_id = ?", [sweep_id]))


def next_number(db: Database, table: str, sweep_id: str) -> int:
    """The number after the highest that a table of numbered rows has for a sweep."""
    [(highest,)] = db.execute(f"SELECT MAX(number) FROM {table} WHERE sweep_id = ?", [sweep_id]).fetchall()
    return 1 + (highest or 0)


def insert_session(
    db: Database,
    sweep_id: str,
    session: int,
    sources: Mapping[str, Any],
    conditions: Mapping[str, Any],
    country: tuple[str, float, str] | None,
) -> None:
    """`country` is its code, the grams of CO2 equivalent for each kWh, and where that number is from."""
    code, grams, source = country or (None, None, None)
    db.table("sessions").insert(
        {
            "sweep_id": sweep_id,
            "session": session,
            "started_at": now(),
            "sources": json.dumps(sources),
            "conditions": json.dumps(conditions),
            "country": code,
            "carbon_g_per_kwh": grams,
            "carbon_source": source,
        }
    )


def end_session(
    db: Database,
    sweep_id: str,
    session: int,
    duration_s: float,
    sources: Mapping[str, Any],
    energy: Iterable[Mapping[str, Any]],
) -> None:
    """`sources` once more: what went wrong with them on the way is in it by now."""
    with db.atomic():
        facts = {"ended_at": now(), "duration_s": duration_s, "sources": json.dumps(sources)}
        db.table("sessions").update((sweep_id, session), facts)
        db.table("session_energy").insert_all({"sweep_id": sweep_id, "session": session, **row} for row in energy)


def insert_idle(db: Database, rows: Iterable[Mapping[str, Any]]) -> None:
    with db.atomic():
        db.table("idle").insert_all(rows)


def insert_job(db: Database, row: Mapping[str, Any]) -> None:
    db.table("jobs").insert(row)


def control_tokens(db: Database, sweep_id: str) -> int | None:
    """The size of a sweep's control job, from the first one's words; None before it."""
    rows = db.execute(
        "SELECT what FROM jobs WHERE sweep_id = ? AND job = 'control' ORDER BY number LIMIT 1", [sweep_id]
    ).fetchall()
    word = rows[0][0].rpartition(": ")[2].partition(" ")[0] if rows else ""
    return int(word) if word.isdigit() else None


def wall_factor(db: Database, machine_id: str) -> tuple[float, float, float] | None:
    """The machine's newest calibration: factor, and the ends of its interval."""
    rows = db.execute(
        "SELECT factor, low, high FROM calibrations WHERE machine_id = ? ORDER BY measured_at DESC LIMIT 1",
        [machine_id],
    ).fetchall()
    return (float(rows[0][0]), float(rows[0][1]), float(rows[0][2])) if rows else None


def insert_calibration(db: Database, facts: Mapping[str, Any], row: Mapping[str, Any]) -> None:
    with db.atomic():
        _note_machine(db, row["machine_id"], facts)
        db.table("calibrations").insert(row)


def add_flag(db: Database, sweep_id: str, begin: int, end: int, flag: str) -> None:
    """Flag the runs at positions from `begin` up to, and without, `end`."""
    with db.atomic():
        rows = db.execute(
            "SELECT run_id, flags FROM runs WHERE sweep_id = ? AND position >= ? AND position < ?",
            [sweep_id, begin, end],
        ).fetchall()
        for run_id, flags in rows:
            db.table("runs").update(run_id, {"flags": json.dumps([*json.loads(flags), flag])})


def insert_run(
    db: Database,
    row: Mapping[str, Any],
    calls: Iterable[Mapping[str, Any]],
    energy: Iterable[Mapping[str, Any]],
    call_energy: Iterable[Mapping[str, Any]],
    artefacts: Iterable[Mapping[str, Any]],
    notes: Sequence[str] = (),
    interventions: Iterable[Mapping[str, Any]] = (),
    graded_in: str | None = None,
) -> None:
    """Store a run with all that belongs to it; `notes` are the grading's, and so is the image `graded_in`, where it is
    not the sandbox's.

    Raises sqlite3.IntegrityError when it is there already.
    """
    run_id = row["run_id"]
    with db.atomic():
        db.table("runs").insert(row)
        db.table("calls").insert_all(calls)
        db.table("energy").insert_all({"run_id": run_id, **figure} for figure in energy)
        db.table("call_energy").insert_all({"run_id": run_id, **figure} for figure in call_energy)
        db.table("interventions").insert_all(
            {"run_id": run_id, "number": number, **row} for number, row in enumerate(interventions, 1)
        )
        kept = [{"run_id": run_id, **artefact} for artefact in artefacts]
        db.table("artefacts").insert_all(kept)
        log = next((artefact["path"] for artefact in kept if artefact["name"] == "tests.log"), None)
        db.table("grades").insert(
            {
                "run_id": run_id,
                "number": 1,
                "graded_at": row["ended_at"],
                "verdict": row["verdict"],
                "detail": row.get("verdict_detail"),
                "test_s": row.get("test_s"),
                "image_digest": graded_in or row["image_digest"],
                "notes": json.dumps(list(notes)),
                "log": log,
                "harness_version": row["harness_version"],
            }
        )


def put_history(db: Database, row: Mapping[str, Any], loops: Iterable[Mapping[str, Any]]) -> None:
    """Store what a run's calls come to, in place of what an older search found."""
    with db.atomic():
        db.execute("DELETE FROM histories WHERE run_id = ?", [row["run_id"]])
        db.table("histories").insert(row)
        db.table("loops").insert_all(loops)


def insert_grade(
    db: Database,
    run: Mapping[str, Any],
    *,
    verdict: str,
    detail: str | None,
    test_s: float | None,
    image_digest: str,
    notes: Sequence[str],
    artefact: Mapping[str, Any] | None,
    version: str,
) -> None:
    """Store another grading of a run, which is from then on the run's verdict. `artefact` is the tests' log."""
    run_id = run["run_id"]
    [(last,)] = db.execute("SELECT MAX(number) FROM grades WHERE run_id = ?", [run_id]).fetchall()
    with db.atomic():
        db.table("grades").insert(
            {
                "run_id": run_id,
                "number": (last or 0) + 1,
                "graded_at": now(),
                "verdict": verdict,
                "detail": detail,
                "test_s": test_s,
                "image_digest": image_digest,
                "notes": json.dumps(list(notes)),
                "log": artefact["path"] if artefact else None,
                "harness_version": version,
            }
        )
        if artefact:
            db.table("artefacts").insert({"run_id": run_id, **artefact})
        [(before,)] = db.execute("SELECT notes FROM grades WHERE run_id = ? AND number = ?", [run_id, last]).fetchall()
        kept = [flag for flag in json.loads(run["flags"]) if flag not in json.loads(before)]
        flags = json.dumps([*kept, *notes])
        db.table("runs").update(
            run_id, {"verdict": verdict, "verdict_detail": detail, "test_s": test_s, "flags": flags}
        )


def set_aside(db: Database, run: Mapping[str, Any], why: str | None) -> None:
    """Turn a run that does not stand into a note of the attempt, so that it can be tried again.

    Its sweep is under way again: one that is interrupted now must not look complete.
    """
    with db.atomic():
        note_attempt(db, run["sweep_id"], run["position"], run["attempt"], run["ended_by"], why)
        db.execute("DELETE FROM runs WHERE run_id = ?", [run["run_id"]])
        db.table("sweeps").update(run["sweep_id"], {"ended_at": None})


def note_attempt(db: Database, sweep_id: str, position: int, attempt: int, ended_by: str, detail: str | None) -> None:
    db.table("attempts").insert(
        {
            "sweep_id": sweep_id,
            "position": position,
            "attempt": attempt,
            "ended_by": ended_by,
            "detail": detail,
            "ended_at": now(),
        },
        replace=True,
        pk=("sweep_id", "position", "attempt"),
    )


def attempts_of(db: Database, sweep_id: str) -> dict[int, int]:
    """Position to the number of failed attempts that are noted."""
    rows = db.query("SELECT position, MAX(attempt) AS n FROM attempts WHERE sweep_id = ? GROUP BY position", [sweep_id])
    return {row["position"]: row["n"] for row in rows}


def runs_of(db: Database, sweep_id: str) -> list[dict[str, Any]]:
    return list(db.query("SELECT * FROM runs WHERE sweep_id = ? ORDER BY position", [sweep_id]))


def spoilt(run: Mapping[str, Any]) -> bool:
    """Whether the machine, not the agent, ended a stored run."""
    return ENDINGS[run["ended_by"]].retried


def find_sweep(db: Database, sweep_id: str | None) -> dict[str, Any]:
    """A sweep by its id (or its beginning), or the newest. Raises UserError when there is none such."""
    sweeps: list[dict[str, Any]] = list(db.query("SELECT * FROM sweeps ORDER BY created_at DESC, rowid DESC"))
    if not sweeps:
        raise UserError("the database holds no sweep yet: start one with `harness sweep`, or name another with --db")
    if sweep_id is None:
        return sweeps[0]
    matching = [sweep for sweep in sweeps if sweep["sweep_id"].startswith(sweep_id)]
    exact = [sweep for sweep in matching if sweep["sweep_id"] == sweep_id]
    if len(exact or matching) != 1:
        problem = "is ambiguous" if matching else "is unknown"
        known = [sweep["sweep_id"] for sweep in sweeps]
        raise UserError(f"sweep {sweep_id!r} {problem}: {nearest(sweep_id, known)}")
    return (exact or matching)[0]
