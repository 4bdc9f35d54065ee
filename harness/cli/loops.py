"""`harness loops`: where runs went round in circles, what that cost, and what stopping them would have saved."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import Db, Json, RunsDir, places, print_json, print_table
from harness.errors import UserError, nearest
from harness.visible import for_terminal

if TYPE_CHECKING:
    from sqlite_utils import Database

    from harness.analysis.figures import Figure
    from harness.analysis.loops.counterfactual import Point
    from harness.analysis.loops.digest import Digest
    from harness.analysis.loops.stored import Analysed
    from harness.analysis.loops.summary import OfAKind, Waste

CUT = 60  # characters of an action or an outcome


def loops(
    run_or_sweep: Annotated[
        str | None, typer.Argument(metavar="[RUN|SWEEP]", help="A run's or a sweep's id. Default: the newest sweep.")
    ] = None,
    db: Db = None,
    runs_dir: RunsDir = None,
    as_json: Json = False,
) -> None:
    """Print the loops of a run or of a sweep, what they cost, and what a guard would have saved."""
    from harness.analysis.loops.kept import digests
    from harness.analysis.loops.stored import analyse
    from harness.store.db import read_store

    database, folder = places(db, runs_dir)
    with contextlib.closing(read_store(database)) as store:
        sweep_id, run_id = _find(store, run_or_sweep)
        if run_id is None:
            _of_sweep(sweep_id, digests(store, folder, sweep_id), as_json)
        else:
            _of_run(analyse(store, folder, run_id), as_json)


def _find(store: Database, text: str | None) -> tuple[str, str | None]:
    """The sweep, and the run where one was named. Raises UserError when there is neither."""
    from harness.store.records import find_sweep

    if text is not None:
        found = list(store.query("SELECT run_id, sweep_id FROM runs WHERE run_id = ?", [text]))
        if found:
            return found[0]["sweep_id"], found[0]["run_id"]
        sweeps = [row["sweep_id"] for row in store.query("SELECT sweep_id FROM sweeps")]
        if not any(sweep.startswith(text) for sweep in sweeps):
            known = [*sweeps, *(row["run_id"] for row in store.query("SELECT run_id FROM runs"))]
            raise UserError(f"there is no run and no sweep {text!r}; {nearest(text, known)}")
    return find_sweep(store, text)["sweep_id"], None


def _of_sweep(sweep_id: str, runs: Sequence[Digest], as_json: bool) -> None:
    from harness.analysis import failures
    from harness.analysis.loops.counterfactual import curve
    from harness.analysis.loops.digest import loops_of
    from harness.analysis.loops.summary import kinds, recorded, wastes

    cells, found, points = wastes(runs), kinds(runs), curve(recorded(runs))
    classes = failures.by_cell(runs)
    if as_json:
        print_json(
            {
                "sweep_id": sweep_id,
                "cells": [asdict(cell) for cell in cells],
                "kinds": [asdict(kind) for kind in found],
                "failures": [
                    {"agent": agent, "model": model, "classes": counts} for (agent, model), counts in classes.items()
                ],
                "guard": [asdict(point) for point in points],
                "runs": [_run_json(run) for run in runs],
                "loops": [row for run in runs for row in loops_of(run)],
            }
        )
        return
    if not runs:
        print(f"sweep {sweep_id} has no run yet")
        return
    _print_cells(sweep_id, cells)
    _print_kinds(found)
    rows = [
        [agent, model, name, count, f"{count / sum(counts.values()):.0%}"]
        for (agent, model), counts in classes.items()
        for name, count in counts.items()
    ]
    print_table("how runs ended, one class each (docs/loops.md)", ["agent", "model", "class", "runs", "share"], rows)
    _print_curve(points)
    for line in _notes(runs, cells):
        print(line)


def _run_json(run: Digest) -> dict[str, Any]:
    from harness.analysis.failures import failure_of

    failure = failure_of(run)
    return {
        "run_id": run.run["run_id"],
        "class": failure.name,
        "evidence": failure.evidence,
        "unanalysable": run.why if run.unanalysable else None,
        "dead_end": asdict(run.dead_end) if run.dead_end else None,
        "wasted": asdict(run.wasted) if run.told else None,
        "spent": asdict(run.whole),
    }


def _print_cells(sweep_id: str, cells: Sequence[Waste]) -> None:
    print_table(
        f"sweep {sweep_id}: spent from the onset of the first loop that a run never recovered from",
        ["agent", "model", "runs", "with loops", "never recovered", "calls", "share", "tokens", "share",
         "a run: median (quartiles)", "seconds", "J"],
        [
            [cell.agent, cell.model, cell.runs, cell.looping, cell.stuck, _number(cell.calls),
             _percent(cell.calls_share.value), _number(cell.tokens), _percent(cell.tokens_share.value),
             None if cell.quartiles is None else
             f"{cell.quartiles[2]:.0%} ({cell.quartiles[1]:.0%} to {cell.quartiles[3]:.0%})",
             _number(cell.seconds), _number(cell.joules)]
            for cell in cells
        ],
    )  # fmt: skip


def _print_kinds(found: Sequence[OfAKind]) -> None:
    if not found:
        print("no loop was found")
        return
    print_table(
        "by kind",
        ["kind", "loops", "in runs", "first that a run never recovered from", "tokens from there on"],
        [[kind.kind, kind.loops, kind.runs, kind.dead_ends, _count(kind.wasted_tokens)] for kind in found],
    )


def _print_curve(points: Sequence[Point]) -> None:
    """What patience would have come to; the runs that a guard had a hand in are not in it."""
    if not any(point.stopped for point in points):
        print("a guard would have stopped none of these runs")
        return
    print_table(
        "had a guard stopped each loop after so many steps (--guard stop --guard-patience)",
        ["patience", "runs stopped", "tokens saved", "of the runs that never recovered", "resolved runs lost",
         "95 % of that"],
        [
            [point.patience, point.stopped, f"{point.saved_tokens:,}",
             None if point.share is None else
             f"{point.share:.0%} ({_percent(point.low)} to {_percent(point.high)})",
             f"{point.lost} of {point.resolved}",
             None if point.lost_share is None else
             f"{_percent(point.lost_low)} to {_percent(point.lost_high)}" if point.lost else
             f"at most {_percent(point.lost_high)}"]
            for point in points
        ],
    )  # fmt: skip


def _notes(runs: Sequence[Digest], cells: Sequence[Waste]) -> list[str]:
    lines = [f"unanalysable: {run.run['run_id']}: {run.why}" for run in runs if run.unanalysable]
    reasons: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        for name, figure in (("J", cell.joules), ("tokens", cell.tokens), ("seconds", cell.seconds)):
            if figure.value is None and figure.why:
                reasons.setdefault((name, figure.why), []).append(f"{cell.agent} × {cell.model}")
    for (name, why), whose in reasons.items():
        of_whom = "" if len(whose) == len(cells) else f" of {', '.join(whose)}"
        lines.append(f"not told: {name}{of_whom}: {why}")
    if not any(run.run["outcome"] == "resolved" for run in runs):
        lines.append("no run was resolved, so what a guard would have lost is not known")
    return lines


def _of_run(run: Analysed, as_json: bool) -> None:
    from harness.analysis.loops.digest import digest_of, loops_of
    from harness.analysis.loops.stored import marks

    digest = digest_of(run)
    said = _run_json(digest)
    if as_json:
        steps = run.history.steps if run.history else []
        print_json(said | {"loops": loops_of(digest), "steps": [_step_json(run, step) for step in steps]})
        return
    if run.history is None:
        print(f"{run.run['run_id']}: {'unanalysable: ' if digest.unanalysable else ''}{for_terminal(str(run.why))}")
        return
    beside = marks(run.history)
    several = len({step.thread for step in run.history.steps}) > 1
    rows = []
    for step in run.history.steps:
        row = _step_json(run, step)
        rows.append(
            [step.call, *([step.thread] if several else []), _cut(row["action"] or "(talk)"), _cut(row["outcome"]),
             "changed" if row["changed"] else "", "useful" if row["useful"] else "",
             ", ".join(beside.get(step.call, []))]
        )  # fmt: skip
    heads = ["call", *(["conversation"] if several else []), "action", "outcome", "files", "progress", "loop"]
    print_table(f"run {run.run['run_id']}", heads, rows)
    print(f"class       {said['class']}: {for_terminal(str(said['evidence']))}")
    if digest.dead_end is None:
        print("wasted      nothing: after its last loop, if any, something got it further")
        return
    lost, whole = digest.wasted, digest.whole
    tokens = "" if not lost.tokens or not whole.tokens else f", {lost.tokens:,} of {whole.tokens:,} tokens"
    joules = f", {lost.joules:,.0f} J ({lost.kind})" if lost.joules is not None else f"; J not told: {lost.why}"
    print(
        f"wasted      from call {digest.dead_end.onset} on: {lost.calls} of {whole.calls} calls{tokens}, "
        f"{lost.seconds:,.0f} of {whole.seconds:,.0f} s{joules}"
    )


def _step_json(run: Analysed, step: Any) -> dict[str, Any]:
    before = step.said.before
    assert run.history is not None
    return {
        "call": step.call,
        "conversation": step.thread,
        "action": step.said.action or None,
        "outcome": step.observation,
        "changed": None if before is None or step.after is None else before != step.after,
        "useful": step.call in run.history.useful,
    }


def _cut(text: str | None) -> str | None:
    if text is None:
        return None
    line = " ".join(text.split())
    return line if len(line) <= CUT else f"{line[: CUT - 1]}…"


def _count(tokens: int | None) -> str | None:
    return None if tokens is None else f"{tokens:,}"


def _number(figure: Figure) -> str | None:
    return None if figure.value is None else f"{figure.value:,.0f}"


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.0%}"
