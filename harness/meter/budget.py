"""A run's budget of energy, watched while it goes on."""

from __future__ import annotations

import time

from harness.amounts import JOULES, amount
from harness.errors import UserError
from harness.meter.figures import headline, totals
from harness.meter.meter import Key, Meter

INTERVAL_S = 1.0  # between two looks: a run may use so much longer what the machine takes


def joules_of(text: str) -> float:
    """An energy as people write it, as 50kJ. Raises UserError."""
    return amount(text, "--max-energy", JOULES, "50kJ")


def check_budget(meter: Meter, slots: int) -> None:
    """Raises UserError where a run's energy can't be told, or is seconds in disguise."""
    if slots > 1:
        raise UserError("--max-energy: with --slots above 1 no run has an energy of its own; leave one of them out")
    parts = meter.by_key
    made = totals(parts)
    source = headline(parts, made)
    if source is None:
        raise UserError("--max-energy: nothing here tells energy; use --time-limit, or attach a meter with --meter")
    constant = [key[1] for key in made[source].keys if parts[key].kind == "estimated_constant"]
    if constant:
        raise UserError(
            f"--max-energy: energy here is estimated ({source}), and its part {', '.join(constant)} is a constant "
            "power times seconds: such a budget would be a time limit; use --time-limit, or attach a meter with --meter"
        )


class EnergyBudget:
    """Of one run, from the moment it is made: gross joules of the source that the run is told by."""

    def __init__(self, meter: Meter, limit_j: float) -> None:
        parts = meter.by_key
        made = totals(parts)
        source = headline(parts, made)
        assert source is not None
        self.limit_j = limit_j
        self.source = source
        self.estimated = any(parts[key].kind != "measured" for key in made[source].keys)
        self._meter = meter
        self._keys: tuple[Key, ...] = made[source].keys
        self._at_start = self._so_far()
        self._next_s = time.monotonic() + INTERVAL_S

    def exceeded(self) -> str | None:
        """What to say when it is used up. Looks once a second, however often it is asked; a source that fell silent
        ends no run."""
        if time.monotonic() < self._next_s:
            return None
        self._next_s = time.monotonic() + INTERVAL_S
        now = self._so_far()
        if now is None or self._at_start is None or now - self._at_start < self.limit_j:
            return None
        how = "an estimate of " if self.estimated else ""
        used_j = now - self._at_start
        return f"the limit of {self.limit_j:g} J was reached: {how}{used_j:.0f} J were used ({self.source})"

    def _so_far(self) -> float | None:
        whole = self._meter.look()
        known = [whole[key].joules if key in whole else 0.0 for key in self._keys]
        return None if None in known else sum(joules for joules in known if joules is not None)
