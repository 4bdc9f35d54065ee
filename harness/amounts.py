"""Amounts as people write them: a number with its unit."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from harness.errors import UserError

JOULES = {"J": 1.0, "kJ": 1e3, "MJ": 1e6, "Wh": 3.6e3, "kWh": 3.6e6}
SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}
BYTES = {"MB": 1e6, "GB": 1e9, "MiB": 2.0**20, "GiB": 2.0**30}
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)")


def amount(text: str, flag: str, units: Mapping[str, float], example: str) -> float:
    """What a flag was given, in the unit that counts 1. Raises UserError."""
    match = _AMOUNT.fullmatch(text.strip())
    value = float(match[1]) * units.get(match[2], 0.0) if match else 0.0
    if value <= 0 or not math.isfinite(value):
        raise UserError(f"{flag} {text}: expected a number with one of the units {', '.join(units)}, as {example}")
    return value
