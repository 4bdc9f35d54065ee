"""Two sweeps beside each other: paired by task, never pooled, and what differs in their records is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlite_utils import Database

from harness.analysis.figures import CLOCK
from harness.analysis.statistics.sweeps import CellChange, SweepChange, compare_sweeps, read_sweep
from harness.cli.compare import compare as command
from harness.errors import UserError
from harness.store.db import open_store
from harness.store.records import insert_run, insert_sweep

TASKS = 12


@pytest.fixture
def db(tmp_path: Path) -> Database:
    return open_store(tmp_path / "h.db")


def add_sweep(
    db: Database, sweep_id: str, factor: float = 1.0, kind: str = "measured", machine: str = "m", **run: Any
) -> None:
    guard = run.get("guard", "off")
    insert_sweep(
        db, sweep_id=sweep_id, machine_id=machine, facts={"cpu": machine}, version="1", spec={},
        resolved={"rules": {"guard": guard}, "agents": {}, "runs": [sweep_id]}, planned_runs=TASKS,
    )  # fmt: skip
    chance = np.random.default_rng(3)
    for number in range(TASKS):
        size = float(chance.lognormal(3, 0.5)) * factor
        row = {
            "run_id": f"{sweep_id}-{number:04d}", "sweep_id": sweep_id, "position": number, "suite": "s",
            "task": f"t{number}", "agent": "a", "agent_version": "1", "engine": "ollama", "model": "m", "think": 0,
            "repetition": 1, "attempt": 1, "ended_by": "submitted",
            "verdict": "resolved" if number < 6 * factor else "unresolved", "started_at": "", "ended_at": "",
            "duration_s": 3.0, "setup_s": 1.0, "agent_s": size * float(chance.lognormal(0, 0.1)), "grading_s": 1.0,
            "calls": 10 + number, "input_tokens": round(100 * size), "output_tokens": 4, "image_digest": "",
            "image_source": "built", "flags": "[]", "energy_source": "x", "harness_version": "1", "machine_id": machine,
        } | run  # fmt: skip
        energy = {"source": "x", "component": "total", "layer": "gross", "phase": "agent",
                  "joules": size * 40 * float(chance.lognormal(0, 0.1)), "kind": kind, "coverage": "cpu"}  # fmt: skip
        insert_run(db, row, [], [energy], [], [])


def between(db: Database, one: str = "one", other: str = "two") -> SweepChange:
    return compare_sweeps(read_sweep(db, one), read_sweep(db, other))


def ratios(cell: CellChange) -> dict[str, float | None]:
    return {change.metric: change.ratio.value for change in cell.changes}


def test_what_changed_and_by_how_much(db: Database) -> None:
    add_sweep(db, "one")
    add_sweep(db, "two", 0.5, guard="stop")
    found = between(db)
    [cell] = found.cells
    by_metric = {change.metric: change for change in cell.changes}
    assert by_metric["energy_j"].ratio.value == pytest.approx(0.5)
    assert by_metric["calls"].ratio.value == pytest.approx(1)
    assert by_metric["tokens"].test is not None
    assert (by_metric["tokens"].test.p or 1) < 0.01
    assert by_metric["calls"].test is not None
    assert by_metric["calls"].test.why == "no task differs"
    assert cell.rate.value.value == pytest.approx(-3 / TASKS)
    assert cell.rate.test.name == "McNemar, exact"
    assert found.differences == ['rules.guard: "off" -> "stop"']
    assert "net_energy_j" not in by_metric


def test_another_machine_is_said(db: Database) -> None:
    add_sweep(db, "one")
    add_sweep(db, "two", machine="other")
    assert between(db).differences == ['machine.cpu: "m" -> "other"']


@pytest.mark.parametrize(
    ("kinds", "why"),
    [
        (("measured", "estimated"), "of different kind or coverage"),
        (("estimated_constant", "estimated_constant"), CLOCK),
        (("unavailable", "unavailable"), "no source told the energy"),
    ],
)
def test_energies_that_can_not_be_compared(db: Database, kinds: tuple[str, str], why: str) -> None:
    add_sweep(db, "one", kind=kinds[0])
    add_sweep(db, "two", 0.5, kind=kinds[1])
    [cell] = between(db).cells
    change = next(change for change in cell.changes if change.metric == "energy_j")
    assert (change.ratio.value, change.test) == (None, None)
    assert why in (change.ratio.why or "")
    assert ratios(cell)["agent_s"] is not None


def test_flagged_and_spoilt_runs_and_cells_of_one_sweep_alone(db: Database) -> None:
    add_sweep(db, "one", flags='["throttled"]')
    add_sweep(db, "two")
    [cell] = between(db).cells
    assert cell.left_out == (TASKS, 0)
    assert ratios(cell)["agent_s"] is None
    assert ratios(cell)["tokens"] == pytest.approx(1)
    add_sweep(db, "three", agent="b")
    assert between(db, "one", "three").only == {"one": [("a", "m")], "three": [("b", "m")]}
    add_sweep(db, "four", ended_by="model_error")
    assert between(db, "one", "four").cells == []


def test_the_command_and_its_mistakes(db: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_sweep(db, "one")
    add_sweep(db, "two", 0.5, guard="stop")
    command("one", "two", db=tmp_path / "h.db")
    said = capsys.readouterr().out
    assert "from one to two" in said
    assert 'rules.guard: "off" -> "stop"' in said
    command("one", "one", db=tmp_path / "h.db")
    assert "their records are the same" in capsys.readouterr().out
    with pytest.raises(UserError, match="sweep 'nope' is unknown"):
        command("one", "nope", db=tmp_path / "h.db")
    with pytest.raises(UserError, match="there is no database"):
        command("one", "two", db=tmp_path / "h.db", other_db=tmp_path / "none.db")
