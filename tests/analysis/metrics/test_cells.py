"""Figures that were computed by hand, and every rule by which a figure is not told."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from energy_rows import COVERAGE, a_call, add, clock, old_database, only, told
from sqlite_utils import Database

from harness.analysis.figures import CLOCK, NO_ENERGY, Figure
from harness.analysis.metrics.cells import (
    BETWEEN_CALLS,
    CPU_USERS,
    LAYERS,
    NO_SPLIT,
    Ranking,
    cells,
    figures_of,
    ranking,
)
from harness.analysis.metrics.phases import NO_PHASES, PHASES
from harness.analysis.metrics.sources import sources
from harness.analysis.metrics.whole import NO_COUNTRY, NO_IDLE, NO_STEPS, NONE_GRADED
from harness.store.db import open_store
from harness.store.records import insert_session


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
        assert (figure.value, figure.why) == (None, NONE_GRADED)
    add(db, 1, 300.0, resolved=True)
    cell = only(db)
    assert (cell.per_resolved_j.value, cell.failed_share.value) == (300.0, 0.0)


def test_grams_need_a_country_and_are_an_estimate(db: Database) -> None:
    add(db, 0, 3.6e6)
    assert (only(db).co2e_g.value, only(db).co2e_g.why) == (None, NO_COUNTRY)
    insert_session(db, "s", 1, {}, {}, ("DEU", 380.0, "a table"))
    assert only(db).co2e_g == Figure(380.0, "g CO2e", "estimated", COVERAGE, 1, None, "m")
    add(db, 1, 3.6e6, session=2)
    insert_session(db, "s", 2, {}, {}, None)
    assert (only(db).co2e_g.value, only(db).co2e_g.why) == (None, NO_COUNTRY)
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
    assert ranking(cells(db, "s")).why == f"c × m without a figure: {NO_ENERGY}"
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
        *(f"phases.{phase}.{layer}" for phase in PHASES for layer in LAYERS),
        *(f"cpu_users.{who}" for who in CPU_USERS), *(f"between_calls.{who}" for who in BETWEEN_CALLS),
    }  # fmt: skip
    assert cell.budget.points is None
    assert cell.decode_tokens_s.value == 10.0  # there is no energy in it
    add(db, 2, clock(100.0), agent="b", energy_source="codecarbon")
    assert ranking(cells(db, "s")) == Ranking(None, CLOCK)


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
    assert (only(db).after_last_useful_step.value, only(db).after_last_useful_step.why) == (None, NO_STEPS)


def test_runs_of_an_older_harness_have_a_total_and_nothing_more(tmp_path: Path) -> None:
    old_database(tmp_path / "old.db")
    estimated, constant, unavailable = cells(open_store(tmp_path / "old.db"), "s")
    assert (estimated.gross_j.value, estimated.gross_j.kind, estimated.mean_w.value) == (208.0, "estimated", 20.8)
    assert (estimated.net_j.value, estimated.net_j.why) == (None, NO_IDLE)
    assert estimated.phases["decode"]["gross"].why == NO_PHASES
    assert estimated.cpu_users["engine"].why == NO_SPLIT
    assert estimated.co2e_g.why == NO_COUNTRY
    assert (constant.gross_j.value, constant.phases["decode"]["gross"].why) == (208.0, CLOCK)
    assert (unavailable.gross_j.value, unavailable.gross_j.why) == (None, NO_ENERGY)
    assert (unavailable.gross_j.kind, unavailable.gross_j.n) == ("unavailable", 0)
