"""How good the detector is on the labelled set: tables for docs/loops.md, and figures for the tests.

    python tests/loops/quality.py [--development]

Half of the set, by the hash of a trace's name, is held out: rules and settings were made on the other half, and what is
told of the detector is told of both apart.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import openhands_rules
from traces import Trace, read

from harness.analysis.intervals import wilson
from harness.analysis.loops.counterfactual import Recorded, curve
from harness.analysis.loops.detector import Loop
from harness.analysis.loops.kinds import KINDS
from harness.analysis.loops.watch import History, history_of

FOLDER = Path(__file__).parent
PATIENCES = (2, 3, 5, 8, 12, 16, 18, 20, 22, 25, 30)
GROUPS = ("real", "hard_negative", "composed")
Label = Mapping[str, Any]
Finder = Callable[[Trace], Sequence[Loop]]


@cache
def traces() -> tuple[Trace, ...]:
    return tuple(trace for group in GROUPS for trace in read(FOLDER / "traces" / f"{group}.json.xz"))


def labels(who: str = "agreed") -> dict[str, list[Label]]:
    content: dict[str, list[Label]] = json.loads((FOLDER / "labels" / f"{who}.json").read_text(encoding="utf-8"))
    return content


def held_out(name: str) -> bool:
    return hashlib.sha256(name.encode()).digest()[0] % 2 == 1


@cache
def history(trace: Trace) -> History:
    return history_of(trace.calls)


def found_by_us(trace: Trace) -> Sequence[Loop]:
    return history(trace).loops


@cache
def found_by_openhands(trace: Trace) -> Sequence[Loop]:
    return openhands_rules.loops_of(trace.steps)


@dataclass
class Score:
    """Right, wrong and missed; `onsets` are found minus labelled, in steps."""

    right: int = 0
    wrong: int = 0
    found: int = 0
    missed: int = 0
    onsets: tuple[int, ...] = ()

    @property
    def precision(self) -> str:
        return share(self.right, self.right + self.wrong)

    @property
    def recall(self) -> str:
        return share(self.found, self.found + self.missed)

    @property
    def onset(self) -> str:
        if not self.onsets:
            return "–"
        exact = sum(error == 0 for error in self.onsets)
        near = sum(abs(error) <= 1 for error in self.onsets)
        return f"{median(self.onsets):g}; {exact} exact, {near} within one, of {len(self.onsets)}"


def share(hits: int, of: int) -> str:
    interval = wilson(hits, of)
    if interval is None:
        return "–"
    return f"{hits / of:.2f} ({interval[0]:.2f} to {interval[1]:.2f}; {hits} of {of})"


def by_run(chosen: Iterable[Trace], finder: Finder) -> Score:
    """Whether a run has a loop at all."""
    score, agreed = Score(), labels()
    for trace in chosen:
        labelled, found = bool(agreed[trace.name]), bool(finder(trace))
        score.right += found and labelled
        score.wrong += found and not labelled
        score.found += found and labelled
        score.missed += labelled and not found
    return score


def by_loop(chosen: Iterable[Trace], finder: Finder, kind: str | None = None) -> Score:
    """Loops of the same kind that share a step."""
    score, agreed = Score(), labels()
    for trace in chosen:
        labelled = [label for label in agreed[trace.name] if kind in (None, label["kind"])]
        found = [loop for loop in finder(trace) if kind in (None, loop.kind)]
        right = [loop for loop in found if any(_alike(loop, label) for label in labelled)]
        score.right += len(right)
        score.wrong += len(found) - len(right)
        for label in labelled:
            matches = [loop for loop in found if _alike(loop, label)]
            score.found += bool(matches)
            score.missed += not matches
            if matches:
                score.onsets += (min((loop.onset - label["onset"] for loop in matches), key=abs),)
    return score


def _alike(loop: Loop, label: Label) -> bool:
    return bool(loop.kind == label["kind"] and loop.onset <= label["end"] and label["onset"] <= loop.end)


def kappa(pairs: Sequence[tuple[bool, bool]]) -> float:
    """Cohen's kappa of two yes-or-no judgements."""
    agree = sum(one == other for one, other in pairs) / len(pairs)
    ones, others = (sum(pair[who] for pair in pairs) / len(pairs) for who in (0, 1))
    chance = ones * others + (1 - ones) * (1 - others)
    return (agree - chance) / (1 - chance)


def agreement() -> list[list[str]]:
    """Of the two labellers: by run, by run and kind, and on where the loops that both saw begin."""
    one, other = labels("a"), labels("b")
    rows = []
    for name, chosen in _groups(None):
        runs = [(bool(one[trace.name]), bool(other[trace.name])) for trace in chosen]
        kinds = [
            tuple(any(label["kind"] == kind for label in who[trace.name]) for who in (one, other))
            for trace in chosen
            for kind in KINDS
        ]
        onsets = [
            label["onset"] == match["onset"]
            for trace in chosen
            for label in one[trace.name]
            for match in other[trace.name]
            if match["kind"] == label["kind"] and match["onset"] <= label["end"] and label["onset"] <= match["end"]
        ]
        rows.append([
            name, str(len(chosen)), str(sum(a != b for a, b in runs)), _kappa(runs), _kappa([(a, b) for a, b in kinds]),
            share(sum(onsets), len(onsets)),
        ])  # fmt: skip
    return rows


def _kappa(pairs: Sequence[tuple[bool, bool]]) -> str:
    return f"{kappa(pairs):.2f}" if len({who for pair in pairs for who in pair}) > 1 else "–"


def _groups(held: bool | None) -> list[tuple[str, list[Trace]]]:
    chosen = [trace for trace in traces() if held in (None, held_out(trace.name))]
    return [(group.replace("_", " "), [trace for trace in chosen if trace.group == group]) for group in GROUPS]


def runs_table() -> list[list[str]]:
    rows = []
    for half, held in (("made on", False), ("held out", True), ("all", None)):
        for group, chosen in _groups(held):
            ours, theirs = by_run(chosen, found_by_us), by_run(chosen, found_by_openhands)
            labelled = ours.found + ours.missed
            if labelled:
                rows.append(
                    [half, group, str(len(chosen)), str(labelled), ours.precision, ours.recall, theirs.precision,
                     theirs.recall]
                )  # fmt: skip
            else:
                rows.append(
                    [half, group, str(len(chosen)), "0", f"{ours.wrong} false alarms", "–",
                     f"{theirs.wrong} false alarms", "–"]
                )  # fmt: skip
    return rows


def kinds_table(held: bool | None) -> list[list[str]]:
    rows = []
    for group, chosen in _groups(held):
        for kind in (*KINDS, None):
            ours, theirs = by_loop(chosen, found_by_us, kind), by_loop(chosen, found_by_openhands, kind)
            if ours.found + ours.missed + ours.wrong:
                rows.append([group, kind or "all kinds", ours.precision, ours.recall, ours.onset, theirs.recall])
    return rows


def played(held: bool | None) -> list[Recorded]:
    """The runs of scripted policies: what only looks like a loop, and loops of which some recover and then resolve
    their task and others never do."""
    return [recorded(trace) for trace in traces() if trace.group != "real" and held in (None, held_out(trace.name))]


def recorded(trace: Trace) -> Recorded:
    seen = history(trace)
    growth = [
        (call, steps, sum(tokens for index, tokens in trace.tokens.items() if index >= call))
        for call, steps in seen.growth
    ]  # fmt: skip
    stuck, resolved = seen.dead_end is not None, trace.outcome == "resolved"
    return Recorded(trace.name, sum(trace.tokens.values()), growth, stuck, resolved)


def guard_table(held: bool | None) -> list[list[str]]:
    """Savings and losses on the scripted policies, a row for each patience."""
    return [
        [
            str(point.patience),
            f"{point.share:.0%} ({point.low:.0%} to {point.high:.0%})",
            f"{point.lost} of {point.resolved}",
            f"{point.lost_share:.1%} "
            + (
                f"({point.lost_low:.1%} to {point.lost_high:.1%})" if point.lost else f"(at most {point.lost_high:.1%})"
            ),
        ]
        for point in curve(played(held), PATIENCES)
        if point.share is not None and point.low is not None and point.lost_share is not None
    ]


def example(kind: str) -> tuple[Trace, Loop] | None:
    """The longest loop of a kind, of a real model where there is one."""
    agreed = labels()
    for group in ("real", "composed"):
        found = [
            (trace, loop)
            for trace in traces()
            for loop in (found_by_us(trace) if trace.group == group else ())
            if loop.kind == kind and any(_alike(loop, label) for label in agreed[trace.name])
        ]
        if found:
            return max(found, key=lambda pair: pair[1].steps)
    return None


def main() -> None:
    development = "--development" in sys.argv
    if development:
        rows = kinds_table(False)
    else:
        rows = [*agreement(), [], *runs_table(), [], *kinds_table(None), [], *kinds_table(True)]
    for row in rows:
        print(" | ".join(row))


if __name__ == "__main__":
    main()
