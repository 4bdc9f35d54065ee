"""What a guard that stops loops would have saved, and which resolved runs it would have cost, from recorded runs alone.

A guard lets a plain loop go on for so many steps (its patience) and then refuses the next call. That call and all
after it are saved; a run that was resolved counts as lost if it would have been stopped.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.analysis.intervals import wilson

PATIENCES = (2, 3, 5, 8, 12, 16, 20, 25, 30)
RESAMPLES = 1_000
INTERVAL = 0.95


@dataclass(frozen=True)
class Recorded:
    """A run: its task, its tokens, what a guard would have seen of it (call, steps of the longest loop when it came,
    tokens from that call on), whether it never recovered from a loop, and whether it was resolved (None: it was not
    graded)."""

    task: str
    tokens: int
    growth: Sequence[tuple[int, int, int]]
    stuck: bool
    resolved: bool | None

    def saved(self, patience: int) -> int | None:
        """Tokens that would not have been spent; None where it would not have been stopped."""
        return next((tokens for _, steps, tokens in self.growth if steps >= patience), None)


@dataclass(frozen=True)
class Point:
    """One patience. Shares are of the tokens of the runs that never recovered from a loop; `low` and `high` are the
    ends of an interval by resampling those runs' tasks. `lost_high` is the upper end of Wilson's interval, or 3/n where
    none was lost."""

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


@dataclass
class _OfTask:
    """The runs of a task that never recovered from a loop: their tokens, and those saved by each patience."""

    tokens: int
    saved: list[int]


def curve(runs: Iterable[Recorded], patiences: Sequence[int] = PATIENCES) -> list[Point]:
    """Savings against losses, one point for each patience, which rise."""
    looping: dict[str, _OfTask] = {}
    stopped, lost, resolved = [0] * len(patiences), [0] * len(patiences), 0
    for run in runs:
        resolved += bool(run.resolved)
        of_task = looping.setdefault(run.task, _OfTask(0, [0] * len(patiences))) if run.stuck else None
        if of_task:
            of_task.tokens += run.tokens
        for number, patience in enumerate(patiences):
            saved = run.saved(patience)
            if saved is None:
                break  # so does no longer patience stop it
            stopped[number] += 1
            lost[number] += bool(run.resolved)
            if of_task:
                of_task.saved[number] += saved
    tasks = list(looping.values())
    chance = random.Random(0)
    draws = [chance.choices(range(len(tasks)), k=len(tasks)) for _ in range(RESAMPLES)] if tasks else []
    whole = [task.tokens for task in tasks]
    wholes = [sum(whole[number] for number in draw) for draw in draws]
    points = []
    for number, patience in enumerate(patiences):
        saved_of = [task.saved[number] for task in tasks]
        shares = sorted(
            sum(saved_of[place] for place in draw) / of for draw, of in zip(draws, wholes, strict=True) if of
        )  # fmt: skip
        low, high = _middle(shares)
        interval = wilson(lost[number], resolved)
        points.append(
            Point(
                patience,
                sum(saved_of),
                sum(saved_of) / sum(whole) if sum(whole) else None,
                low,
                high,
                stopped[number],
                lost[number],
                resolved,
                lost[number] / resolved if resolved else None,
                interval[0] if interval else None,
                None if interval is None else interval[1] if lost[number] else min(1.0, 3 / resolved),
            )
        )
    return points


def _middle(ordered: Sequence[float]) -> tuple[float | None, float | None]:
    if not ordered:
        return None, None
    cut = (1 - INTERVAL) / 2
    return ordered[int(cut * len(ordered))], ordered[min(len(ordered) - 1, int((1 - cut) * len(ordered)))]
