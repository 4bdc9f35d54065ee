"""The summary is read from the store alone; unknown stays unknown, and unlike energies are not averaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database

from harness.analysis.figures import energy_note
from harness.analysis.summary import cells, page
from harness.store.db import open_store
from harness.store.records import insert_run, insert_sweep

RESOLVED = {
    "suite": {"name": "s", "hash": "h", "tasks": ["t"]},
    "models": {},
    "agents": {},
    "sampling": {},
    "rules": {},
}


@pytest.fixture
def db(tmp_path: Path) -> Database:
    db = open_store(tmp_path / "h.db")
    insert_sweep(
        db, sweep_id="s", machine_id="m", facts={"cpu": "<b>x</b>"}, version="1", spec={}, resolved=RESOLVED,
        planned_runs=9,
    )  # fmt: skip
    return db


def add(db: Database, position: int, joules: float | None = 1.0, kind: str = "measured", **changes: Any) -> None:
    row = {
        "run_id": f"s-{position:04d}", "sweep_id": "s", "position": position, "suite": "s", "task": "t", "agent": "a",
        "agent_version": "1", "engine": "ollama", "model": "m", "think": 0, "repetition": 1, "attempt": 1,
        "ended_by": "submitted", "verdict": "unresolved", "started_at": "", "ended_at": "", "duration_s": 3.0,
        "setup_s": 1.0, "agent_s": 1.0, "grading_s": 1.0, "calls": 2, "input_tokens": 10, "output_tokens": 4,
        "image_digest": "", "image_source": "built", "flags": "[]",
        "energy_source": "codecarbon", "harness_version": "1", "machine_id": "m",
    } | changes  # fmt: skip
    energy = {
        "source": "codecarbon", "component": "total", "layer": "gross", "phase": "agent", "joules": joules,
        "kind": kind, "coverage": "cpu",
    }  # fmt: skip
    insert_run(db, row, [], [energy], [], [])


def test_a_cell_counts_resolved_over_graded_and_leaves_out_what_the_machine_spoilt(db: Database) -> None:
    add(db, 0, verdict="resolved", calls=2)
    add(db, 1, calls=4)
    add(db, 2, verdict="grader_error", calls=6)
    add(db, 3, ended_by="model_error", calls=100)
    [cell] = cells(db, "s")
    assert (cell["runs"], cell["valid"], cell["resolved"], cell["calls"]) == (4, 3, "1 of 2", 4.0)
    assert cell["endings"] == "submitted 3, model_error"


def test_unknown_is_none_and_no_part_of_a_mean(db: Database) -> None:
    add(db, 0, input_tokens=None, output_tokens=None)
    add(db, 1, input_tokens=30, output_tokens=None)
    [cell] = cells(db, "s")
    assert (cell["input_tokens"], cell["output_tokens"], cell["engine_mb"]) == (30.0, None, None)


def test_energies_of_different_kinds_are_not_averaged(db: Database) -> None:
    add(db, 0, joules=10.0)
    add(db, 1, joules=20.0)
    [cell] = cells(db, "s")
    assert (cell["energy_j"], cell["energy_kind"]) == (15.0, "measured")
    add(db, 2, joules=30.0, kind="estimated")
    [cell] = cells(db, "s")
    assert (cell["energy_j"], cell["energy_kind"]) == (None, "estimated, measured")


def test_a_clock_is_called_one(db: Database) -> None:
    add(db, 0, kind="estimated_constant")
    rows = cells(db, "s")
    assert rows[0]["energy"] == "1 ~~"
    assert "clock" in (energy_note(rows) or "")


def test_the_page_stands_alone_says_what_is_missing_and_escapes(db: Database) -> None:
    add(db, 0, joules=None, kind="unavailable")
    html = page(db, "s", Path())
    assert "1 of 9 runs" in html
    assert "8 planned runs are outstanding" in html
    assert "<b>x</b>" not in html
    assert "src=" not in html
    assert "href=" not in html


def test_a_flagged_run_is_in_no_mean_of_seconds_and_joules_and_is_counted(db: Database) -> None:
    add(db, 0, joules=10.0, agent_s=1.0)
    add(db, 1, joules=90.0, agent_s=9.0, flags='["throttled: 3 events of package0"]', verdict="resolved")
    [cell] = cells(db, "s")
    assert (cell["energy_j"], cell["agent_s"], cell["left_out"]) == (10.0, 1.0, {"throttled": 1})
    assert (cell["resolved"], cell["calls"]) == ("1 of 2", 2.0)
    assert "1 of a × m (throttled)" in page(db, "s", Path())
