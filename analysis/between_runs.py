"""What was measured between the runs of a sweep: the control job and idle power. Reads the store and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlite_utils import Database

from harness.analysis.figures import NO_ENERGY, Figure, Sample, mean_of, variation


@dataclass(frozen=True)
class Control:
    """One control job over a sweep. `seconds_cv`, `joules_cv`: standard deviation of the sample over its mean."""

    what: str
    n: int
    seconds: Figure
    seconds_cv: Figure
    joules: Figure
    joules_cv: Figure


@dataclass(frozen=True)
class IdlePower:
    """One source's total in one measurement of idle power."""

    number: int
    session: int
    before_position: int
    state: str
    model: str | None
    started_at: str
    duration_s: float
    busy_cores: float | None
    source: str
    watts: Figure


def controls(db: Database, sweep_id: str) -> list[Control]:
    """The control jobs: the same work each time, so that their spread is the machine's own."""
    machines = dict(
        db.execute("SELECT session, machine_id FROM runs WHERE sweep_id = ? GROUP BY session", [sweep_id]).fetchall()
    )
    jobs: dict[str, list[dict[str, Any]]] = {}
    for job in db.query("SELECT * FROM jobs WHERE sweep_id = ? AND job = 'control' ORDER BY number", [sweep_id]):
        jobs.setdefault(job["what"], []).append(job)
    found = []
    for what, group in jobs.items():
        seconds, joules = [], []
        for job in group:
            machine = machines.get(job["session"], "")
            seconds.append(Sample(job["duration_s"], None, None, machine))
            joules.append(Sample(job["joules"], job["kind"], job["coverage"], machine, job["detail"]))
        found.append(
            Control(
                what, len(group), mean_of(seconds, "s"), variation(seconds), mean_of(joules, "J"), variation(joules)
            )
        )
    return found


def idles(db: Database, sweep_id: str) -> list[IdlePower]:
    """Every measurement of idle power, by source."""
    rows = db.query("SELECT * FROM idle WHERE sweep_id = ? AND component = 'total' ORDER BY number, source", [sweep_id])
    return [
        IdlePower(
            row["number"], row["session"], row["before_position"], row["state"], row["model"], row["started_at"],
            row["duration_s"], row["busy_cores"], row["source"],
            Figure(row["watts"], "W", row["kind"], row["coverage"], int(row["watts"] is not None),
                   None if row["watts"] is not None else row["detail"] or NO_ENERGY),
        )
        for row in rows
    ]  # fmt: skip
