"""What loops cost a sweep: by agent and model, and by kind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import quantiles

from harness.analysis.figures import Figure, Sample, sum_of
from harness.analysis.loops.counterfactual import Recorded
from harness.analysis.loops.digest import Digest
from harness.analysis.loops.kinds import KINDS

NO_TOKENS = "the engine did not count the tokens of all calls"
NOTHING = "no run has calls that can be analysed"


@dataclass(frozen=True)
class Waste:
    """One agent with one model, over its valid runs whose calls could be analysed.

    Wasted is what was spent from the onset of the first loop from which a run never recovered; nothing in a run that
    has none. Seconds and joules leave out the runs that a flag leaves out of them.
    """

    agent: str
    model: str
    runs: int
    unanalysable: int
    looping: int
    """Runs with any loop."""
    stuck: int
    """Runs that never recovered from one."""
    calls: Figure
    tokens: Figure
    seconds: Figure
    joules: Figure
    calls_share: Figure
    tokens_share: Figure
    """Of all that these runs spent, wasted: 0 to 1."""
    quartiles: tuple[float, float, float, float, float] | None
    """Least, lower quartile, median, upper quartile and most of the runs' own shares of tokens."""


def wastes(runs: Sequence[Digest]) -> list[Waste]:
    """By agent and model, and of several the sum last."""
    groups: dict[tuple[str, str], list[Digest]] = {}
    for run in runs:
        if run.run["counts"] and (run.told or run.unanalysable):
            groups.setdefault((run.run["agent"], run.model), []).append(run)
    cells = [_waste(agent, model, group) for (agent, model), group in groups.items()]
    if len(cells) > 1:
        cells.append(_waste("all", "all", [run for group in groups.values() for run in group]))
    return cells


def _waste(agent: str, model: str, group: Sequence[Digest]) -> Waste:
    told = [run for run in group if run.told]
    pairs = [(run, run.wasted, run.whole) for run in told]
    fit = [pair for pair in pairs if not pair[0].run["left_out"]]
    calls = _sum([(run, spent.calls) for run, spent, _ in pairs], "calls")
    tokens = _sum([(run, spent.tokens) for run, spent, _ in pairs], "tokens")
    all_calls = _sum([(run, whole.calls) for run, _, whole in pairs], "calls")
    all_tokens = _sum([(run, whole.tokens) for run, _, whole in pairs], "tokens")
    joules = [
        Sample(spent.joules, spent.kind, spent.coverage, run.run["machine_id"], spent.why) for run, spent, _ in fit
    ]  # fmt: skip
    shares = [
        spent.tokens / whole.tokens for _, spent, whole in pairs if spent.tokens is not None and whole.tokens
    ]  # fmt: skip
    return Waste(
        agent=agent,
        model=model,
        runs=len(group),
        unanalysable=len(group) - len(told),
        looping=sum(bool(run.loops) for run in told),
        stuck=sum(run.dead_end is not None for run in told),
        calls=calls,
        tokens=tokens,
        seconds=_sum([(run, spent.seconds) for run, spent, _ in fit], "s"),
        joules=sum_of(joules, "J", beyond_seconds=True) if joules else Figure(None, "J", why=NOTHING),
        calls_share=_share(calls, all_calls),
        tokens_share=_share(tokens, all_tokens),
        quartiles=_quartiles(shares),
    )


def _sum(samples: Sequence[tuple[Digest, float | None]], unit: str) -> Figure:
    if not samples:
        return Figure(None, unit, why=NOTHING)
    made = [Sample(value, None, None, run.run["machine_id"], NO_TOKENS) for run, value in samples]
    return sum_of(made, unit)


def _share(part: Figure, whole: Figure) -> Figure:
    figure = replace(part, unit="1")
    if part.value is None or whole.value is None:
        return replace(figure, value=None, why=part.why or whole.why)
    if not whole.value:
        return replace(figure, value=None, why="undefined: nothing was spent")
    return replace(figure, value=part.value / whole.value)


def _quartiles(shares: Sequence[float]) -> tuple[float, float, float, float, float] | None:
    if not shares:
        return None
    if len(shares) == 1:
        return (shares[0],) * 5
    lower, middle, upper = quantiles(shares, n=4, method="inclusive")
    return min(shares), lower, middle, upper, max(shares)


@dataclass(frozen=True)
class OfAKind:
    """Loops of a kind: how many, in how many runs, and for how many runs the first that they never recovered from."""

    kind: str
    loops: int
    runs: int
    dead_ends: int
    wasted_tokens: int | None
    """Of those runs; None where the tokens of one are unknown."""


def kinds(runs: Sequence[Digest]) -> list[OfAKind]:
    found = []
    told = [run for run in runs if run.run["counts"] and run.told]
    of_kind: dict[str, list[Digest]] = {}
    for run in told:
        for loop in run.loops:
            of_kind.setdefault(loop.kind, []).append(run)
    for kind in KINDS:
        loops = of_kind.get(kind, [])
        ends = [run for run in told if run.dead_end is not None and run.dead_end.kind == kind]
        if loops:
            found.append(
                OfAKind(
                    kind, len(loops), len({run.run["run_id"] for run in loops}), len(ends),
                    _known(run.wasted.tokens for run in ends),
                )
            )  # fmt: skip
    return found


def _known(values: Iterable[int | None]) -> int | None:
    found = list(values)
    return None if None in found else sum(value for value in found if value is not None)


def recorded(runs: Iterable[Digest]) -> Iterator[Recorded]:
    """The valid runs as the counterfactual takes them; calls of unknown tokens count as none saved. Runs that a guard
    had a hand in are left out: what they would have done without it is not on record."""
    for run in runs:
        if run.run["counts"] and run.told and run.run["guard"] in ("off", "observe"):
            outcome = run.run["outcome"]
            yield Recorded(
                run.run["task"],
                run.counted_tokens,
                run.growth,
                run.dead_end is not None,
                None if outcome == "ungraded" else outcome == "resolved",
            )
