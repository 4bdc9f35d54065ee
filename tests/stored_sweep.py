"""A stored sweep as a real one leaves it: rows in every table, and files with the journals of recorded runs."""

from __future__ import annotations

import json
import lzma
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from harness.spec import Spec
from harness.store.artefacts import keep
from harness.store.db import open_store
from harness.store.records import (
    end_session,
    insert_calibration,
    insert_idle,
    insert_job,
    insert_run,
    insert_session,
    insert_sweep,
    note_attempt,
)

TRACES = Path(__file__).parent / "loops" / "traces"
SWEEP = "20260101-000000-abcd"
MACHINE = "0123456789ab"
FACTS = {"cpu": "a processor", "cores": 4}
SPEC = Spec(agents=["all"], models=["llamacpp/smollm2:135m"], repeats=2, rest_s=1.5, country="DEU")
CALIBRATION = {
    "machine_id": MACHINE, "measured_at": "2026-01-01T00:00:00+00:00", "source": "rapl", "coverage": "cpu",
    "factor": 1.5, "low": 1.4, "high": 1.6, "windows": 9, "duration_s": 60.0, "detail": "[]", "harness_version": "1",
}  # fmt: skip
RESOLVED = {
    "suite": {"name": "s", "hash": "h", "tasks": ["t0", "t1", "t2"]},
    "models": {},
    "agents": {},
    "sampling": {},
    "rules": {},
}


def recorded(group: str = "real") -> list[tuple[dict[str, Any], list[Any], dict[str, Any]]]:
    """Facts, calls and messages of recorded runs."""
    with lzma.open(TRACES / f"{group}.json.xz", "rt", encoding="utf-8") as packed:
        content = json.load(packed)
    return [(facts, calls, content["messages"]) for facts, calls in content["traces"]]


def make(runs_dir: Path, runs: int = 4, sweep_id: str = SWEEP, planned: int | None = None) -> Path:
    """A store with one sweep of so many runs, and one more in which no model was called. Returns the database."""
    database = runs_dir / "harness.db"
    db = open_store(database)
    insert_sweep(
        db, sweep_id=sweep_id, machine_id=MACHINE, facts=FACTS, version="1", spec=SPEC.model_dump(),
        resolved=RESOLVED, planned_runs=planned or runs + 1,
    )  # fmt: skip
    insert_session(db, sweep_id, 1, {"rapl": "measured"}, {}, ("DEU", 380.0, "a table"))
    if not db.table("calibrations").count:
        insert_calibration(db, FACTS, CALIBRATION)
    about = {"sweep_id": sweep_id, "number": 1, "session": 1, "before_position": 0, "started_at": "", "duration_s": 5.0,
             "kind": "measured", "coverage": "cpu"}  # fmt: skip
    insert_idle(db, [about | {"state": "unloaded", "source": "rapl", "component": "total", "watts": 3.5}])
    insert_job(db, about | {"job": "control", "what": "m: 64 tokens", "joules": None})
    note_attempt(db, sweep_id, 0, 1, "sandbox_error", "it broke")
    long = [run for run in recorded() if len(run[1]) > 3]
    for position, (facts, calls, messages) in enumerate(long[:: len(long) // runs][:runs]):
        add(db, runs_dir, sweep_id, position, facts, calls, messages)
    add(db, runs_dir, sweep_id, runs, {"agent": "nop", "task": "t0"}, [], {})
    session = {"source": "rapl", "component": "total", "joules": 9.0, "kind": "measured", "coverage": "cpu"}
    end_session(db, sweep_id, 1, 99.0, {"rapl": "measured"}, [session])
    db.close()
    return database


def add(
    db: Database, runs_dir: Path, sweep_id: str, position: int, facts: dict[str, Any], calls: list[Any],
    messages: dict[str, Any], **changes: Any,
) -> str:  # fmt: skip
    """A run with its files. Returns its id."""
    run_id = f"{sweep_id}-{position:04d}"
    folder = runs_dir / sweep_id / run_id
    kept = [keep(runs_dir, folder, "agent.log", f"log of {run_id}\n".encode())]
    if calls:
        used = sorted({sha256 for call in calls for sha256 in call["messages"]})
        said = [json.dumps({"sha256": sha256, "message": messages[sha256]}) for sha256 in used]
        kept += [
            keep(runs_dir, folder, "calls.jsonl", "".join(json.dumps(call) + "\n" for call in calls).encode()),
            keep(runs_dir, folder, "messages.jsonl", "".join(line + "\n" for line in said).encode()),
            keep(runs_dir, folder, "patch.diff", b"diff --git a/x b/x\n"),
        ]
    row = {
        "run_id": run_id, "sweep_id": sweep_id, "position": position, "suite": "s", "task": facts["task"],
        "agent": facts["agent"], "agent_version": "1.2.3", "agent_commit": None, "overrides": '{"a": "b"}',
        "engine": "llamacpp" if calls else "none", "model": "smollm2:135m" if calls else "", "think": 0,
        "repetition": 1, "attempt": 1, "ended_by": facts.get("ended_by", "submitted"), "verdict": "unresolved",
        "started_at": "2026-01-01T00:00:00+00:00", "ended_at": "2026-01-01T00:10:00+00:00", "duration_s": 600.0,
        "setup_s": 1.0, "agent_s": 500.0, "grading_s": 1.0, "calls": len(calls),
        "input_tokens": sum(call["input_tokens"] or 0 for call in calls), "cached_tokens": None,
        "output_tokens": sum(call["output_tokens"] or 0 for call in calls), "num_ctx": 16384, "temperature": 0.7,
        "seed": 1, "image_digest": "sha256:1", "image_source": "dockerfile", "bundle": "b" if calls else None,
        "patch_bytes": 19 if calls else 0, "flags": '["answers_truncated"]', "harness_version": "1",
        "machine_id": MACHINE, "session": 1, "energy_source": "rapl", "idle_number": 1,
    } | changes  # fmt: skip
    rows = [
        {
            "call_id": f"{run_id}/{call['index']}", "run_id": run_id, "call_index": call["index"],
            "started_at": f"2026-01-01T00:00:{call['index'] % 60:02d}+00:00", "offset_s": call["offset_s"],
            "queued_s": 0.0, "duration_s": call["duration_s"], "status": call["status"], "truncated": 0,
            "dialect": "openai", "streamed": 1, "sent": int(call["status"] not in ("refused", "limit")),
            "tool_calls": len(call["answer"]["tool_calls"]), "request_bytes": 1, "asked": "{}",
            "input_tokens": call["input_tokens"], "output_tokens": call["output_tokens"],
            "http_status": call["http_status"], "finish_reason": call["finish_reason"], "workdir": call["workdir"],
        }
        for call in calls
    ]  # fmt: skip
    told = {"source": "rapl", "component": "total", "kind": "measured", "coverage": "cpu"}
    energy = [told | {"layer": "gross", "phase": "agent", "joules": 240.0 + position}]
    energy += [told | {"layer": "net", "phase": "agent", "joules": None, "kind": "unavailable", "detail": "no idle"}]
    spread = [
        {"run_id": run_id, "call_index": row["call_index"], "phase": "decode", "duration_s": 1.0, "spread_j": 1.25,
         "kind": "measured", "source": "rapl", "coverage": "cpu"}
        for row in rows if row["sent"]
    ]  # fmt: skip
    guard = [{"call_index": 2, "action": "nudged", "kind": "cycle", "conversation": 0, "onset": 1, "steps": 2,
              "text": "Try something else."}] if len(calls) > 2 else []  # fmt: skip
    insert_run(db, row, rows, energy, spread, [asdict(file) for file in kept], interventions=guard)
    return run_id
