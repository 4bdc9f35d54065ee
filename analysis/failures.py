"""Why runs failed: one class for each, by one table, with the evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from harness.analysis.loops.digest import Digest

Seen = Digest
NO_LOOP = frozenset({None, "format_errors", "context_thrash"})
"""Nothing, and the kinds of loops that are the sign of another failure."""


@dataclass(frozen=True)
class Failure:
    """`name` of the class, with the kind of loop where it is one, and what it was told by."""

    name: str
    evidence: str


@dataclass(frozen=True)
class Rule:
    name: str
    when: str
    """For people."""
    holds: Callable[[Seen], bool]


def _loop(seen: Seen) -> str | None:
    """The kind of the loop that it never recovered from."""
    return seen.dead_end.kind if seen.dead_end else None


RULES: tuple[Rule, ...] = (
    Rule(
        "environment error",
        "the sandbox failed, the sweep was interrupted, or grading failed or was not possible",
        lambda seen: seen.run["ended_by"] in ("sandbox_error", "cancelled") or seen.run["outcome"] == "ungraded",
    ),
    Rule("model error", "the engine failed", lambda seen: seen.run["ended_by"] == "model_error"),
    Rule("resolved", "every test that decides passes", lambda seen: seen.run["outcome"] == "resolved"),
    Rule(
        "format failure",
        "the agent gave up on the form of the answers, or answers that it could not read were the loop from which the "
        "run never recovered",
        lambda seen: seen.run["ended_by"] == "format_failure" or _loop(seen) == "format_errors",
    ),
    Rule(
        "loop",
        "a guard stopped it, or it never recovered from a loop that was plain (with the loop's kind)",
        lambda seen: seen.run["ended_by"] == "stopped_by_guard" or _loop(seen) not in NO_LOOP,
    ),
    Rule(
        "context loss",
        "the conversation outgrew the window, or was cut down again and again to the end",
        lambda seen: seen.run["ended_by"] == "context_overflow" or _loop(seen) == "context_thrash",
    ),
    Rule(
        "timeout or budget",
        "a limit on time, calls, tokens, energy, memory or disk was met",
        lambda seen: (
            seen.run["ended_by"].startswith("budget_") or seen.run["ended_by"] in ("timeout", "oom", "disk_full")
        ),
    ),
    Rule(
        "invalid patch",
        "the patch does not apply to a fresh copy",
        lambda seen: seen.run["verdict"] == "patch_rejected",
    ),
    Rule(
        "false success",
        "the agent says that it is done, and a test that decides fails",
        lambda seen: seen.run["verdict"] == "unresolved" and seen.run["ended_by"] == "submitted",
    ),
    Rule(
        "premature end",
        "anything else: it gave up, crashed, or says that it is done and has changed nothing",
        lambda seen: True,
    ),
)
"""The first that holds is the class."""


def failure_of(seen: Seen) -> Failure:
    """The class of a run, and the evidence: its ending, verdict and claim, and the loop's calls."""
    rule = next(rule for rule in RULES if rule.holds(seen))
    run, loop = seen.run, seen.dead_end
    said = [f"ended by {run['ended_by']}" + (f" ({run['ended_detail']})" if run["ended_detail"] else "")]
    said.append(f"verdict {run['verdict']}" + (f" ({run['verdict_detail']})" if run["verdict_detail"] else ""))
    if run["claimed"]:
        said.append(f"claimed {run['claimed']}")
    if loop is not None:
        said.append(f"{loop.kind} from call {loop.onset} to {loop.end}, after which nothing got it any further")
    if seen.unanalysable:
        said.append(f"loops unknown: {seen.why}")
    name = rule.name
    if name == "loop" and loop is not None:
        name = f"loop: {loop.kind}"
    return Failure(name, "; ".join(said))


def by_cell(runs: Iterable[Seen]) -> dict[tuple[str, str], dict[str, int]]:
    """How many runs of each agent and model are of each class, loops by kind, in the order of the rules."""
    order = {rule.name: number for number, rule in enumerate(RULES)}
    found: dict[tuple[str, str], dict[str, int]] = {}
    for seen in runs:
        counts = found.setdefault((seen.run["agent"], seen.model), {})
        name = failure_of(seen).name
        counts[name] = counts.get(name, 0) + 1

    def place(item: tuple[str, int]) -> tuple[int, str]:
        return order[item[0].partition(":")[0]], item[0]

    return {cell: dict(sorted(counts.items(), key=place)) for cell, counts in found.items()}
