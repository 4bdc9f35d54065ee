"""A sweep's runs with their energy and their calls, as all metrics read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlite_utils import Database

from harness.analysis.figures import CONSTANT, Sample
from harness.analysis.names import label

CPU_SOURCES = ("rapl", "codecarbon")


@dataclass(frozen=True)
class MeteredRun:
    run_id: str
    agent: str
    model: str
    outcome: str
    left_out: tuple[str, ...]
    agent_s: float
    machine: str
    source: str | None
    kind: str
    coverage: str | None
    gross_j: float | None
    peak_w: float | None
    session: int | None
    energy: Mapping[tuple[str, str, str, str], Mapping[str, Any]]
    """By source, component, layer and phase."""
    calls: Sequence[Mapping[str, Any]]

    @property
    def graded(self) -> bool:
        return self.outcome not in ("ungraded", "invalid")

    @property
    def resolved(self) -> bool:
        return self.outcome == "resolved"

    def row(self, component: str, layer: str, phase: str = "agent") -> Mapping[str, Any]:
        """A figure of the source that the run is told by; an empty one when there is none."""
        key = (component, layer, phase)
        return self.energy.get((self.source or "none", *key)) or self.energy.get(("none", *key)) or {}

    def cpu_user(self, who: str) -> Mapping[str, Any]:
        """Who used the processor is told by the processor's own source, whatever tells the run."""
        rows = (self.energy.get((source, who, "net", "agent")) for source in CPU_SOURCES)
        return next((row for row in rows if row), {})

    def sample(self, value: float | None, missing: str | None = None) -> Sample:
        """Something that is made of the run's total."""
        return Sample(
            value, self.kind, self.coverage, self.machine, missing or self.row("total", "gross").get("detail")
        )

    def sample_of(self, row: Mapping[str, Any], missing: str) -> Sample:
        """What a row tells. Where there is none, the run's kind still matters when it is a clock."""
        if not row:
            kind = self.kind if self.kind == CONSTANT else "unavailable"
            return Sample(None, kind, self.coverage, self.machine, missing)
        return Sample(row["joules"], row["kind"], row["coverage"], self.machine, row["detail"] or missing)

    def without_energy(self, value: float | None) -> Sample:
        return Sample(value, None, None, self.machine)


def metered_runs(db: Database, sweep_id: str) -> list[MeteredRun]:
    energy: dict[str, dict[tuple[str, str, str, str], dict[str, Any]]] = {}
    for row in db.query("SELECT energy.* FROM energy JOIN runs USING (run_id) WHERE sweep_id = ?", [sweep_id]):
        key = (row["source"], row["component"], row["layer"], row["phase"])
        energy.setdefault(row["run_id"], {})[key] = row
    calls: dict[str, list[dict[str, Any]]] = {}
    for row in db.query(
        "SELECT calls.run_id, calls.prefill_s, calls.decode_s, calls.input_tokens, calls.cached_tokens, "
        "calls.output_tokens FROM calls JOIN runs USING (run_id) WHERE sweep_id = ? AND sent",
        [sweep_id],
    ):
        calls.setdefault(row["run_id"], []).append(row)
    return [
        MeteredRun(
            row["run_id"], row["agent"], label(row["engine"], row["model"]), row["outcome"],
            # A flag may stand there twice, with two reasons.
            tuple(dict.fromkeys(row["left_out"].split(", "))) if row["counts"] and row["left_out"]
            else () if row["counts"] else ("invalid",),
            row["agent_s"], row["machine_id"], row["energy_source"], row["energy_kind"], row["energy_coverage"],
            row["energy_j"], row["peak_w"], row["session"], energy.get(row["run_id"], {}), calls.get(row["run_id"], []),
        )
        for row in db.query(
            "SELECT runs_summary.*, runs.session FROM runs_summary JOIN runs USING (run_id) "
            "WHERE runs.sweep_id = ? ORDER BY runs.agent, runs.engine, runs.model, runs.position",
            [sweep_id],
        )
    ]  # fmt: skip
