"""What differs between two sweeps' records."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Each dotted key under which the two hold different values, with both as JSON; `nothing` where one lacks it."""
    before, after = _flat(one), _flat(other)
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            yield key, before.get(key, "nothing"), after.get(key, "nothing")


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested keys as dotted ones, values as JSON."""
    if not isinstance(value, Mapping):
        return {prefix: json.dumps(value)}
    flat: dict[str, str] = {}
    for name, inner in value.items():
        flat |= _flat(inner, f"{prefix}.{name}" if prefix else str(name))
    return flat
