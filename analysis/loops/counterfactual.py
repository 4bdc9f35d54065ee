"""What a guard that stops loops would have saved, and which resolved runs it would have cost, from recorded runs alone.

A guard lets a plain loop go on for so many steps (its patience) and then refuses the next call. That call and all
after it are saved; a run that was resolved counts as lost if it would have been stopped.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis.intervals import wilson
from harness.analysis.loops.watch import History

PATIENCES = (2, 3, 5, 8, 12, 16, 20, 25, 30)
RESAMPLES = 1_000
INTERVAL = 0.95


@dataclass(frozen=True)
class Recorded:
    """A run: the tokens of each call that the engine was asked for, what it did, and whether it was resolved (None: it
    was not graded)."""

    tokens: dict[int, int]
    history: History
    resolved: bool | None

    @property
    def all_tokens(self) -> int:
        return sum(self.tokens.values())

    def saved(self, patience: int) -> int:
        """Tokens that would not have been spent."""
        stop = self.history.stopped_at(patience)
        return 0 if stop is None else sum(tokens for call, tokens in self.tokens.items() if call >= stop)


@dataclass(frozen=True)
class Point:
    """One patience. Shares are of the tokens of the runs that never recovered from a loop; `low` and `high` are the
    ends of an interval by resampling those runs. `lost_high` is the upper end of Wilson's interval, or 3/n where none
    was lost."""

    patience: int
    saved_tokens: int
    share: float | None
    low: float | None
    high: float | None
    stopped: int
    lost: int
    resolved: int
    lost_share: float | None
    lost_low: float | None
    lost_high: float | None


def curve(runs: Sequence[Recorded], patiences: Sequence[int] = PATIENCES) -> list[Point]:
    """Savings against losses, one point for each patience."""
    looping = [run for run in runs if run.history.dead_end is not None]
    resolved = [run for run in runs if run.resolved]
    chance = random.Random(0)
    draws = [chance.choices(range(len(looping)), k=len(looping)) for _ in range(RESAMPLES)] if looping else []
    whole = [run.all_tokens for run in looping]
    wholes = [sum(whole[number] for number in draw) for draw in draws]
    points = []
    for patience in patiences:
        saved = [run.saved(patience) for run in looping]
        shares = sorted(
            sum(saved[number] for number in draw) / of for draw, of in zip(draws, wholes, strict=True) if of
        )  # fmt: skip
        low, high = _middle(shares)
        lost = sum(run.history.stopped_at(patience) is not None for run in resolved)
        interval = wilson(lost, len(resolved))
        points.append(
            Point(
                patience,
                sum(saved),
                sum(saved) / sum(whole) if sum(whole) else None,
                low,
                high,
                sum(run.history.stopped_at(patience) is not None for run in runs),
                lost,
                len(resolved),
                lost / len(resolved) if resolved else None,
                interval[0] if interval else None,
                None if interval is None else interval[1] if lost else min(1.0, 3 / len(resolved)),
            )
        )
    return points


def _middle(ordered: Sequence[float]) -> tuple[float | None, float | None]:
    if not ordered:
        return None, None
    cut = (1 - INTERVAL) / 2
    return ordered[int(cut * len(ordered))], ordered[min(len(ordered) - 1, int((1 - cut) * len(ordered)))]
