"""Joules and tokens by phase."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from energy_rows import COVERAGE, a_call, add, in_phases, only, open_sweep, told
from sqlite_utils import Database

from harness.analysis.figures import CLOCK, Figure
from harness.analysis.metrics.cells import NO_BANDWIDTH
from harness.analysis.metrics.phases import ENGINE_AWAY, NO_SUCH_PHASE
from harness.analysis.metrics.whole import NO_IDLE


def test_phases_add_up_to_the_run_and_a_phase_that_was_not_counts_as_nothing(db: Database) -> None:
    add(db, 0, in_phases(100.0, 200.0, 40.0))
    add(db, 1, [*in_phases(100.0, 400.0, 60.0, None), told(20.0, phase="tail"), told(580.0)][1:])
    cell = only(db)
    gross = {phase: layers["gross"] for phase, layers in cell.phases.items()}
    assert {name: figure.value for name, figure in gross.items()} == {
        "load": None, "prefill": 100.0, "decode": 300.0, "between_calls": 50.0, "tail": 10.0
    }  # fmt: skip
    assert gross["load"].why == NO_SUCH_PHASE
    assert sum(figure.value or 0.0 for figure in gross.values()) == cell.gross_j.value
    # The second run's idle power is unknown: the first stands for both, and it is said.
    assert (cell.phases["decode"]["idle"].value, cell.phases["decode"]["idle"].n) == (50.0, 1)
    assert cell.phases["decode"]["net"].value == 150.0
    assert cell.phases["decode"]["net"].why == f"1 of 2 are not in it: {NO_IDLE}"


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
    assert (cell.per_output_token_j.value, cell.per_output_token_j.why) == (None, ENGINE_AWAY)
    assert cell.gross_j.coverage == "sandbox_host:cpu"
    assert cell.decode_tokens_s.value == 10.0


def test_the_rate_is_normalised_by_the_bandwidth_that_the_sweep_names(tmp_path: Path, db: Database) -> None:
    add(db, 0, calls=[a_call(0)])
    assert (only(db).decode_per_bandwidth.value, only(db).decode_per_bandwidth.why) == (None, NO_BANDWIDTH)
    with_it = open_sweep(tmp_path / "other.db", memory_bandwidth_gb_s=40.0)
    add(with_it, 0, calls=[a_call(0)])
    figure = only(with_it).decode_per_bandwidth
    assert (figure.value, figure.unit) == (0.25, "tokens/s per GB/s")


def test_a_phase_that_is_a_clock_is_not_told_even_where_the_run_is_none(db: Database) -> None:
    rows = [row | {"kind": "estimated"} for row in in_phases(80.0, 120.0, 5.0, None)]
    rows[-1] |= {"kind": "estimated_constant"}
    add(db, 0, rows)
    cell = only(db)
    assert cell.phases["decode"]["gross"].value == 120.0
    assert (cell.phases["between_calls"]["gross"].value, cell.phases["between_calls"]["gross"].why) == (None, CLOCK)
