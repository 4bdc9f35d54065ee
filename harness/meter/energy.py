"""A figure of energy: joules that never go without their kind and what they cover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.meter.accounting import Amount

Kind = Literal["measured", "estimated", "estimated_constant", "unavailable"]
Layer = Literal["gross", "idle", "net"]

JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True)
class Energy:
    """One figure. `joules` is None where it can't be told: `detail` says why, and the bounds may still be known."""

    source: str  # rapl, nvml, zeus, codecarbon, meter; counters and wall_factor are made of others
    component: str
    joules: float | None
    kind: Kind
    coverage: str
    layer: Layer = "gross"
    phase: str = "agent"
    low_j: float | None = None
    high_j: float | None = None
    detail: str | None = None


def unavailable(reason: str) -> list[Energy]:
    """What is stored where nothing can tell: that it is unknown."""
    return [Energy("none", "total", None, "unavailable", "none", detail=reason)]


def figure(
    source: str, component: str, amount: Amount, kind: Kind, coverage: str, *, layer: Layer = "gross", phase: str
) -> Energy:
    """An amount as a figure: one with a gap is unavailable, one too short for a figure keeps its kind and bounds."""
    detail = amount.gap
    if amount.short:
        detail = "the window is shorter than 20 readings of the source: bounds only"
    return Energy(
        source,
        component,
        amount.joules,
        "unavailable" if amount.gap is not None else kind,
        coverage,
        layer,
        phase,
        amount.low,
        amount.high,
        detail,
    )


def added(amounts: Sequence[Amount]) -> Amount:
    """Amounts of different parts of one machine over one window, together. Unknown as soon as one is."""
    gap = next((amount.gap for amount in amounts if amount.gap is not None), None)
    if gap is None and any(amount.joules is None for amount in amounts):
        joules = None
    else:
        joules = None if gap is not None else sum(amount.joules or 0.0 for amount in amounts)
    lows = [amount.low for amount in amounts]
    highs = [amount.high for amount in amounts]
    return Amount(
        joules,
        None if None in lows else sum(low or 0.0 for low in lows),
        None if None in highs else sum(high or 0.0 for high in highs),
        gap,
    )


def kind_of_sum(parts: Sequence[tuple[Amount, Kind]]) -> Kind:
    """The kind of a total. Where constants supply over half of it, it is a clock and says so."""
    kinds = {kind for _, kind in parts}
    known = [(amount.joules, kind) for amount, kind in parts if amount.joules is not None]
    constant = sum(joules for joules, kind in known if kind == "estimated_constant")
    if "unavailable" in kinds or not parts:
        return "unavailable"
    if kinds == {"estimated_constant"} or constant > sum(joules for joules, _ in known) / 2:
        return "estimated_constant"
    return "measured" if kinds == {"measured"} else "estimated"
