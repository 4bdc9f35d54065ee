"""Figures that were computed by hand, and every rule by which a figure is not told."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database

from harness.analysis import metrics
from harness.analysis.between_runs import controls, idles
from harness.analysis.figures import CLOCK, Figure
from harness.analysis.metrics import Cell, cells, figures_of, ranking, sources
from harness.cli.energy import energy as command
from harness.errors import UserError
from harness.store import migrations
from harness.store.db import open_store
from harness.store.records import insert_idle, insert_job, insert_run, insert_session, insert_sweep

COVERAGE = "cpu+dram"

Row = dict[str, Any]


def open_sweep(path: Path, **spec: Any) -> Database:
    db = open_store(path)
    insert_sweep(
        db, sweep_id="s", machine_id="m", facts={}, version="1", spec=spec, resolved={}, planned_runs=9
    )  # fmt: skip
    return db


@pytest.fixture
def db(tmp_path: Path) -> Database:
    return open_sweep(tmp_path / "h.db")


def told(
    joules: float | None, component: str = "total", layer: str = "gross", phase: str = "agent", **other: Any
) -> Row:
    return {
        "source": "counters", "component": component, "layer": layer, "phase": phase, "joules": joules,
        "kind": "measured", "coverage": COVERAGE, "low_j": None, "high_j": None, "detail": None,
    } | other  # fmt: skip


def a_call(index: int, **changes: Any) -> Row:
    return {
        "call_index": index, "started_at": "", "offset_s": 0.0, "queued_s": 0.0, "duration_s": 1.0, "status": "ok",
        "truncated": 0, "dialect": "openai", "streamed": 1, "sent": 1, "tool_calls": 0, "request_bytes": 1,
        "asked": "{}", "prefill_s": 1.0, "decode_s": 2.0, "input_tokens": 100, "cached_tokens": 60,
        "output_tokens": 20,
    } | changes  # fmt: skip


def add(
    db: Database, position: int, energy: float | list[Row] | None = 100.0, calls: list[Row] | None = None,
    resolved: bool = False, **changes: Any,
) -> None:  # fmt: skip
    """A run of 10 s. `energy`: its gross joules as counted, all its rows, or None for no row."""
    run_id = f"s-{position:04d}"
    row = {
        "run_id": run_id, "sweep_id": "s", "position": position, "suite": "s", "task": f"t{position}", "agent": "a",
        "agent_version": "1", "engine": "ollama", "model": "m", "think": 0, "repetition": 1, "attempt": 1,
        "ended_by": "submitted", "verdict": "resolved" if resolved else "unresolved", "started_at": "",
        "ended_at": "", "duration_s": 13.0, "setup_s": 1.0, "agent_s": 10.0, "grading_s": 1.0, "image_digest": "",
        "image_source": "dockerfile", "flags": "[]", "harness_version": "1", "machine_id": "m", "session": 1,
        "energy_source": "counters",
    } | changes  # fmt: skip
    rows = [] if energy is None else energy if isinstance(energy, list) else [told(energy)]
    all_calls = [{"run_id": run_id, "call_id": f"{run_id}/{call['call_index']}", **call} for call in calls or []]
    insert_run(db, row, all_calls, rows, [], [])


def clock(joules: float) -> list[Row]:
    rows = [told(joules), told(joules / 2, layer="idle"), told(joules / 2, layer="net")]
    return [row | {"source": "codecarbon", "kind": "estimated_constant", "coverage": "cpu+ram"} for row in rows]


def in_phases(prefill: float, decode: float, rest: float, idle_share: float | None = 0.25) -> list[Row]:
    """A run whose joules went into three phases, with idle power taken off each."""
    parts = {"prefill": prefill, "decode": decode, "between_calls": rest}
    rows = [told(sum(parts.values())), *(told(joules, phase=phase) for phase, joules in parts.items())]
    if idle_share is not None:
        rows += [row | {"layer": "idle", "joules": row["joules"] * idle_share} for row in rows]
        rows += [row | {"layer": "net", "joules": row["joules"] * (1 - idle_share)} for row in rows if row["layer"] ==
                 "gross"]  # fmt: skip
    return rows


def only(db: Database, **options: Any) -> Cell:
    [cell] = cells(db, "s", **options)
    return cell


# Figures by hand.


def test_means_watts_and_products_of_two_runs(db: Database) -> None:
    add(db, 0, [told(100.0), told(40.0, layer="idle"), told(60.0, layer="net")], agent_s=10.0, peak_w=30.0)
    add(db, 1, [told(500.0), told(160.0, layer="idle"), told(340.0, layer="net")], agent_s=40.0, peak_w=25.0)
    cell = only(db)
    assert cell.gross_j == Figure(300.0, "J", "measured", COVERAGE, 2, None, "m")
    assert cell.net_j.value == 200.0
    assert cell.wh.value == pytest.approx(300 / 3600)
    assert cell.agent_s == Figure(25.0, "s", None, None, 2, None, "m")
    assert cell.idle_w.value == 4.0  # 200 J in 50 s
    assert cell.mean_w.value == 12.0  # 600 J in 50 s, not the mean of 10 and 12.5 W
    assert cell.peak_w.value == 30.0
    assert (cell.edp.value, cell.edp.unit) == (10500.0, "J·s")  # of 1,000 and 20,000
    assert only(db, edp_exponent=2).edp == replace(cell.edp, value=405000.0, unit="J·s^2")
    assert only(db, edp_exponent=0).edp.value == 300.0


def test_failures_are_part_of_what_a_resolved_issue_costs(db: Database) -> None:
    add(db, 0, 100.0, resolved=True)
    add(db, 1, 300.0)
    add(db, 2, 600.0, verdict="empty_patch")
    cell = only(db)
    assert (cell.per_resolved_j.value, cell.per_resolved_j.n) == (1000.0, 3)
    assert (cell.failed_j.value, cell.failed_j.n) == (900.0, 2)
    assert cell.failed_share.value == 0.9


def test_with_nothing_resolved_the_cost_of_a_resolved_issue_is_undefined_and_the_spending_is_said(db: Database) -> None:
    add(db, 0, 1000.0)
    add(db, 1, 500.0)
    figure = only(db).per_resolved_j
    assert (figure.value, figure.why) == (None, "undefined: 0 resolved, 1,500 J spent")
    add(db, 2, None, energy_source=None)
    figure = only(db).per_resolved_j
    assert figure.value is None
    assert (figure.why or "").startswith("undefined: 0 resolved; 1 of 3 runs have no figure")


def test_when_all_are_resolved_no_joule_was_spent_on_failures(db: Database) -> None:
    add(db, 0, resolved=True)
    cell = only(db)
    assert (cell.failed_j.value, cell.failed_j.n, cell.failed_share.value) == (0.0, 0, 0.0)


def test_a_run_that_could_not_be_graded_is_neither_failed_nor_resolved(db: Database) -> None:
    add(db, 0, 100.0, verdict="grader_error")
    cell = only(db)
    assert (cell.kept, cell.graded, cell.gross_j.value) == (1, 0, 100.0)
    for figure in (cell.failed_j, cell.failed_share, cell.per_resolved_j, cell.budget.area):
        assert (figure.value, figure.why) == (None, metrics.NONE_GRADED)
    add(db, 1, 300.0, resolved=True)
    cell = only(db)
    assert (cell.per_resolved_j.value, cell.failed_share.value) == (300.0, 0.0)


def test_phases_add_up_to_the_run_and_a_phase_that_was_not_counts_as_nothing(db: Database) -> None:
    add(db, 0, in_phases(100.0, 200.0, 40.0))
    add(db, 1, [*in_phases(100.0, 400.0, 60.0, None), told(20.0, phase="tail"), told(580.0)][1:])
    cell = only(db)
    gross = {phase: layers["gross"] for phase, layers in cell.phases.items()}
    assert {name: figure.value for name, figure in gross.items()} == {
        "load": None, "prefill": 100.0, "decode": 300.0, "between_calls": 50.0, "tail": 10.0
    }  # fmt: skip
    assert gross["load"].why == metrics.NO_SUCH_PHASE
    assert sum(figure.value or 0.0 for figure in gross.values()) == cell.gross_j.value
    # The second run's idle power is unknown: the first stands for both, and it is said.
    assert (cell.phases["decode"]["idle"].value, cell.phases["decode"]["idle"].n) == (50.0, 1)
    assert cell.phases["decode"]["net"].value == 150.0
    assert cell.phases["decode"]["net"].why == f"1 of 2 are not in it: {metrics.NO_IDLE}"


def test_a_run_with_a_gap_in_one_phase_is_in_none_of_them(db: Database) -> None:
    add(db, 0, in_phases(10.0, 20.0, 30.0))
    rows = in_phases(1000.0, 2000.0, 3000.0, None)
    rows[1] |= {"joules": None, "kind": "unavailable", "detail": "the counter was reset"}
    add(db, 1, rows)
    cell = only(db)
    assert [cell.phases[phase]["gross"].value for phase in ("prefill", "decode", "between_calls")] == [10, 20, 30]
    assert cell.phases["decode"]["gross"].why == "1 of 2 are not in it: the counter was reset"


def test_the_processor_and_the_time_between_calls_are_split(db: Database) -> None:
    said = {"source": "rapl", "kind": "estimated", "layer": "net", "coverage": "cpu"}
    users = [told(joules, who, **said) for who, joules in
             {"sandbox": 10.0, "engine": 60.0, "harness": 1.0, "rest": 9.0}.items()]  # fmt: skip
    between = [told(30.0, "framework", phase="between_calls", kind="estimated"),
               told(10.0, "tools", phase="between_calls", kind="estimated")]  # fmt: skip
    add(db, 0, [told(100.0), *users, *between])
    cell = only(db)
    assert {who: figure.value for who, figure in cell.cpu_users.items()} == {
        "sandbox": 10.0, "engine": 60.0, "harness": 1.0, "rest": 9.0
    }  # fmt: skip
    assert (cell.cpu_users["engine"].kind, cell.cpu_users["engine"].coverage) == ("estimated", "cpu")
    assert {who: figure.value for who, figure in cell.between_calls.items()} == {"framework": 30.0, "tools": 10.0}


def test_joules_of_a_token_leave_out_what_came_from_the_cache(db: Database) -> None:
    # 40 tokens read in 1 s and 20 written in 2 s by each call.
    add(db, 0, in_phases(80.0, 120.0, 5.0), [a_call(0), a_call(1)])
    add(db, 1, in_phases(16.0, 40.0, 5.0), [a_call(0, cached_tokens=20, prefill_s=4.0), a_call(1, sent=0)])
    cell = only(db)
    assert cell.per_input_token_j == Figure(96 / 160, "J/token", "measured", COVERAGE, 2, None, "m")
    assert cell.per_output_token_j.value == pytest.approx(160 / 60)
    assert cell.input_tokens_per_j.value == pytest.approx(160 / 96)
    assert cell.output_tokens_per_j == replace(cell.per_output_token_j, value=0.375, unit="tokens/J")
    assert cell.prefill_tokens_s.value == pytest.approx(160 / 6)
    assert cell.prefill_tokens_s.n == 3
    assert cell.decode_tokens_s.value == 10.0
    assert cell.decode_tokens_s.kind is None


def test_an_engine_that_is_silent_on_its_cache_gives_no_joules_of_a_token_read(db: Database) -> None:
    add(db, 0, in_phases(80.0, 120.0, 5.0), [a_call(0, cached_tokens=None)])
    cell = only(db)
    for figure in (cell.per_input_token_j, cell.input_tokens_per_j, cell.prefill_tokens_s):
        assert figure.value is None
        assert figure.why == "the engine does not tell how much of a prompt came out of its cache"
    assert cell.per_output_token_j.value == 6.0


def test_a_run_with_uncounted_tokens_is_left_out_with_its_joules(db: Database) -> None:
    add(db, 0, in_phases(80.0, 120.0, 5.0), [a_call(0)])
    add(db, 1, in_phases(80.0, 5000.0, 5.0), [a_call(0), a_call(1, input_tokens=None, output_tokens=None)])
    figure = only(db).per_output_token_j
    assert (figure.value, figure.n) == (6.0, 1)
    assert figure.why == "1 of 2 are not in it: the engine did not count the tokens of all calls"
    assert only(db).decode_tokens_s.why == "1 of 3 calls are not in it: not all is known"


def test_a_run_without_calls_has_no_tokens(db: Database) -> None:
    add(db, 0, [told(10.0), told(10.0, phase="between_calls")], engine="none", model="")
    cell = only(db)
    assert (cell.per_output_token_j.value, cell.per_output_token_j.why) == (None, "no token was generated")
    assert (cell.decode_tokens_s.value, cell.decode_tokens_s.why) == (None, "no call was made")


def test_joules_of_a_token_are_not_told_by_a_machine_that_the_engine_is_not_on(db: Database) -> None:
    rows = [row | {"coverage": "sandbox_host:cpu"} for row in in_phases(80.0, 120.0, 5.0)]
    add(db, 0, rows, [a_call(0)])
    cell = only(db)
    assert (cell.per_output_token_j.value, cell.per_output_token_j.why) == (None, metrics.ENGINE_AWAY)
    assert cell.gross_j.coverage == "sandbox_host:cpu"
    assert cell.decode_tokens_s.value == 10.0


def test_the_rate_is_normalised_by_the_bandwidth_that_the_sweep_names(tmp_path: Path, db: Database) -> None:
    add(db, 0, calls=[a_call(0)])
    assert (only(db).decode_per_bandwidth.value, only(db).decode_per_bandwidth.why) == (None, metrics.NO_BANDWIDTH)
    with_it = open_sweep(tmp_path / "other.db", memory_bandwidth_gb_s=40.0)
    add(with_it, 0, calls=[a_call(0)])
    figure = only(with_it).decode_per_bandwidth
    assert (figure.value, figure.unit) == (0.25, "tokens/s per GB/s")


def test_grams_need_a_country_and_are_an_estimate(db: Database) -> None:
    add(db, 0, 3.6e6)
    assert (only(db).co2e_g.value, only(db).co2e_g.why) == (None, metrics.NO_COUNTRY)
    insert_session(db, "s", 1, {}, {}, ("DEU", 380.0, "a table"))
    assert only(db).co2e_g == Figure(380.0, "g CO2e", "estimated", COVERAGE, 1, None, "m")
    add(db, 1, 3.6e6, session=2)
    insert_session(db, "s", 2, {}, {}, None)
    assert (only(db).co2e_g.value, only(db).co2e_g.why) == (None, metrics.NO_COUNTRY)
    db.execute("UPDATE sessions SET carbon_g_per_kwh = 50 WHERE session = 2")
    assert only(db).co2e_g.why == "the sweep's sessions name grids of different CO2"


def test_the_share_resolved_within_a_budget_and_the_area_below_it(db: Database) -> None:
    add(db, 0, 100.0, resolved=True)
    add(db, 1, 250.0, resolved=True)
    add(db, 2, 400.0)
    add(db, 3, 50.0)
    budget = only(db).budget
    assert (budget.limit.value, budget.limit.unit) == (400.0, "J")
    assert budget.points == ((0.0, 0.0), (100.0, 0.25), (250.0, 0.5), (400.0, 0.5))
    # A quarter over 150 J and a half over 150 J, of 400 J.
    assert budget.area.value == pytest.approx((0.25 * 150 + 0.5 * 150) / 400)
    assert budget.area.why == "budgets from 0 to 400 J, the energy of the sweep's most expensive run"
    shorter = only(db, budget_j=200.0).budget
    assert shorter.points == ((0.0, 0.0), (100.0, 0.25), (200.0, 0.25))
    assert shorter.area.value == pytest.approx(0.25 * 100 / 200)


def test_all_cells_have_the_same_range_of_budgets_and_nothing_resolved_is_a_true_zero(db: Database) -> None:
    add(db, 0, 100.0, resolved=True, agent="a")
    add(db, 1, 1000.0, agent="b")
    first, second = cells(db, "s")
    assert first.budget.limit.value == second.budget.limit.value == 1000.0
    assert first.budget.area.value == pytest.approx(0.9)
    assert second.budget.area.value == 0.0


def test_a_resolved_run_of_unknown_energy_leaves_no_curve_and_a_failed_one_does(db: Database) -> None:
    add(db, 0, 100.0, resolved=True)
    add(db, 1, None)
    assert only(db).budget.area.value == 0.0  # resolved at the whole budget and not below
    assert only(db).budget.area.n == 2
    add(db, 2, None, resolved=True)
    budget = only(db).budget
    assert (budget.points, budget.area.value) == (None, None)
    assert "1 of 2 runs have no figure" in (budget.area.why or "")


# What is not told.


def test_different_kinds_coverage_and_machines_are_never_put_together(db: Database) -> None:
    add(db, 0, 100.0, resolved=True, agent="kinds")
    add(db, 1, [told(100.0, kind="estimated")], resolved=True, agent="kinds")
    add(db, 2, 100.0, resolved=True, agent="covers")
    add(db, 3, [told(100.0, coverage="wall")], resolved=True, agent="covers")
    add(db, 4, 100.0, resolved=True, agent="machines")
    db.table("machines").insert({"machine_id": "n", "facts": "{}"})
    add(db, 5, 100.0, resolved=True, agent="machines", machine_id="n")
    covers, kinds, machines = cells(db, "s")
    assert kinds.gross_j.why == "figures of different kinds are never put together: estimated, measured"
    assert covers.gross_j.why == "figures of different coverage are never put together: cpu+dram, wall"
    assert machines.gross_j.why == "figures of different machines are never put together: m, n"
    for cell in (kinds, covers, machines):
        for name in ("gross_j", "wh", "mean_w", "edp", "failed_j", "failed_share", "per_resolved_j", "co2e_g"):
            assert getattr(cell, name).value is None, (cell.agent, name)
        assert cell.budget.points is None
    assert machines.agent_s.value is None
    assert kinds.agent_s.value == 10.0


def test_cells_of_different_coverage_are_not_ranked(db: Database) -> None:
    add(db, 0, 200.0, agent="a")
    assert ranking(cells(db, "s")).why == "there are not two cells"
    add(db, 1, 100.0, agent="b")
    assert ranking(cells(db, "s")).order == ("b × m", "a × m")
    add(db, 2, None, agent="c", energy_source=None)
    assert ranking(cells(db, "s")).why == f"c × m without a figure: {metrics.NO_ENERGY}"
    add(db, 3, [told(1.0, coverage="gpu")], agent="d")
    found = ranking(cells(db, "s"))
    assert (found.order, found.why) == (None, "figures of different coverage are never put together: cpu+dram, gpu")


def test_of_a_clock_only_seconds_times_a_constant_is_told(db: Database) -> None:
    add(db, 0, clock(200.0), [a_call(0)], resolved=True, energy_source="codecarbon")
    add(db, 1, clock(400.0), [a_call(0)], energy_source="codecarbon", agent_s=20.0)
    cell = only(db)
    told_of_it = {name for name, figure in figures_of(cell) if figure.value is not None and figure.kind is not None}
    assert told_of_it == {"gross_j", "wh", "idle_w", "mean_w", "failed_j", "failed_share", "per_resolved_j"}
    assert (cell.gross_j.value, cell.gross_j.kind) == (300.0, "estimated_constant")
    suppressed = {name for name, figure in figures_of(cell) if figure.why == CLOCK}
    assert suppressed == {
        "net_j", "peak_w", "edp", "budget.limit", "budget.area", "per_input_token_j", "per_output_token_j",
        "input_tokens_per_j", "output_tokens_per_j",
        *(f"phases.{phase}.{layer}" for phase in metrics.PHASES for layer in metrics.LAYERS),
        *(f"cpu_users.{who}" for who in metrics.CPU_USERS), *(f"between_calls.{who}" for who in metrics.BETWEEN_CALLS),
    }  # fmt: skip
    assert cell.budget.points is None
    assert cell.decode_tokens_s.value == 10.0  # there is no energy in it
    add(db, 2, clock(100.0), agent="b", energy_source="codecarbon")
    assert ranking(cells(db, "s")) == metrics.Ranking(None, CLOCK)


def test_a_phase_that_is_a_clock_is_not_told_even_where_the_run_is_none(db: Database) -> None:
    rows = [row | {"kind": "estimated"} for row in in_phases(80.0, 120.0, 5.0, None)]
    rows[-1] |= {"kind": "estimated_constant"}
    add(db, 0, rows)
    cell = only(db)
    assert cell.phases["decode"]["gross"].value == 120.0
    assert (cell.phases["between_calls"]["gross"].value, cell.phases["between_calls"]["gross"].why) == (None, CLOCK)


def test_unavailable_energy_is_none_with_the_reason_that_was_stored(db: Database) -> None:
    add(db, 0, [told(None, source="none", kind="unavailable", coverage="none", detail="other runs went on")],
        energy_source=None, resolved=True)  # fmt: skip
    cell = only(db)
    assert cell.gross_j == Figure(None, "J", "unavailable", None, 0, "other runs went on", "m")
    for name, figure in figures_of(cell):
        if name not in ("agent_s",):
            assert figure.value is None, name
            assert figure.why, name
    assert cell.agent_s.value == 10.0


def test_a_run_without_a_figure_is_no_part_of_a_mean_and_makes_a_sum_unknown(db: Database) -> None:
    add(db, 0, 100.0, resolved=True)
    add(db, 1, [told(None, detail="bounds only")], resolved=True)
    cell = only(db)
    assert (cell.gross_j.value, cell.gross_j.n, cell.gross_j.why) == (100.0, 1, "1 of 2 are not in it: bounds only")
    assert cell.mean_w.value == 10.0  # the seconds of the other run are left out with its joules
    assert cell.per_resolved_j.value is None
    assert cell.per_resolved_j.why == "1 of 2 runs have no figure, so there is no sum: bounds only"


def test_flagged_and_invalid_runs_are_left_out_and_counted_by_flag(db: Database) -> None:
    add(db, 0, 100.0, resolved=True)
    add(db, 1, 9000.0, calls=[a_call(0)], flags=json.dumps(["throttled: for heat", "output_cut"]), agent_s=99.0)
    add(db, 2, 9000.0, flags=json.dumps(["throttled", "idle_drift: 9 W", "idle_drift: 7 W"]), resolved=True)
    add(db, 3, 9000.0, ended_by="model_error", flags='["throttled"]')
    add(db, 4, 200.0, flags='["output_cut", "throttled_not"]')
    cell = only(db)
    assert cell.left_out == {"throttled": 2, "idle_drift": 1, "invalid": 1}
    assert (cell.runs, cell.kept, cell.graded, cell.resolved) == (5, 2, 2, 1)
    assert (cell.gross_j.value, cell.agent_s.value, cell.per_resolved_j.value) == (150.0, 10.0, 300.0)
    assert cell.decode_tokens_s.why == "no call was made"
    assert [source.gross_j.value for source in sources(db, "s")] == [150.0]


def test_of_a_cell_whose_runs_are_all_left_out_nothing_is_told(db: Database) -> None:
    add(db, 0, flags='["clock_jump"]')
    cell = only(db)
    assert cell.kept == 0
    for name, figure in figures_of(cell):
        assert figure.value is None, name
        assert figure.why, name


def test_no_figure_is_ever_infinite_or_not_a_number(db: Database) -> None:
    add(db, 0, 0.0, agent_s=0.0, calls=[a_call(0, prefill_s=0.0, decode_s=0.0, output_tokens=0)])
    cell = only(db, edp_exponent=2)
    assert [name for name, figure in figures_of(cell) if figure.value is not None and not math.isfinite(figure.value)] \
        == []  # fmt: skip
    assert (cell.failed_share.value, cell.failed_share.why) == (None, "no energy was spent")


def test_without_calls_that_can_be_read_the_last_useful_step_is_not_known(db: Database) -> None:
    add(db, 0)
    assert (only(db).after_last_useful_step.value, only(db).after_last_useful_step.why) == (None, metrics.NO_STEPS)


# Beside the runs.


def test_sources_are_checked_against_the_one_that_tells(db: Database) -> None:
    for position, (counted, at_wall) in enumerate([(100.0, 150.0), (300.0, 410.0)]):
        other = {"source": "meter", "coverage": "wall"}
        same = {"source": "codecarbon", "coverage": COVERAGE, "kind": "estimated"}
        add(db, position, [told(counted), told(at_wall, **other), told(counted / 2, **same),
                           told(counted - 1, "cpu", source="rapl")])  # fmt: skip
    counters, codecarbon, meter = sources(db, "s")
    assert (counters.source, counters.is_headline, counters.gross_j.value) == ("counters", True, 200.0)
    assert counters.ratio.value is None
    assert (codecarbon.ratio.value, codecarbon.ratio.kind) == (0.5, "estimated")
    assert codecarbon.ratio.why == "both cover cpu+dram"
    assert (meter.gross_j.value, meter.ratio.value) == (280.0, 1.4)
    assert meter.ratio.why == "different coverage (wall beside cpu+dram): information, not an error"
    assert (meter.headline_kind, meter.headline_coverage) == ("measured", COVERAGE)


def test_a_ratio_is_of_the_runs_that_both_sources_tell(db: Database) -> None:
    add(db, 0, [told(100.0), told(120.0, source="meter")])
    add(db, 1, [told(900.0), told(None, source="meter", kind="unavailable", detail="it was silent")])
    meter = sources(db, "s")[1]
    assert (meter.ratio.value, meter.ratio.n) == (1.2, 1)
    assert meter.gross_j.why == "1 of 2 are not in it: it was silent"


def test_where_runs_are_told_by_different_sources_each_ratio_is_of_the_other_runs(db: Database) -> None:
    add(db, 0, [told(100.0), told(125.0, source="meter", coverage="wall")])
    add(db, 1, [told(200.0), told(300.0, source="meter", coverage="wall")], energy_source="meter")
    counters, meter = sources(db, "s")
    assert (counters.is_headline, meter.is_headline) == (True, True)
    assert (counters.gross_j.value, meter.gross_j.value) == (150.0, 212.5)
    assert counters.ratio.value == pytest.approx(2 / 3)
    assert counters.headline_coverage == "wall"
    assert (meter.ratio.value, meter.headline_coverage) == (1.25, COVERAGE)


def test_a_clock_beside_counters_proves_no_accuracy(db: Database) -> None:
    add(db, 0, [told(100.0), *clock(80.0)])
    codecarbon = sources(db, "s")[1]
    assert codecarbon.ratio.value == 0.8
    assert "one of the two is a clock" in (codecarbon.ratio.why or "")


def job(
    db: Database, number: int, duration_s: float, joules: float | None, kind: str = "measured", **other: Any
) -> None:
    if not db.table("sessions").count_where("sweep_id = 's'"):
        insert_session(db, "s", 1, {}, {}, None)
    row = {
        "sweep_id": "s", "number": number, "session": 1, "job": "control", "before_position": number, "what": "hash",
        "started_at": "", "duration_s": duration_s, "output_tokens": None, "joules": joules, "kind": kind,
        "coverage": COVERAGE, "detail": None,
    } | other  # fmt: skip
    insert_job(db, row)


def test_the_spread_of_the_control_job(db: Database) -> None:
    job(db, 1, 9.0, 90.0)
    job(db, 2, 500.0, 5000.0, job="warmup")
    [control] = controls(db, "s")
    assert (control.n, control.seconds.value, control.joules.value) == (1, 9.0, 90.0)
    assert (control.seconds_cv.value, control.seconds_cv.why) == (None, "one value has no spread")
    job(db, 3, 10.0, 100.0)
    job(db, 4, 11.0, None)
    [control] = controls(db, "s")
    assert (control.n, control.seconds.value) == (3, 10.0)
    assert control.seconds_cv.value == pytest.approx(0.1)
    assert (control.joules.value, control.joules.n) == (95.0, 2)
    assert control.joules_cv.value == pytest.approx(math.sqrt(50) / 95)
    job(db, 5, 1.0, 1.0, what="another")
    assert [(control.what, control.n) for control in controls(db, "s")] == [("hash", 3), ("another", 1)]


def test_the_spread_of_a_clock_is_that_of_its_seconds(db: Database) -> None:
    job(db, 1, 9.0, 90.0, "estimated_constant")
    job(db, 2, 11.0, 110.0, "estimated_constant")
    [control] = controls(db, "s")
    assert (control.joules.value, control.joules_cv.value, control.joules_cv.why) == (100.0, None, CLOCK)
    assert control.seconds_cv.value is not None


def idle(db: Database, number: int, **changes: Any) -> None:
    if not db.table("sessions").count_where("sweep_id = 's'"):
        insert_session(db, "s", 1, {}, {}, None)
    insert_idle(
        db,
        [
            {
                "sweep_id": "s", "number": number, "session": 1, "before_position": 0, "state": "loaded", "model": "m",
                "started_at": "", "duration_s": 60.0, "source": "counters", "component": component, "watts": 8.5,
                "kind": "measured", "coverage": COVERAGE, "busy_cores": 0.04, "detail": None,
            } | changes
            for component in ("cpu", "total")
        ],
    )  # fmt: skip


def test_idle_power_is_listed_by_measurement(db: Database) -> None:
    idle(db, 1)
    idle(db, 2, watts=None, kind="unavailable", detail="it was silent")
    first, second = idles(db, "s")
    assert (first.number, first.state, first.watts) == (1, "loaded", Figure(8.5, "W", "measured", COVERAGE, 1))
    assert (second.watts.value, second.watts.why) == (None, "it was silent")


# Databases of older harnesses, and the command.


def old_database(path: Path) -> None:
    """A database as the schema's third step left it, with a run of each kind of energy."""
    db = Database(path)
    db["migrations"].create({"name": str, "applied_at": str}, pk="name")
    for step in migrations.MIGRATIONS[:3]:
        step(db)
        db["migrations"].insert({"name": step.__name__, "applied_at": ""})
    db["machines"].insert({"machine_id": "m", "facts": "{}"})
    db["sweeps"].insert(
        {"sweep_id": "s", "created_at": "", "machine_id": "m", "harness_version": "0", "spec": "{}", "resolved": "{}",
         "planned_runs": 2}
    )  # fmt: skip
    for position, kind in enumerate(("estimated", "estimated_constant", "unavailable")):
        run_id = f"s-{position:04d}"
        db["runs"].insert(
            {
                "run_id": run_id, "sweep_id": "s", "position": position, "suite": "s", "task": "t", "agent": kind,
                "agent_version": "1", "engine": "ollama", "model": "m", "think": 0, "repetition": 1, "attempt": 1,
                "ended_by": "submitted", "verdict": "unresolved", "started_at": "", "ended_at": "", "duration_s": 3.0,
                "setup_s": 1.0, "agent_s": 10.0, "grading_s": 1.0, "image_digest": "", "image_source": "dockerfile",
                "flags": "[]", "harness_version": "0", "machine_id": "m",
            }
        )  # fmt: skip
        db["energy"].insert(
            {"run_id": run_id, "source": "codecarbon", "component": "total", "layer": "gross", "phase": "agent",
             "joules": None if kind == "unavailable" else 208.0, "kind": kind, "coverage": "cpu+ram"}
        )  # fmt: skip
    db.conn.commit()
    db.close()


def test_runs_of_an_older_harness_have_a_total_and_nothing_more(tmp_path: Path) -> None:
    old_database(tmp_path / "old.db")
    estimated, constant, unavailable = cells(open_store(tmp_path / "old.db"), "s")
    assert (estimated.gross_j.value, estimated.gross_j.kind, estimated.mean_w.value) == (208.0, "estimated", 20.8)
    assert (estimated.net_j.value, estimated.net_j.why) == (None, metrics.NO_IDLE)
    assert estimated.phases["decode"]["gross"].why == metrics.NO_PHASES
    assert estimated.cpu_users["engine"].why == metrics.NO_SPLIT
    assert estimated.co2e_g.why == metrics.NO_COUNTRY
    assert (constant.gross_j.value, constant.phases["decode"]["gross"].why) == (208.0, CLOCK)
    assert (unavailable.gross_j.value, unavailable.gross_j.why) == (None, metrics.NO_ENERGY)
    assert (unavailable.gross_j.kind, unavailable.gross_j.n) == ("unavailable", 0)


def test_the_command_prints_figures_and_a_sentence_for_each_that_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    db = open_sweep(tmp_path / "h.db", memory_bandwidth_gb_s=40.0)
    add(db, 0, in_phases(80.0, 120.0, 5.0), [a_call(0)], resolved=True, peak_w=42.5)
    add(db, 1, flags='["throttled: for heat"]')
    add(db, 2, clock(200.0), agent="b", energy_source="codecarbon")
    job(db, 1, 10.0, 100.0)
    idle(db, 1)
    db.close()
    command(db=tmp_path / "h.db", runs_dir=tmp_path)
    printed = capsys.readouterr().out
    for text in ("counters", "42.5", "throttled", "control job", "idle power", "200 ~~", "undefined", "decode",
                 "undefined: 0 resolved, 200 J spent", "not told: net J", CLOCK,
                 "cells are not ranked: figures of different kinds", metrics.NO_COUNTRY):  # fmt: skip
        assert text in printed, text
    command("s", db=tmp_path / "h.db", runs_dir=tmp_path, as_json=True, exponent=2.0)
    found = json.loads(capsys.readouterr().out)
    assert found["edp_exponent"] == 2.0
    assert found["cells"][0]["edp"]["unit"] == "J·s^2"
    assert found["cells"][0]["left_out"] == {"throttled": 1}
    assert found["cells"][1]["net_j"] == {
        "value": None, "unit": "J", "kind": "estimated_constant", "coverage": "cpu+ram", "n": 1, "why": CLOCK,
        "machine": "m",
    }  # fmt: skip
    assert {source["source"]: source["gross_j"]["value"] for source in found["sources"]} == {
        "codecarbon": 200.0,
        "counters": 205.0,
    }


def test_the_command_says_when_there_is_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_sweep(tmp_path / "h.db").close()
    command(db=tmp_path / "h.db", runs_dir=tmp_path)
    assert capsys.readouterr().out == "sweep s has no run yet\n"


def test_an_older_database_that_nobody_may_write_is_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old_database(tmp_path / "old.db")

    def nothing_is_writable(*_: object) -> bool:  # a stand-in: root may write everything
        return False

    monkeypatch.setattr("os.access", nothing_is_writable)
    with pytest.raises(UserError, match=r"older harness .* copy it"):
        command(db=tmp_path / "old.db", runs_dir=tmp_path)


@pytest.mark.parametrize("exponent", [-1.0, 11.0, math.inf, math.nan])
def test_an_exponent_out_of_range_is_refused(tmp_path: Path, exponent: float) -> None:
    with pytest.raises(UserError, match="--edp-exponent"):
        command(db=tmp_path / "none.db", runs_dir=tmp_path, exponent=exponent)
