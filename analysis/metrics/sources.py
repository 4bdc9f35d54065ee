"""Sources of energy beside each other, as a cross-check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlite_utils import Database

from harness.analysis.figures import CONSTANT, NO_ENERGY, Figure, mean_of, unlike
from harness.analysis.metrics.runs import MeteredRun, metered_runs


@dataclass(frozen=True)
class Source:
    """One source beside the one that runs are told by. `ratio` is its joules for each joule of that one."""

    source: str
    is_headline: bool
    gross_j: Figure
    ratio: Figure
    headline_kind: str | None
    headline_coverage: str | None


def sources(db: Database, sweep_id: str) -> list[Source]:
    """The total of every source over the kept runs, and its ratio to the source that the runs are told by.

    A cross-check: a source of another coverage can't give the same joules, so its ratio is information, not an error.
    """
    kept = [run for run in metered_runs(db, sweep_id) if not run.left_out]
    headlines = {run.source for run in kept if run.kind != "unavailable"}
    names = sorted(
        {row["source"] for run in kept for row in run.energy.values() if _is_total(row) and row["source"] != "none"},
        key=lambda name: (name not in headlines, name),
    )
    found = []
    for name in names:
        pairs = [(run, row) for run in kept for row in run.energy.values() if _is_total(row) and row["source"] == name]
        gross_j = mean_of([run.sample_of(row, NO_ENERGY) for run, row in pairs], "J")
        told = mean_of(
            [run.sample(run.gross_j) for run, _ in pairs if run.source != name]
            or [run.sample(run.gross_j) for run, _ in pairs],
            "J",
        )
        found.append(Source(name, name in headlines, gross_j, _ratio(name, pairs, told), told.kind, told.coverage))
    return found


def _is_total(row: Mapping[str, Any]) -> bool:
    return (row["component"], row["layer"], row["phase"]) == ("total", "gross", "agent")


def _ratio(name: str, pairs: Sequence[tuple[MeteredRun, Mapping[str, Any]]], told: Figure) -> Figure:
    others = [(run, row) for run, row in pairs if run.source != name]
    if not others:
        return Figure(None, "1", why="the runs' energy is told by this source")
    both = [(run, row) for run, row in others if run.gross_j is not None and row["joules"] is not None]
    if not both:
        return Figure(None, "1", why="no run has a figure of both sources")
    theirs = [run.sample_of(row, NO_ENERGY) for run, row in both]
    if reason := unlike(theirs) or unlike([run.sample(run.gross_j) for run, _ in both]):
        return Figure(None, "1", n=len(both), why=reason)
    whole_j = sum(run.gross_j or 0.0 for run, _ in both)
    kind, coverage = theirs[0].kind, theirs[0].coverage
    figure = Figure(None, "1", kind, coverage, len(both), machine=both[0][0].machine)
    if whole_j <= 0:
        return replace(figure, why="no energy was spent")
    if coverage == told.coverage:
        said = f"both cover {coverage}"
    else:
        said = f"different coverage ({coverage} beside {told.coverage}): information, not an error"
    if CONSTANT in (kind, told.kind):
        said += "; one of the two is a clock, so its distance says nothing of accuracy"
    return replace(figure, value=sum(row["joules"] for _, row in both) / whole_j, why=said)
