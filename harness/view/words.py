"""How outcomes, times and sizes are shown to people."""

from __future__ import annotations

OUTCOMES: dict[str, tuple[str, str]] = {
    "resolved": ("✓", "every test that decides passes"),
    "unresolved": ("✗", "a test that decides fails, or the patch does not apply"),
    "no_patch": ("∅", "the work directory was left as it was"),
    "ungraded": ("?", "grading failed or was not possible"),
    "invalid": ("!", "the machine or the user ended it: it counts for nothing"),
}
"""A sign for each outcome, so that none is told by its colour alone, and what it means."""


def moment(text: str | None) -> str | None:
    """A time of the store (ISO 8601, UTC), to the minute."""
    return None if text is None else text[:16].replace("T", " ")


def duration(seconds: float | None) -> str:
    """Seconds for people: 0.42 s, 12.3 s, 4:05 min, 1:02:03 h."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d} h"


def size(count: int | None) -> str:
    """Bytes for people, in powers of ten."""
    if count is None:
        return "–"
    if count < 1000:
        return f"{count} B"
    for unit, factor in (("kB", 1e3), ("MB", 1e6), ("GB", 1e9)):
        if count < factor * 1000 or unit == "GB":
            break
    return f"{count / factor:,.1f} {unit}"
