"""Metadata for Datasette: what every table and column means, units, and queries to begin with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.store.columns import COLUMNS, TABLES

UNITS = {"_s": "s", "_j": "J", "_w": "W", "_bytes": "B", "joules": "J", "watts": "W"}
"""Of columns, by how their names end."""


@dataclass(frozen=True)
class Query:
    """`sql` has its parameters as `:names`; one that is left empty in the form stands for all."""

    title: str
    description: str
    sql: str


QUERIES: dict[str, Query] = {
    "energy_by_cell": Query(
        "Energy by agent and model",
        "Means over valid runs that no flag leaves out. Kinds and coverages are never put together: a row each.",
        """
        SELECT sweep_id, agent, engine, model, energy_kind, energy_coverage, COUNT(*) AS runs,
               AVG(energy_j) AS energy_j, AVG(net_energy_j) AS net_energy_j, AVG(agent_s) AS agent_s
        FROM runs_summary
        WHERE counts AND left_out IS NULL AND (:sweep = '' OR sweep_id = :sweep)
        GROUP BY sweep_id, agent, engine, model, energy_kind, energy_coverage
        ORDER BY sweep_id DESC, agent, model
        """,
    ),
    "resolved_by_cell": Query(
        "Resolved by agent and model",
        "Of the valid runs that could be graded. No share where there is none.",
        """
        SELECT sweep_id, agent, engine, model, SUM(outcome = 'resolved') AS resolved, COUNT(*) AS graded,
               ROUND(1.0 * SUM(outcome = 'resolved') / COUNT(*), 3) AS share
        FROM runs_summary
        WHERE counts AND outcome IN ('resolved', 'unresolved', 'no_patch') AND (:sweep = '' OR sweep_id = :sweep)
        GROUP BY sweep_id, agent, engine, model
        ORDER BY sweep_id DESC, share DESC
        """,
    ),
    "how_runs_ended": Query(
        "How runs ended",
        "By ending and verdict, with whose fault the ending is and whether the run counts.",
        """
        SELECT sweep_id, agent, ended_by, verdict, outcome, fault, counts, COUNT(*) AS runs
        FROM runs JOIN outcomes USING (ended_by, verdict) JOIN endings USING (ended_by)
        WHERE :sweep = '' OR sweep_id = :sweep
        GROUP BY sweep_id, agent, ended_by, verdict
        ORDER BY sweep_id DESC, agent, runs DESC
        """,
    ),
    "calls_of_a_run": Query(
        "Calls of a run",
        "In their order, with the joules of each: its own figure, else (an estimate) its share by seconds.",
        """
        SELECT call_index, status, input_tokens, cached_tokens, output_tokens, queued_s, first_token_s,
               calls.duration_s, finish_reason, error,
               CASE WHEN COUNT(phase) = COUNT(joules) THEN SUM(joules) END AS joules,
               CASE WHEN COUNT(phase) = COUNT(spread_j) THEN SUM(spread_j) END AS spread_j
        FROM calls LEFT JOIN call_energy USING (run_id, call_index)
        WHERE run_id = :run GROUP BY call_index ORDER BY call_index
        """,
    ),
    "energy_by_phase": Query(
        "Energy by phase",
        "Gross joules of the source that each run's energy is of, summed over valid runs. A clock has no phases.",
        """
        SELECT runs.sweep_id, agent, model, phase, energy.kind, energy.coverage, COUNT(joules) AS runs,
               SUM(joules) AS joules
        FROM energy JOIN runs USING (run_id) JOIN endings USING (ended_by)
        WHERE energy.source = runs.energy_source AND component = 'total' AND layer = 'gross' AND counts
              AND phase IN ('load', 'prefill', 'decode', 'between_calls', 'tail')
              AND (:sweep = '' OR runs.sweep_id = :sweep)
        GROUP BY runs.sweep_id, agent, engine, model, phase, energy.kind, energy.coverage
        ORDER BY runs.sweep_id DESC, agent, model, joules DESC
        """,
    ),
    "dearest_calls": Query(
        "The longest calls",
        "Of one sweep, the hundred that took longest.",
        """
        SELECT calls.run_id, call_index, agent, model, task, calls.duration_s, calls.input_tokens,
               calls.output_tokens, status
        FROM runs JOIN calls USING (run_id) WHERE sweep_id = :sweep AND sent
        ORDER BY calls.duration_s DESC LIMIT 100
        """,
    ),
    "failed_calls": Query(
        "Calls that failed",
        "What went wrong between agents and models, and what agents were answered.",
        """
        SELECT sweep_id, agent, model, status, http_status, COUNT(*) AS calls, COUNT(DISTINCT run_id) AS runs,
               MIN(error) AS example
        FROM runs JOIN calls USING (run_id)
        WHERE status != 'ok' AND (:sweep = '' OR sweep_id = :sweep)
        GROUP BY sweep_id, agent, engine, model, status, http_status ORDER BY calls DESC
        """,
    ),
    "guards": Query(
        "What guards did about loops",
        "By kind of loop, with how many of the runs were resolved all the same.",
        """
        SELECT sweep_id, agent, model, guard, action, kind, COUNT(*) AS times, COUNT(DISTINCT run_id) AS runs,
               COUNT(DISTINCT CASE WHEN verdict = 'resolved' THEN run_id END) AS resolved_runs
        FROM interventions JOIN runs USING (run_id)
        WHERE :sweep = '' OR sweep_id = :sweep
        GROUP BY sweep_id, agent, engine, model, guard, action, kind ORDER BY times DESC
        """,
    ),
    "flagged_runs": Query(
        "Flags of runs",
        "How often each flag was raised, what it means, and whether it leaves a run out of energy and time.",
        """
        SELECT runs.sweep_id, flags.flag, leaves_out, COUNT(*) AS runs, meaning
        FROM runs, json_each(runs.flags) AS said
             JOIN flags ON flags.flag = substr(said.value, 1, instr(said.value || ':', ':') - 1)
        WHERE :sweep = '' OR runs.sweep_id = :sweep
        GROUP BY runs.sweep_id, flags.flag ORDER BY runs.sweep_id DESC, runs DESC
        """,
    ),
    "claims_and_verdicts": Query(
        "What agents claimed and what the tests said",
        "A claim of success beside a test that fails is the false success of docs/loops.md.",
        """
        SELECT sweep_id, agent, model, COALESCE(claimed, 'none') AS claimed, verdict, COUNT(*) AS runs
        FROM runs WHERE :sweep = '' OR sweep_id = :sweep
        GROUP BY sweep_id, agent, engine, model, claimed, verdict ORDER BY sweep_id DESC, agent, runs DESC
        """,
    ),
}


def metadata(database: str) -> dict[str, Any]:
    """What Datasette is to be told of a database that it serves under this name (its file's, without the ending)."""
    tables = {
        table: {"description": meaning, "columns": COLUMNS.get(table, {}), **_units(COLUMNS.get(table, {}))}
        for table, meaning in TABLES.items()
    }
    queries = {
        name: {"title": query.title, "description": query.description, "sql": query.sql}
        for name, query in QUERIES.items()
    }
    return {
        "title": "agent-energy-harness",
        "description": "An empty figure is an unknown one, never a zero. Every figure of energy has a kind and a "
        "coverage; those of different kinds, coverages or machines are never put together.",
        "databases": {database: {"tables": tables, "queries": queries}},
    }


def _units(columns: Mapping[str, str]) -> dict[str, Any]:
    found = {name: unit for name in columns for ending, unit in UNITS.items() if name.endswith(ending)}
    return {"units": found} if found else {}
