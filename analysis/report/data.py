"""What a report is made of: the sweeps' own records, and by sweep, agent and model the runs with their loops. Cells of
different sweeps stand beside each other and are never pooled. Reads the store and nothing else."""

from __future__ import annotations

import gc
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from harness.analysis.figures import CLOCK, CONSTANT, NO_ENERGY
from harness.analysis.loops.digest import Digest
from harness.analysis.loops.kept import digests
from harness.analysis.metrics.phases import PHASES
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
    had_phases: set[str] = field(default_factory=set)
    """Those that any of its runs had."""

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
        if len(told := self.energies) > 1:
            said = ", ".join(sorted(f"{kind} ({coverage})" for kind, coverage in told))
            return f"energies of different kind or coverage are never put together: {said}"
        return None

    @property
    def energies(self) -> set[tuple[str, str | None]]:
        """Kind and coverage of those that were told."""
        return {energy for energy in self.runs.energies if energy[0] != "unavailable"}


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
        found = {energy for cell in self.cells for energy in cell.energies}
        return ", ".join(sorted(f"{kind}, {coverage}" for kind, coverage in found)) or "unavailable"

    def no_energy(self, cells: Sequence[Cell]) -> str | None:
        """Why joules of these cells can't be shown beside each other, or None."""
        told = {energy for cell in cells for energy in cell.energies}
        if not any(cell.fit for cell in cells):
            return ALL_LEFT_OUT
        if not told:
            return NO_ENERGY
        if len(told) > 1:
            said = ", ".join(sorted(f"{kind} ({coverage})" for kind, coverage in told))
            return f"energies of different kind or coverage are not compared: {said}"
        return self.machines(cells)

    def no_comparison(self, cells: Sequence[Cell]) -> str | None:
        """Why their energies say nothing beyond their seconds, or can't be compared at all; or None."""
        if reason := self.no_energy(cells):
            return reason
        return CLOCK if any(kind == CONSTANT for cell in cells for kind, _ in cell.energies) else None

    def machines(self, cells: Sequence[Cell]) -> str | None:
        """Why nothing that depends on the machine can be compared, or None."""
        found = sorted({cell.machine_id for cell in cells})
        return f"runs of different machines are not compared: {', '.join(found)}" if len(found) > 1 else None


def read(db: Database, runs_dir: Path, sweeps: Sequence[str]) -> Data:
    """The named sweeps, in that order."""
    records, cells = [], []
    # What is read stays until the end, and of many runs the collector would look through it again and again.
    gc.disable()
    try:
        for sweep_id in sweeps:
            found = _cells(db, runs_dir, sweep_id, len(sweeps) > 1)
            cells += found
            records.append(_record(db, sweep_id, sum(len(cell.all_runs) for cell in found)))
    finally:
        gc.freeze()
        gc.enable()
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
    # In this order the rows of a run come together.
    rows = db.execute(
        "SELECT runs.run_id, runs.task, layer, phase, joules FROM runs CROSS JOIN energy "
        "ON energy.run_id = runs.run_id WHERE sweep_id = ? AND energy.source = runs.energy_source "
        "AND component = 'total' AND phase != 'agent' AND layer IN ('gross', 'net')",
        [sweep_id],
    )
    for (run_id, task), of_it in groupby(rows, key=itemgetter(0, 1)):
        if run_id in of_run:
            _add_phases(of_run[run_id], task, {(layer, phase): joules for _, _, layer, phase, joules in of_it})
    return [cells[key] for key in sorted(cells)]


def _add_phases(cell: Cell, task: str, joules: Mapping[tuple[str, str], float | None]) -> None:
    """A run is in a layer with all its phases or none, so that means add up; in a phase that it has not, no second of
    it was spent, and so no joule."""
    had = {phase for layer, phase in joules if layer == "gross" and phase in PHASES}
    for layer in ("gross", "net"):
        values = [joules.get((layer, phase)) for phase in had]
        if values and None not in values:
            for phase in PHASES:
                spent = joules.get((layer, phase)) or 0.0
                cell.phases.setdefault((layer, phase), {}).setdefault(task, []).append(spent)
            cell.had_phases |= had
