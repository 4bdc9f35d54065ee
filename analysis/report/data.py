"""What a report is made of: the sweeps' own records, and by sweep, agent and model the runs with their loops. Cells of
different sweeps stand beside each other and are never pooled. Reads the store and nothing else."""

from __future__ import annotations

import gc
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from harness.analysis.figures import CLOCK, CONSTANT, NO_ENERGY
from harness.analysis.loops.digest import Digest
from harness.analysis.loops.kept import digests
from harness.analysis.metrics import LAYERS, PHASES
from harness.analysis.statistics.estimates import Values
from harness.analysis.statistics.sweeps import CellRuns

ALL_LEFT_OUT = "flags leave every run out of seconds and joules"

PhaseValues = dict[tuple[str, str], dict[str, list[float]]]
"""By layer and phase, and by task, joules of each run."""


@dataclass(frozen=True)
class SweepRecord:
    sweep_id: str
    row: Mapping[str, Any]
    spec: Mapping[str, Any]
    resolved: Mapping[str, Any]
    machine: Mapping[str, Any]
    sessions: Sequence[Mapping[str, Any]]
    runs: int
    """That have a row."""

    @property
    def missing(self) -> int:
        return int(self.row["planned_runs"]) - self.runs


@dataclass
class Cell:
    """One agent with one model in one sweep."""

    sweep_id: str
    agent: str
    model: str
    name: str
    machine_id: str
    all_runs: list[Digest] = field(default_factory=list)
    phases: PhaseValues = field(default_factory=dict)

    @cached_property
    def valid(self) -> list[Digest]:
        return [run for run in self.all_runs if run.run["counts"]]

    @cached_property
    def fit(self) -> list[Digest]:
        """The valid runs that no flag leaves out of seconds and joules."""
        return [run for run in self.valid if not run.run["left_out"]]

    @cached_property
    def runs(self) -> CellRuns:
        found = CellRuns()
        for run in self.valid:
            found.add(run.run)
        return found

    def values(self, metric: str) -> Values:
        return self.runs.values[metric]

    @property
    def unlike(self) -> str | None:
        """Why the energies of its own runs can't be put together."""
        if len(self.runs.energies) > 1:
            said = ", ".join(sorted(f"{kind} ({coverage})" for kind, coverage in self.runs.energies))
            return f"energies of different kind or coverage are never put together: {said}"
        return None


@dataclass(frozen=True)
class Data:
    sweeps: Sequence[SweepRecord]
    cells: Sequence[Cell]
    runs_dir: Path

    @property
    def with_models(self) -> list[Cell]:
        """The cells that call a model: controls like `oracle` are no competitors."""
        return [cell for cell in self.cells if cell.model != "none"]

    @cached_property
    def energy_is(self) -> str:
        """Kind and coverage of the energies, for captions."""
        found = {energy for cell in self.cells for energy in cell.runs.energies if energy[0] != "unavailable"}
        return ", ".join(sorted(f"{kind}, {coverage}" for kind, coverage in found)) or "unavailable"

    def no_energy(self, cells: Sequence[Cell]) -> str | None:
        """Why joules of these cells can't be shown beside each other, or None."""
        energies = {energy for cell in cells for energy in cell.runs.energies}
        told = {energy for energy in energies if energy[0] != "unavailable"}
        if not any(cell.fit for cell in cells):
            return ALL_LEFT_OUT
        if not told:
            return NO_ENERGY
        if len(energies) > 1:
            said = ", ".join(sorted(f"{kind} ({coverage})" for kind, coverage in energies))
            return f"energies of different kind or coverage are not compared: {said}"
        return self.machines(cells)

    def no_comparison(self, cells: Sequence[Cell]) -> str | None:
        """Why their energies say nothing beyond their seconds, or can't be compared at all; or None."""
        if reason := self.no_energy(cells):
            return reason
        return CLOCK if any(kind == CONSTANT for cell in cells for kind, _ in cell.runs.energies) else None

    def machines(self, cells: Sequence[Cell]) -> str | None:
        """Why nothing that depends on the machine can be compared, or None."""
        found = sorted({cell.machine_id for cell in cells})
        return f"runs of different machines are not compared: {', '.join(found)}" if len(found) > 1 else None


def read(db: Database, runs_dir: Path, sweeps: Sequence[str]) -> Data:
    """The named sweeps, in that order."""
    records, cells = [], []
    for sweep_id in sweeps:
        found = _cells(db, runs_dir, sweep_id, len(sweeps) > 1)
        cells += found
        records.append(_record(db, sweep_id, sum(len(cell.all_runs) for cell in found)))
    gc.freeze()  # it stays until the end, and of many runs the collector would look through it again and again
    return Data(records, cells, runs_dir)


def _record(db: Database, sweep_id: str, runs: int) -> SweepRecord:
    [row] = db.query("SELECT * FROM sweeps WHERE sweep_id = ?", [sweep_id])
    [machine] = db.query("SELECT facts FROM machines WHERE machine_id = ?", [row["machine_id"]])
    sessions = db.query("SELECT * FROM sessions WHERE sweep_id = ? ORDER BY session", [sweep_id])
    read = [
        session | {name: json.loads(session[name] or "{}") for name in ("sources", "conditions")}
        for session in sessions
    ]  # fmt: skip
    spec, resolved, facts = (json.loads(text) for text in (row["spec"], row["resolved"], machine["facts"]))
    return SweepRecord(sweep_id, row, spec, resolved, facts, read, runs)


def _cells(db: Database, runs_dir: Path, sweep_id: str, several: bool) -> list[Cell]:
    cells: dict[tuple[str, str], Cell] = {}
    of_run: dict[str, Cell] = {}
    for run in digests(db, runs_dir, sweep_id):
        agent, model = run.run["agent"], run.model
        name = (agent if model == "none" else f"{agent} × {model}") + (f" [{sweep_id}]" if several else "")
        cell = cells.setdefault((agent, model), Cell(sweep_id, agent, model, name, run.run["machine_id"]))
        cell.all_runs.append(run)
        if run.run["counts"] and not run.run["left_out"]:
            of_run[run.run["run_id"]] = cell
    tasks = {run.run["run_id"]: run.run["task"] for cell in cells.values() for run in cell.all_runs}
    for row in db.execute(
        "SELECT energy.run_id, layer, phase, joules FROM energy JOIN runs USING (run_id) "
        "WHERE sweep_id = ? AND energy.source = runs.energy_source AND component = 'total' AND phase != 'agent' "
        "AND joules IS NOT NULL",
        [sweep_id],
    ):
        run_id, layer, phase, joules = row
        if phase in PHASES and layer in LAYERS and run_id in of_run:
            of_run[run_id].phases.setdefault((layer, phase), {}).setdefault(tasks[run_id], []).append(joules)
    return [cells[key] for key in sorted(cells)]
