"""Figures that never go without what they are, and the rule for what may be put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any, NamedTuple

CONSTANT = "estimated_constant"
CLOCK = "the energy is a clock: over half of the power is a constant"
NO_RUN = "no run is left to make it of"
NO_ENERGY = "no source told the energy"


MARKS = {"measured": "", "estimated": " ~", "estimated_constant": " ~~", "unavailable": ""}

NOTES = {
    "estimated": "~ estimated: the power of a part is calculated from its load, not measured.",
    "estimated_constant": "~~ estimated_constant: over half of the power is a constant, so this energy is a clock "
    "and says nothing that the seconds do not.",
}


@dataclass(frozen=True)
class Figure:
    """A number that never goes without what it is. `value` is None where it can't or must not be told.

    `kind` and `coverage` are those of the energy in it (None: there is none in it). `n` is the number of runs that it
    is made of; for tokens a second, of calls. `why` says why there is no value, or what a value leaves out.
    """

    value: float | None
    unit: str
    kind: str | None = None
    coverage: str | None = None
    n: int = 0
    why: str | None = None
    machine: str | None = None


class Sample(NamedTuple):
    """A run's contribution. `kind` None: no energy in it."""

    value: float | None
    kind: str | None
    coverage: str | None
    machine: str
    missing: str | None = None  # why the value is None


def not_comparable(figures: Sequence[Figure]) -> str | None:
    """Why these figures must not be set against each other, or None. Those without a value don't count."""
    known = [figure for figure in figures if figure.value is not None]
    if len({figure.unit for figure in known}) > 1:
        return "they are not of one unit"
    samples = [Sample(figure.value, figure.kind, figure.coverage, figure.machine or "") for figure in known]
    if reason := unlike(samples):
        return reason
    return CLOCK if any(figure.kind == CONSTANT for figure in known) else None


def unlike(samples: Sequence[Sample]) -> str | None:
    """Why these must not be put together, or None. Samples without energy in them differ by machine only."""
    told = [sample for sample in samples if sample.kind not in (None, "unavailable")]
    for what, found in (
        ("kinds", {sample.kind for sample in told}),
        ("coverage", {sample.coverage for sample in told}),
        ("machines", {sample.machine for sample in samples if sample.value is not None}),
    ):
        if len(found) > 1:
            names = ", ".join(sorted(str(name) for name in found))
            return f"figures of different {what} are never put together: {names}"
    return None


def pool(
    samples: Sequence[Sample],
    unit: str,
    *,
    beyond_seconds: bool = False,
    all_known: bool = False,
    unknown: str = NO_ENERGY,
    nobody: str = NO_RUN,
) -> tuple[list[float], Figure]:
    """The known values, and a figure that is ready but for its own; no values where there is to be no figure.

    `beyond_seconds`: the figure says more than seconds times a constant, so a clock has none. `all_known`: it is a sum,
    which is unknown as soon as one of its parts is.
    """
    if not samples:
        return [], Figure(None, unit, why=nobody)
    known = [sample for sample in samples if sample.value is not None]
    empty = [sample for sample in samples if sample.value is None]
    blank = Figure(None, unit, n=len(known))
    if reason := unlike(samples):
        return [], replace(blank, why=reason)
    told = [sample for sample in samples if sample.kind not in (None, "unavailable")]
    blank = replace(
        blank,
        kind=told[0].kind if told else "unavailable" if samples[0].kind else None,
        coverage=told[0].coverage if told else None,
        machine=samples[0].machine or None,
    )
    if beyond_seconds and any(sample.kind == CONSTANT for sample in samples):
        return [], replace(blank, why=CLOCK)
    reasons = "; ".join(dict.fromkeys(sample.missing or unknown for sample in empty))
    if not known:
        return [], replace(blank, why=reasons)
    if all_known and empty:
        why = f"{len(empty)} of {len(samples)} runs have no figure, so there is no sum: {reasons}"
        return [], replace(blank, why=why)
    if empty:
        blank = replace(blank, why=f"{len(empty)} of {len(samples)} are not in it: {reasons}")
    return [sample.value for sample in known if sample.value is not None], blank


def mean_of(
    samples: Sequence[Sample], unit: str, *, beyond_seconds: bool = False, unknown: str = NO_ENERGY
) -> Figure:  # fmt: skip
    values, figure = pool(samples, unit, beyond_seconds=beyond_seconds, unknown=unknown)
    return replace(figure, value=fmean(values)) if values else figure


def sum_of(samples: Sequence[Sample], unit: str, *, beyond_seconds: bool = False, unknown: str = NO_ENERGY) -> Figure:
    """Unknown as soon as one of its parts is."""
    values, figure = pool(samples, unit, beyond_seconds=beyond_seconds, all_known=True, unknown=unknown)
    return replace(figure, value=sum(values)) if values else figure


def variation(samples: Sequence[Sample]) -> Figure:
    values, figure = pool(samples, "1", beyond_seconds=True)
    if not values:
        return figure
    if len(values) < 2:
        return replace(figure, why="one value has no spread")
    mean = fmean(values)
    return replace(figure, value=stdev(values) / mean) if mean > 0 else replace(figure, why="the mean is zero")


def scaled(figure: Figure, factor: float, unit: str) -> Figure:
    return replace(figure, unit=unit, value=None if figure.value is None else figure.value * factor)


def inverse(figure: Figure) -> Figure:
    unit = "tokens/J"
    if figure.value is None:
        return replace(figure, unit=unit)
    return replace(figure, unit=unit, value=1 / figure.value) if figure.value else replace(
        figure, unit=unit, value=None, why="no energy was told for these tokens"
    )  # fmt: skip


def marked(joules: float | None, kind: str) -> str | None:
    """An energy with the mark of its kind; None when it is unknown."""
    return None if joules is None else f"{joules:,.0f}{MARKS[kind]}"


def energy_note(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """What a reader of the energy column has to be told, or None."""
    kinds = {row["energy_kind"] for row in rows if row["energy_j"] is not None}
    notes = [note for kind, note in NOTES.items() if kind in kinds]
    return " ".join(notes) or None
