"""What the sections share: estimates as cells of a table, and the words of captions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.analysis.report.document import Number
from harness.analysis.statistics.estimates import Estimate

RUNS = "SELECT * FROM runs_summary WHERE sweep_id = ? ORDER BY agent, model, task, repetition"
"""The query behind whatever is made of whole runs."""

NAMES = {
    "energy_j": ("energy, gross", "J"),
    "net_energy_j": ("energy, net of idle", "J"),
    "agent_s": ("duration of the agent stage", "s"),
    "duration_s": ("duration with setup and grading", "s"),
    "tokens": ("tokens", "tokens"),
    "input_tokens": ("tokens in", "tokens"),
    "output_tokens": ("tokens out", "tokens"),
    "calls": ("calls", "calls"),
    "sandbox_peak_anon_bytes": ("peak memory of the sandbox", "MB"),
    "engine_peak_bytes": ("peak memory of the engine", "MB"),
}
"""By metric: what it is called, and the unit in which it is shown."""


def scale(metric: str) -> float:
    """By what a stored value is multiplied to be shown in that unit."""
    return 1e-6 if metric.endswith("_bytes") else 1.0


def number(estimate: Estimate | None, factor: float = 1.0, percent: bool = False) -> Number:
    if estimate is None or estimate.value is None:
        return Number(None, percent=percent)
    ends = [None if end is None else end * factor for end in (estimate.low, estimate.high)]
    return Number(estimate.value * factor, ends[0], ends[1], percent)


def said(p: float | None) -> str | None:
    return None if p is None else "< 0.0001" if p < 1e-4 else f"{p:.4f}"


def reasons(found: Iterable[tuple[str, str | None]]) -> list[str]:
    """`who: why` once for each reason, those that share one together."""
    by_reason: dict[str, list[str]] = {}
    for who, why in found:
        if why:
            by_reason.setdefault(why, []).append(who)
    return [f"{', '.join(dict.fromkeys(who))}: {why}" for why, who in by_reason.items()]


def counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def listed(names: Sequence[str], most: int = 8) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
