"""The choice for a budget of one task, and the reason why each of the others was not chosen.

What is maximised is the rate under the budget: a run that would have been cut at it counts as not resolved. Of rates
that lie in each other's intervals the cheaper option is taken. That is a rule for a choice, and no test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, floor, log10

from harness.analysis.recommend.measured import Option, Unit, lacks, unrankable
from harness.analysis.statistics.estimates import Estimate, rate

NOTHING = "nothing resolved any task; the cheapest way to nothing is no agent"
INSTEAD = "ask for seconds with --max-time, or measure where counters or a meter (--meter) tell the energy"


@dataclass(frozen=True)
class Wanted:
    """What a choice has to keep to. `budget` is of one task, in `unit`; `min_rate` of tasks resolved within it."""

    budget: float
    unit: Unit = "J"
    min_rate: float | None = None
    memory_bytes: float | None = None


@dataclass(frozen=True)
class Judged:
    """An option under a budget. `within` is the share of its runs that stayed within it, `expected` the rate that is
    resolved within it, and `pareto` whether no other has at least that rate at no more than its cost and is better in
    one; what resolves nothing is in no such set. `may_exceed`: its mean is within the budget, and the upper end of the
    mean's interval is not. `why_not` are the reasons why it was not chosen; none for the one that was."""

    option: Option
    name: str
    """With its sweep, where there are several."""
    cost: Estimate
    within: Estimate
    expected: Estimate
    may_exceed: bool
    pareto: bool
    why_not: tuple[str, ...]


@dataclass(frozen=True)
class Recommendation:
    judged: list[Judged]
    chosen: Judged | None
    said: str
    """The recommendation, or that there is none and why, in a sentence."""
    notes: list[str]


def recommend(choice: Sequence[Option], wanted: Wanted) -> Recommendation:
    """The option with the highest rate under the budget, and the cheapest of those that can't be told from it."""
    why = unrankable(choice, wanted.unit)
    judged = [_judge(option, wanted, why) for option in choice]
    judged = [replace(one, name=_name(one.option, choice), pareto=_is_pareto(one, judged)) for one in judged]
    real = [one for one in judged if one.option.calls_model]
    notes = _notes(real)
    if not any(one.option.rate.runs for one in real):
        return Recommendation(judged, None, "no run of an agent with a model was graded yet", notes)
    if not any(one.option.rate.value for one in real):
        return Recommendation(judged, None, NOTHING, notes)
    if why:
        return Recommendation(judged, None, f"joules can't rank these: {why}; {INSTEAD}", notes)
    fitting = [one for one in judged if not one.why_not]
    if not fitting:
        return Recommendation(judged, None, _what_would_do(choice, wanted), notes)
    best = min(fitting, key=lambda one: (-_value(one.expected), _value(one.cost)))
    chosen = min((one for one in fitting if _alike(one, best)), key=lambda one: _value(one.cost))
    judged = [one if one is chosen or one.why_not else replace(one, why_not=(_why_not(one, best, chosen),))
              for one in judged]  # fmt: skip
    return Recommendation(judged, chosen, _sentence(chosen, best, wanted), notes)


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Of each (rate, cost), whether no other has at least its rate at no more than its cost and is better in one."""
    return [
        not any(rate >= own and cost <= price and (rate, cost) != (own, price) for rate, cost in points)
        for own, price in points
    ]


def quantity(value: float, unit: Unit) -> str:
    """For people."""
    if unit == "s":
        return f"{value:,.0f} s" if value >= 100 else f"{value:.3g} s"
    for least, name in ((1e6, "MJ"), (1e3, "kJ")):
        if value >= least:
            return f"{value / least:,.1f} {name}"
    return f"{value:.0f} J" if value >= 100 else f"{value:.3g} J"


def percent(estimate: Estimate) -> str:
    """A rate with its interval, for people."""
    if estimate.value is None:
        return "unknown"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.1%}"
    return f"{estimate.value:.1%} ({estimate.low:.1%} to {estimate.high:.1%})"


def _judge(option: Option, wanted: Wanted, refused: str | None) -> Judged:
    unit, cost = wanted.unit, option.cost(wanted.unit)
    if why := lacks(option, unit) or refused:
        unknown = Estimate(None, None, None, 0, 0, "mean over tasks", why)
        return Judged(option, option.name, cost, unknown, unknown, False, False, (why,))
    within: dict[str, list[bool]] = {}
    resolved: dict[str, list[bool]] = {}
    for run in option.tried:
        if (spent := run.cost(unit)) is not None:
            within.setdefault(run.task, []).append(spent <= wanted.budget)
            resolved.setdefault(run.task, []).append(run.resolved and spent <= wanted.budget)
    expected = rate(resolved)
    reasons = [_memory(option, wanted), _too_low(expected, wanted), _too_dear(cost, wanted)]
    may_exceed = _value(cost) <= wanted.budget < _upper(cost)
    return Judged(option, option.name, cost, rate(within), expected, may_exceed, False, tuple(filter(None, reasons)))


def _memory(option: Option, wanted: Wanted) -> str | None:
    if wanted.memory_bytes is None:
        return None
    if option.peak_memory_bytes is None:
        return "its memory is unknown: no run tells both the sandbox's and the engine's"
    if option.peak_memory_bytes > wanted.memory_bytes:
        return f"too much memory: {option.peak_memory_bytes / 1e9:.2f} GB"
    return None


def _too_low(expected: Estimate, wanted: Wanted) -> str | None:
    if not expected.value:
        return "it resolved nothing within the budget"
    if wanted.min_rate is not None and expected.value < wanted.min_rate:
        return f"under the rate that was asked for: {percent(expected)}"
    return None


def _too_dear(cost: Estimate, wanted: Wanted) -> str | None:
    if _value(cost) <= wanted.budget:
        return None
    return f"over the budget: {quantity(_value(cost), wanted.unit)} a task on average"


def _is_pareto(one: Judged, judged: Sequence[Judged]) -> bool:
    known = [each for each in judged if each.expected.value]  # no agent resolves nothing for nothing
    points = [(_value(each.expected), _value(each.cost)) for each in known]
    return any(each is one and is_in for each, is_in in zip(known, pareto(points), strict=True))


def _alike(one: Judged, other: Judged) -> bool:
    """Whether each one's rate lies in the other's interval."""
    return one is other or (_covers(one.expected, other.expected) and _covers(other.expected, one.expected))


def _covers(interval: Estimate, of: Estimate) -> bool:
    return interval.low is not None and interval.high is not None and interval.low <= _value(of) <= interval.high


def _why_not(one: Judged, best: Judged, chosen: Judged) -> str:
    rates = percent(one.expected)
    if one is best:
        return f"can't be told apart from {chosen.name}, which costs less: {rates}"
    if _alike(one, best):
        return f"can't be told apart from {best.name}, and costs more than {chosen.name}: {rates}"
    return f"a lower rate: {rates}"


def _sentence(chosen: Judged, best: Judged, wanted: Wanted) -> str:
    cost, expected, unit = chosen.cost, chosen.expected, wanted.unit
    budget = quantity(wanted.budget, unit)
    interval = f" ({quantity(cost.low, unit)} to {quantity(cost.high, unit)})" if cost.low and cost.high else ""
    said = (
        f"use {chosen.name}: it resolved {percent(expected)} of {expected.tasks} tasks within {budget} each "
        f"({expected.runs} runs), for {quantity(_value(cost), unit)}{interval} a task on average; "
        f"{_value(chosen.within):.1%} of its runs stayed within the budget"
    )
    if chosen.may_exceed:
        said += f"; it may exceed the budget: the interval of its mean ends above {budget}"
    if wanted.min_rate is not None and (expected.low or 0) < wanted.min_rate:
        said += f"; its rate may be under {wanted.min_rate:g}: the interval begins below it"
    if chosen is not best:
        return f"{said}; {best.name} can't be told apart by its rate, {percent(best.expected)}, and costs more"
    return f"{said}; no other that fits has a higher rate"


def _what_would_do(choice: Sequence[Option], wanted: Wanted) -> str:
    found = [(budget, option) for option in choice if (budget := _least_budget(option, wanted)) is not None]
    if not found:
        return "no agent fits, and no budget would change that"
    budget, option = min(found, key=lambda each: each[0])
    would = _judge(option, replace(wanted, budget=budget), None)
    return (
        f"no agent fits; the least budget that would do is {quantity(budget, wanted.unit)} a task, for "
        f"{_name(option, choice)}, which resolved {percent(would.expected)} within it"
    )


def _least_budget(option: Option, wanted: Wanted) -> float | None:
    """Within which the upper end of the mean lies and the rate is reached, rounded up as it is shown; or None."""
    if lacks(option, wanted.unit):
        return None
    upper = _upper(option.cost(wanted.unit))
    costs = [run.cost(wanted.unit) for run in option.tried if run.resolved]
    for budget in [upper, *sorted(cost for cost in costs if cost is not None and cost > upper)]:
        shown = _rounded_up(budget, wanted.unit)
        if not _judge(option, replace(wanted, budget=shown), None).why_not:
            return shown
    return None


def _rounded_up(value: float, unit: Unit) -> float:
    """To what `quantity` shows of it, so that what is told does suffice."""
    if value <= 0:
        return value
    step = (
        1e5 if unit == "J" and value >= 1e6
        else 100.0 if unit == "J" and value >= 1e3
        else 1.0 if value >= 100
        else 10.0 ** (floor(log10(value)) - 2)
    )  # fmt: skip
    return ceil(value / step) * step


def _notes(real: Sequence[Judged]) -> list[str]:
    notes = []
    if len({frozenset(run.task for run in one.option.tried) for one in real}) > 1:
        notes.append("not all were tried on the same tasks, so their rates may differ for that reason too")
    for one in real:
        energy_j = one.option.energy_j
        if energy_j.high is not None and energy_j.why:  # a mean all the same, and what it leaves out
            notes.append(f"energy of {one.name}: {energy_j.why}")
    return notes


def _name(option: Option, choice: Sequence[Option]) -> str:
    return f"{option.name} (sweep {option.sweep})" if len({one.sweep for one in choice}) > 1 else option.name


def _value(estimate: Estimate) -> float:
    assert estimate.value is not None
    return estimate.value


def _upper(cost: Estimate) -> float:
    """The upper end of a mean's interval. Tasks that all cost the same have none, and need none."""
    return _value(cost) if cost.high is None else cost.high
