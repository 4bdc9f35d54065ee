"""What instruments are and what they said: the input of all accounting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Form = Literal["counter", "power", "model"]


@dataclass(frozen=True)
class Instrument:
    """One thing that tells joules or watts of one part of a machine."""

    source: str  # rapl, nvml, zeus, codecarbon or meter
    component: str  # cpu, dram, psys, gpu, wall, ...
    form: Form
    period_s: float
    """counter: the usual time between two of its updates. power, model: the time between two readings."""
    oldest_s: float = 0.0
    """counter: how old a reading can be at most, the time that reading takes included."""
    wraps_at_j: float | None = None
    """counter: where it begins again at 0."""
    most_w: float = 2000.0
    """More than this the part can't draw: a counter that says so was reset."""


@dataclass
class Readings:
    """Readings of one instrument: seconds of the monotonic clock, and joules (counter; running total of a model) or
    watts (power). None: it could not be read."""

    times_s: Sequence[float] = field(default_factory=list)
    values: Sequence[float | None] = field(default_factory=list)
