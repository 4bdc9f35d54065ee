"""The first page: every sweep, the newest first."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlite_utils import Database
from starlette.requests import Request

from harness.view.reading import Reading

PAGE = 25


def page(store: Reading, request: Request) -> Mapping[str, Any]:
    q = request.query_params.get("q", "").strip()
    text = request.query_params.get("page", "1")
    number = max(1, int(text)) if text.isascii() and text.isdigit() and len(text) < 8 else 1
    where, values = "", []
    for word in q.split():
        where += (" AND " if where else "WHERE ") + "(sweep_id LIKE ? OR created_at LIKE ? OR spec LIKE ?)"
        values += [f"%{word}%"] * 3
    matching = int(store.db.execute(f"SELECT COUNT(*) FROM sweeps {where}", values).fetchone()[0])
    rows = list(
        store.db.query(
            "SELECT sweep_id, created_at, ended_at, planned_runs, "
            "(SELECT COUNT(*) FROM runs WHERE runs.sweep_id = sweeps.sweep_id) AS runs "
            f"FROM sweeps {where} ORDER BY created_at DESC, rowid DESC LIMIT ? OFFSET ?",
            [*values, PAGE, (number - 1) * PAGE],
        )
    )
    ids = [row["sweep_id"] for row in rows]
    return {
        "rows": rows,
        "about": store.aside("sweeps " + " ".join(ids), lambda db: about(db, ids)),
        "matching": matching,
        "q": q,
        "number": number,
        "pages": max(1, -(-matching // PAGE)),
        "going_on": sum(row["ended_at"] is None for row in rows),
        "version": version(store, request)["version"],
    }


def version(store: Reading, request: Request) -> Mapping[str, str]:
    """Another word whenever a sweep or a run has come or ended."""
    sweeps = store.db.execute("SELECT COUNT(*), COUNT(ended_at) FROM sweeps").fetchone()
    newest = store.db.execute("SELECT MAX(rowid) FROM runs").fetchone()
    return {"version": "-".join(map(str, (*sweeps, *newest)))}


def about(db: Database, sweep_ids: list[str]) -> dict[str, dict[str, Any]]:
    """Of each sweep its suite, agents and models, and how many of its graded runs are resolved."""
    found: dict[str, dict[str, Any]] = {}
    for sweep_id in sweep_ids:
        plan = json.loads(db.execute("SELECT resolved FROM sweeps WHERE sweep_id = ?", [sweep_id]).fetchone()[0])
        resolved, graded = db.execute(
            "SELECT SUM(outcome = 'resolved'), SUM(outcome IN ('resolved', 'unresolved', 'no_patch')) "
            "FROM runs JOIN outcomes USING (ended_by, verdict) WHERE sweep_id = ?",
            [sweep_id],
        ).fetchone()
        found[sweep_id] = {
            "suite": plan.get("suite", {}).get("name"),
            "tasks": len(plan.get("suite", {}).get("tasks", ())),
            "agents": list(plan.get("agents", ())),
            "models": list(plan.get("models", ())),
            "resolved": resolved or 0,
            "graded": graded or 0,
        }
    return found
