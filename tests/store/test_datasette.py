"""What Datasette is told: nothing that is not there, and queries that run."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from harness.store.columns import COLUMNS
from harness.store.datasette import QUERIES, metadata
from harness.store.db import open_store
from harness.store.records import insert_run, insert_sweep


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One sweep with two runs, each with a call, energy and what a guard did."""
    path = tmp_path_factory.mktemp("store") / "harness.db"
    db = open_store(path)
    insert_sweep(db, sweep_id="s", machine_id="m", facts={}, version="1", spec={}, resolved={}, planned_runs=2)
    energy = {"source": "counters", "component": "total", "layer": "gross", "kind": "measured", "coverage": "cpu"}
    for position, verdict in enumerate(("resolved", "unresolved")):
        run_id = f"s-{position:04d}"
        row = {
            "run_id": run_id, "sweep_id": "s", "position": position, "suite": "s", "task": "t", "agent": "a",
            "agent_version": "1", "engine": "ollama", "model": "m", "think": 0, "repetition": 1, "attempt": 1,
            "ended_by": "submitted", "verdict": verdict, "claimed": "done", "started_at": "", "ended_at": "",
            "duration_s": 3.0, "setup_s": 1.0, "agent_s": 1.0, "grading_s": 1.0, "calls": 1, "image_digest": "",
            "image_source": "dockerfile", "flags": '["cache_unknown_at_start"]', "energy_source": "counters",
            "harness_version": "1", "machine_id": "m", "guard": "nudge",
        }  # fmt: skip
        call = {
            "call_id": f"{run_id}/0", "run_id": run_id, "call_index": 0, "started_at": "", "offset_s": 0.0,
            "queued_s": 0.0, "duration_s": 2.0, "status": "engine_error", "truncated": 0, "dialect": "openai",
            "streamed": 0, "sent": 1, "tool_calls": 0, "request_bytes": 1, "asked": "{}",
        }  # fmt: skip
        part = {
            "run_id": run_id, "call_index": 0, "phase": "decode", "duration_s": 2.0, "joules": None, "spread_j": 7.0,
            "kind": "measured", "source": "counters", "coverage": "cpu",
        }  # fmt: skip
        done = {"call_index": 0, "action": "nudged", "kind": "cycle", "conversation": 0, "onset": 0, "steps": 9}
        rows = [energy | {"phase": phase, "joules": 10.0} for phase in ("agent", "decode")]
        insert_run(db, row, [call], rows, [part], [], interventions=[done])
    db.close()
    return path


@pytest.mark.parametrize("name", QUERIES)
def test_every_query_finds_what_it_is_about(database: Path, name: str) -> None:
    with sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True) as db:
        db.row_factory = sqlite3.Row
        wanted = {"sweep": "s", "run": "s-0000"}
        asked = {word: wanted[word] for word in re.findall(r":(\w+)", QUERIES[name].sql)}
        assert [dict(row) for row in db.execute(QUERIES[name].sql, asked)]
        assert not list(db.execute(QUERIES[name].sql, dict.fromkeys(asked, "another")))


def test_figures_of_the_queries(database: Path) -> None:
    with sqlite3.connect(database) as db:
        [energy] = db.execute(QUERIES["energy_by_cell"].sql, {"sweep": ""}).fetchall()
        assert energy[4:8] == ("measured", "cpu", 2, 10.0)
        [resolved] = db.execute(QUERIES["resolved_by_cell"].sql, {"sweep": ""}).fetchall()
        assert resolved[4:] == (1, 2, 0.5)
        [call] = db.execute(QUERIES["calls_of_a_run"].sql, {"run": "s-0001"}).fetchall()
        assert call[-2:] == (None, 7.0)


def test_tables_columns_and_units_are_those_of_the_store(database: Path) -> None:
    tables = metadata("harness")["databases"]["harness"]["tables"]
    db = open_store(database)
    assert set(tables) == set(db.table_names()) | set(db.view_names())
    for name, table in tables.items():
        assert table["columns"] == COLUMNS.get(name, {})
        assert set(table.get("units", ())) <= set(table["columns"])
    assert tables["runs"]["units"]["agent_s"] == "s"
    assert tables["energy"]["units"] == {"joules": "J", "low_j": "J", "high_j": "J"}


def test_the_command_writes_the_file_and_says_what_to_type(database: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "harness", "db", "datasette", "--db", str(database)]
    done = subprocess.run([*words, "-o", tmp_path / "d.json"], capture_output=True, text=True, check=True)
    assert f"datasette serve {database} --metadata {tmp_path / 'd.json'}" in done.stdout
    assert "harness" in json.loads((tmp_path / "d.json").read_text())["databases"]
    done = subprocess.run([*words, "-o", tmp_path / "no" / "d.json"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "can't be written" in done.stderr
