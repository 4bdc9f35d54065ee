"""The choice for the next of many tasks, by the budget that is left. Nothing is imported or read when it is asked."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import inf, isnan

from harness.analysis.recommend.measured import NotComparable, Option, Unit, lacks, unrankable


class Chooser:
    """Prepared once out of options, then asked before each task.

    With a mean cost and a rate for each option, most tasks are resolved by a mix of two: on the upper hull of (cost,
    rate), which begins at "no attempt" (0, 0), the two neighbours between whose costs the budget of a task lies (what
    is left over the tasks that are left). That is the fractional knapsack. The dearer neighbour is taken as long as
    what would be left pays for the cheaper one on all other tasks; since what was really spent is in the next question,
    the mix mends itself. For the last task, and where not even one mean run is left, the option is taken of whose runs
    most were resolved within what is left.

    The budget is hard: run what is picked with what is left as its limit. Rates are taken for what they are in the
    measured runs, without their intervals; `recommend` tells those.
    """

    def __init__(self, options: Sequence[Option]) -> None:
        self._energy, self._time = (_prepare(options, unit) for unit in ("J", "s"))

    def pick(
        self,
        *,
        tasks_left: int,
        energy_left_j: float | None = None,
        seconds_left: float | None = None,
        memory_bytes: float | None = None,
    ) -> Option | None:
        """The option for the next task, or None where none is worth an attempt. One of the two budgets is given.

        With `memory_bytes`, only those that are known to need no more. Raises NotComparable where joules can't rank the
        options, and ValueError for a budget that is none.
        """
        if (energy_left_j is None) == (seconds_left is None):
            raise ValueError("give one budget: energy_left_j or seconds_left")
        left, menu = (energy_left_j, self._energy) if seconds_left is None else (seconds_left, self._time)
        assert left is not None
        if isnan(left) or tasks_left < 0:
            raise ValueError(f"expected what is left of a budget and of tasks, not {left} for {tasks_left} tasks")
        if isinstance(menu, str):
            raise NotComparable(f"joules can't rank these: {menu}; seconds_left is a budget that can")
        if not tasks_left or left <= 0:
            return None
        dish = menu.pick(left, tasks_left, memory_bytes)
        return dish.option if dish else None


@dataclass(frozen=True)
class _Dish:
    """An option with its mean cost, its rate, and the costs of its resolved runs in order, with the share of tasks that
    is resolved up to each."""

    option: Option
    cost: float
    rate: float
    costs: tuple[float, ...]
    shares: tuple[float, ...]

    @property
    def memory_bytes(self) -> float:
        known = self.option.peak_memory_bytes
        return inf if known is None else known

    def within(self, limit: float) -> float:
        return self.shares[bisect_right(self.costs, limit)]


class _Menu:
    def __init__(self, dishes: Sequence[_Dish]) -> None:
        self._dishes = sorted(dishes, key=lambda dish: (dish.memory_bytes, dish.cost))
        self._memory = [dish.memory_bytes for dish in self._dishes]
        self._hulls: dict[int, tuple[list[_Dish], list[float]]] = {}

    def pick(self, left: float, tasks: int, memory_bytes: float | None) -> _Dish | None:
        count = len(self._dishes) if memory_bytes is None else bisect_right(self._memory, min(memory_bytes, 1e300))
        if count not in self._hulls:
            found = _hull(self._dishes[:count])
            self._hulls[count] = found, [dish.cost for dish in found]
        hull, costs = self._hulls[count]
        if not hull:
            return None
        if tasks == 1 or left < costs[0]:
            share, _, place = max((dish.within(left), -dish.cost, -i) for i, dish in enumerate(self._dishes[:count]))
            return self._dishes[-place] if share > 0 else None
        dearer = bisect_right(costs, left / tasks)
        if dearer == len(hull):
            return hull[-1]
        cheaper_cost = costs[dearer - 1] if dearer else 0.0
        enough = left - costs[dearer] >= cheaper_cost * (tasks - 1)
        return hull[dearer] if enough else hull[dearer - 1]


def _prepare(options: Sequence[Option], unit: Unit) -> _Menu | str:
    return unrankable(options, unit) or _Menu([_dish(option, unit) for option in options if not lacks(option, unit)])


def _dish(option: Option, unit: Unit) -> _Dish:
    runs = [(run.task, cost, run.resolved) for run in option.tried if (cost := run.cost(unit)) is not None]
    runs_of: dict[str, int] = {}
    for task, _, _ in runs:
        runs_of[task] = runs_of.get(task, 0) + 1
    resolved = sorted((cost, 1 / (runs_of[task] * len(runs_of))) for task, cost, good in runs if good)
    shares = tuple(accumulate((share for _, share in resolved), initial=0.0))
    mean = option.cost(unit).value
    assert mean is not None
    return _Dish(option, mean, shares[-1], tuple(cost for cost, _ in resolved), shares)


def _hull(dishes: Sequence[_Dish]) -> list[_Dish]:
    """The dishes on the upper hull of (cost, rate) seen from (0, 0), by cost."""
    hull: list[_Dish] = []
    for dish in sorted(dishes, key=lambda dish: (dish.cost, -dish.rate)):
        if dish.rate <= (hull[-1].rate if hull else 0.0):
            continue
        while hull and not _bends_down(hull[-2] if len(hull) > 1 else None, hull[-1], dish):
            hull.pop()
        hull.append(dish)
    return hull


def _bends_down(one: _Dish | None, middle: _Dish, other: _Dish) -> bool:
    """Whether the middle one lies above the line between its neighbours; None is "no attempt"."""
    cost, rate = (one.cost, one.rate) if one else (0.0, 0.0)
    return (middle.rate - rate) * (other.cost - cost) > (other.rate - rate) * (middle.cost - cost)
