"""What stands in a report, from top to bottom."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sqlite_utils import Database

from harness.analysis.report import comparisons, course, energy, loops, methods, overview, published, rates
from harness.analysis.report.course import PowerOf
from harness.analysis.report.data import read
from harness.analysis.report.document import Document
from harness.analysis.statistics.comparisons import Design


def report(
    db: Database, runs_dir: Path, sweeps: Sequence[str], power_of: PowerOf, design: Design = "blocked"
) -> Document:
    """The report of the named sweeps, which must be in the store. Each cell stays of its own sweep."""
    data = read(db, runs_dir, sweeps)
    sections = [
        overview.overview(data),
        energy.section(data),
        rates.section(data),
        loops.section(data),
        loops.endings(data),
        comparisons.section(data, design),
        published.section(data),
        overview.descriptions(data),
        course.section(db, data, power_of),
        methods.section(db, data),
        methods.limits(data),
    ]
    names = ", ".join(sweeps)
    agents = sorted({cell.agent for cell in data.with_models})
    return Document(
        f"Sweep{'s' if len(sweeps) > 1 else ''} {names}",
        f"Energy, tokens, time, memory and resolved tasks of {', '.join(agents) or 'no agent'}",
        sweeps,
        [section for section in sections if section is not None],
    )
