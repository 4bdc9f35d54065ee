"""Intervals for shares."""

from __future__ import annotations

from math import sqrt

Z_95 = 1.959963984540054


def wilson(hits: float, of: float, z: float = Z_95) -> tuple[float, float] | None:
    """Wilson's score interval of a share, 95 % by default; None where there is nothing to have a share of.

    `of` need not be whole: runs that are not independent tell as much as some smaller number of them.
    """
    if of == 0:
        return None
    share = hits / of
    middle = share + z * z / (2 * of)
    reach = z * sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    scale = 1 + z * z / of
    # Of none and of all one end is exact, which the roots of floats are not.
    low = 0.0 if hits == 0 else max(0.0, (middle - reach) / scale)
    high = 1.0 if hits == of else min(1.0, (middle + reach) / scale)
    return low, high
