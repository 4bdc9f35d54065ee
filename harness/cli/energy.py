"""`harness energy`: where the joules of a sweep went, with the reason beside everything that can't be told."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import Db, Json, RunsDir, places, print_json, print_table
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.analysis.between_runs import Control, IdlePower
    from harness.analysis.figures import Figure
    from harness.analysis.metrics.cells import Cell, Ranking
    from harness.analysis.metrics.sources import Source

MAX_EXPONENT = 10.0

NAMES = {
    "agent_s": "seconds",
    "gross_j": "gross J",
    "net_j": "net J",
    "idle_w": "idle W",
    "mean_w": "mean W",
    "peak_w": "peak W",
    "wh": "Wh",
    "co2e_g": "CO2e",
    "edp": "energy-delay product",
    "failed_j": "J of failed runs",
    "failed_share": "share of failed runs",
    "per_resolved_j": "J/resolved",
    "budget": "resolved within a budget",
    "phases": "J by phase",
    "cpu_users": "CPU energy by user",
    "between_calls": "J between calls by process",
    "per_input_token_j": "J a token in",
    "per_output_token_j": "J a token out",
    "input_tokens_per_j": "tokens in a joule",
    "output_tokens_per_j": "tokens out a joule",
    "prefill_tokens_s": "tokens/s in",
    "decode_tokens_s": "tokens/s out",
    "decode_per_bandwidth": "tokens/s out per GB/s",
    "after_last_useful_step": "share after the last useful step",
}
"""What people are told of the fields of a cell."""


def energy(
    sweep: Annotated[str | None, typer.Argument(help="A sweep's id. Default: the newest.")] = None,
    db: Db = None,
    runs_dir: RunsDir = None,
    as_json: Json = False,
    exponent: Annotated[
        float, typer.Option("--edp-exponent", help="w of the energy-delay product: joules times seconds to the w.")
    ] = 1.0,
) -> None:
    """Print where a sweep's energy went, and why what is missing can't be told."""
    if not (math.isfinite(exponent) and 0 <= exponent <= MAX_EXPONENT):
        raise UserError(f"--edp-exponent {exponent:g}: expected a number from 0 to {MAX_EXPONENT:g}")
    from harness.analysis import between_runs
    from harness.analysis.figures import NOTES
    from harness.analysis.loops.kept import digests
    from harness.analysis.metrics.cells import cells, ranking
    from harness.analysis.metrics.sources import sources
    from harness.store.db import read_store
    from harness.store.records import find_sweep

    database, folder = places(db, runs_dir)
    with contextlib.closing(read_store(database)) as store:
        sweep_id = find_sweep(store, sweep)["sweep_id"]
        analysed = digests(store, folder, sweep_id)
        rows = cells(store, sweep_id, edp_exponent=exponent, analysed=analysed)
        beside = sources(store, sweep_id)
        controls = between_runs.controls(store, sweep_id)
        idles = between_runs.idles(store, sweep_id)
    ranked = ranking(rows)
    if as_json:
        print_json(_plain(sweep_id, exponent, rows, beside, controls, idles, ranked))
        return
    if not rows:
        print(f"sweep {sweep_id} has no run yet")
        return
    _print_sources(beside)
    _print_cells(sweep_id, rows)
    _print_phases(rows)
    _print_tokens(rows)
    _print_controls(controls)
    _print_idles(idles)
    _print_left_out(rows)
    for line in _sentences(rows):
        print(line)
    kinds = {cell.gross_j.kind for cell in rows if cell.gross_j.value is not None}
    for kind, note in NOTES.items():
        if kind in kinds:
            print(note)
    print(f"cells by gross J a run, lowest first (no test of significance): {', '.join(ranked.order)}" if ranked.order
          else f"cells are not ranked: {ranked.why}")  # fmt: skip


def _plain(
    sweep_id: str,
    exponent: float,
    cells: Sequence[Cell],
    sources: Sequence[Source],
    controls: Sequence[Control],
    idles: Sequence[IdlePower],
    ranking: Ranking,
) -> dict[str, object]:
    from dataclasses import asdict

    return {
        "sweep_id": sweep_id,
        "edp_exponent": exponent,
        "sources": [asdict(source) for source in sources],
        "cells": [asdict(cell) for cell in cells],
        "ranking": asdict(ranking),
        "controls": [asdict(control) for control in controls],
        "idles": [asdict(idle) for idle in idles],
    }


def _print_sources(sources: Sequence[Source]) -> None:
    if not sources:
        print("no source told the energy of a run")
        return
    print_table(
        "sources: total of the agent stage, mean a run",
        ["source", "J", "runs", "kind", "covers", "ratio", "what the ratio says"],
        [
            [
                source.source,
                _text(source.gross_j),
                source.gross_j.n,
                source.gross_j.kind,
                source.gross_j.coverage,
                "" if source.is_headline and source.ratio.value is None else _text(source.ratio, 3),
                source.ratio.why,
            ]
            for source in sources
        ],
    )
    for source in sources:
        if source.gross_j.why:
            print(f"{source.source}: {source.gross_j.why}")


def _print_cells(sweep_id: str, cells: Sequence[Cell]) -> None:
    print_table(
        f"sweep {sweep_id}: by agent and model",
        ["agent", "model", "runs", "gross J", "net J", "idle W", "mean W", "peak W", "kind", "covers", "resolved",
         "J/resolved"],
        [
            [cell.agent, cell.model, _kept(cell), _marked(cell.gross_j), _marked(cell.net_j), _text(cell.idle_w),
             _text(cell.mean_w), _text(cell.peak_w), cell.gross_j.kind, cell.gross_j.coverage,
             f"{cell.resolved} of {cell.graded}",
             "undefined" if cell.graded and not cell.resolved else _marked(cell.per_resolved_j)]
            for cell in cells
        ],
    )  # fmt: skip
    print_table(
        "what it comes to",
        ["agent", "model", "seconds", "Wh", "g CO2e", cells[0].edp.unit, "J of failed runs", "their share",
         "after last useful step", "budget J", "area below the curve"],
        [
            [cell.agent, cell.model, _text(cell.agent_s), _text(cell.wh), _text(cell.co2e_g), _text(cell.edp),
             _marked(cell.failed_j), _percent(cell.failed_share), _percent(cell.after_last_useful_step),
             _text(cell.budget.limit),
             _text(cell.budget.area, 3)]
            for cell in cells
        ],
    )  # fmt: skip


def _print_phases(cells: Sequence[Cell]) -> None:
    from harness.analysis.metrics.cells import BETWEEN_CALLS, CPU_USERS, LAYERS
    from harness.analysis.metrics.phases import PHASES

    known = [
        [cell.agent, cell.model, layer, *(_text(cell.phases[phase][layer]) for phase in PHASES)]
        for cell in cells
        for layer in LAYERS
        if any(cell.phases[phase][layer].value is not None for phase in PHASES)
    ]
    if known:
        print_table("phases: J a run", ["agent", "model", "layer", *PHASES], known)
    split = [
        [
            cell.agent,
            cell.model,
            *(_text(cell.cpu_users[who]) for who in CPU_USERS),
            *(_text(cell.between_calls[who]) for who in BETWEEN_CALLS),
        ]
        for cell in cells
        if any(figure.value is not None for figure in (*cell.cpu_users.values(), *cell.between_calls.values()))
    ]
    if split:
        print_table(
            "shares by CPU time (estimated): dynamic J of the processor a run; J between calls a run",
            ["agent", "model", *CPU_USERS, *(f"between: {who}" for who in BETWEEN_CALLS)],
            split,
        )


def _print_tokens(cells: Sequence[Cell]) -> None:
    print_table(
        "tokens (in: without what came out of the cache)",
        ["agent", "model", "J/token in", "J/token out", "tokens/J in", "tokens/J out", "tokens/s in", "tokens/s out",
         "out per GB/s"],
        [
            [cell.agent, cell.model, _text(cell.per_input_token_j, 3), _text(cell.per_output_token_j, 3),
             _text(cell.input_tokens_per_j, 3), _text(cell.output_tokens_per_j, 3), _text(cell.prefill_tokens_s),
             _text(cell.decode_tokens_s), _text(cell.decode_per_bandwidth, 3)]
            for cell in cells
        ],
    )  # fmt: skip


def _print_controls(controls: Sequence[Control]) -> None:
    if controls:
        print_table(
            "control job",
            ["what", "n", "seconds", "spread", "J", "spread of J", "kind", "covers"],
            [
                [control.what, control.n, _text(control.seconds), _percent(control.seconds_cv),
                 _marked(control.joules), _percent(control.joules_cv), control.joules.kind, control.joules.coverage]
                for control in controls
            ],
        )  # fmt: skip
        print("spread: standard deviation over mean")
        for control in controls:
            for name, figure in (
                ("J", control.joules),
                ("spread", control.seconds_cv),
                ("spread of J", control.joules_cv),
            ):
                if figure.why:
                    print(f"control job, {name}: {figure.why}")


def _print_idles(idles: Sequence[IdlePower]) -> None:
    if not idles:
        print("idle power was not measured")
        return
    print_table(
        "idle power",
        ["number", "before run", "state", "model", "seconds", "busy cores", "source", "W", "kind", "covers"],
        [
            [idle.number, idle.before_position, idle.state, idle.model, idle.duration_s,
             None if idle.busy_cores is None else f"{idle.busy_cores:.2f}", idle.source, _text(idle.watts),
             idle.watts.kind, idle.watts.coverage]
            for idle in idles
        ],
    )  # fmt: skip
    for idle in idles:
        if idle.watts.why:
            print(f"idle power {idle.number}, {idle.source}: {idle.watts.why}")


def _print_left_out(cells: Sequence[Cell]) -> None:
    rows = [[cell.agent, cell.model, flag, count] for cell in cells for flag, count in cell.left_out.items()]
    if rows:
        print_table("left out of energy and time, by flag", ["agent", "model", "flag", "runs"], rows)
    else:
        print("no run is left out of energy and time")


def _sentences(cells: Sequence[Cell]) -> list[str]:
    """One for each reason: what it keeps from being told, or what a figure leaves out, and of which cells."""
    from harness.analysis.metrics.cells import figures_of
    from harness.analysis.metrics.phases import NO_SUCH_PHASE

    found: dict[tuple[bool, str], dict[str, list[str]]] = {}
    for cell in cells:
        who = f"{cell.agent} × {cell.model}"
        for path, figure in figures_of(cell):
            if figure.why is None or path == "budget.limit":
                continue
            field, _, part = path.partition(".")
            # All phases are missing for one reason, or one of them because it never came.
            name = f"{NAMES[field]} ({part.partition('.')[0]})" if figure.why == NO_SUCH_PHASE else NAMES[field]
            names = found.setdefault((figure.value is None, figure.why), {}).setdefault(who, [])
            if name not in names:
                names.append(name)
    lines = []
    for (missing, why), by_cell in found.items():
        alike: dict[tuple[str, ...], list[str]] = {}
        for who, listed in by_cell.items():
            alike.setdefault(tuple(listed), []).append(who)
        for names_alike, whose in alike.items():
            of_whom = "" if len(whose) == len(cells) else f" of {', '.join(whose)}"
            lines.append(f"{'not told' if missing else 'note on'}: {', '.join(names_alike)}{of_whom}: {why}")
    return lines


def _kept(cell: Cell) -> str:
    return str(cell.runs) if cell.kept == cell.runs else f"{cell.kept} of {cell.runs}"


def _text(figure: Figure, digits: int = 2) -> str | None:
    """A value with about as many digits as it deserves; None is shown as a dash."""
    value = figure.value
    if value is None:
        return None
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.{digits}f}" if abs(value) >= 0.1 else f"{value:.3g}"


def _marked(figure: Figure) -> str | None:
    from harness.analysis.figures import MARKS

    text = _text(figure)
    return None if text is None else text + MARKS.get(figure.kind or "", "")


def _percent(figure: Figure) -> str | None:
    return None if figure.value is None else f"{figure.value:.1%}"
