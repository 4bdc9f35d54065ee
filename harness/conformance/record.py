"""Writing an agent's record: what came of its scenarios, and its runs with real models out of a database."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from harness import __version__
from harness.agent_record import ModelRow, Record, ScenarioRow, pin_of, read
from harness.conformance.check import NotTried, Tried
from harness.conformance.page import page
from harness.conformance.scenarios import smoke_task
from harness.errors import MachineError, UserError
from harness.images.bundle import Bundle
from harness.manifests import RECORD, RECORD_PAGE, Agent


def check_writable(agent: Agent) -> None:
    """Raises before hours are spent: UserError for a file in the way that is no record, MachineError for a folder that
    can't be written."""
    read(agent)
    if any((agent.folder / name).exists() and not (agent.folder / name).is_file() for name in (RECORD, RECORD_PAGE)):
        raise UserError(
            f"{agent.folder}: {RECORD} and {RECORD_PAGE} have to be files: remove what stands in their place"
        )
    if not os.access(agent.folder, os.W_OK):
        raise MachineError(f"the record can't be written into {agent.folder}: copy the agent to a folder of yours")


def write_scenarios(
    agent: Agent, bundle: Bundle | None, tried: Sequence[Tried], not_tried: Sequence[NotTried], facts: dict[str, Any]
) -> list[Path]:
    """Write what came of the scenarios; the runs with models on record for this pin stay. Returns the files."""
    before = read(agent)
    record = Record(
        agent=agent.name,
        pin=pin_of(agent),
        harness_version=__version__,
        machine=_named(facts),
        python=f"{bundle.python_version} ({bundle.runtime})" if bundle else None,
        bundle_bytes=bundle.size_bytes if bundle else None,
        issue_bytes=len(json.dumps(smoke_task().instruction)) - 2,
        scenarios_on=_today(),
        scenarios=tuple(_scenario_row(each) for each in tried),
        not_tried=tuple(f"{each.scenario.name} ({each.protocol}): {each.why}" for each in not_tried),
        models_on=before.models_on if before else None,
        models_machine=before.models_machine if before else None,
        models=before.models if before else (),
    )
    return _store(agent, record)


def write_models(agent: Agent, db: Database, sweeps: Sequence[str]) -> list[Path]:
    """Put the agent's runs with real models in stored sweeps into the record, in the place of those that it has.
    Returns the files.

    Raises UserError when there is no record of this pin, a sweep has no such run, or the runs are of several machines.
    """
    before = read(agent)
    if before is None:
        who = f"{agent.name} {agent.manifest.version}"
        raise UserError(f"agent {who} has no record yet: `harness agents check {agent.name} --record`")
    found: list[dict[str, Any]] = []
    for sweep in sweeps:
        runs = list(db.query(RUNS, [sweep, agent.name, agent.manifest.version, before.pin.commit]))
        if not runs:
            raise UserError(f"sweep {sweep} has no run of {agent.name} {agent.manifest.version} with a real model")
        found += runs
    if len({run["machine_id"] for run in found}) > 1:
        raise UserError("the sweeps were made on several machines: rows of different machines are never pooled")
    facts = json.loads(found[0]["facts"])
    rows = tuple(_model_row(run) for run in found)
    update = {"models": rows, "models_on": _today(), "models_machine": _named(facts)}
    return _store(agent, before.model_copy(update=update))


RUNS = """
SELECT runs.*, endings.counts, machines.facts,
       (SELECT COALESCE(calls.input_tokens, calls.refused_tokens) FROM calls
        WHERE calls.run_id = runs.run_id AND COALESCE(calls.input_tokens, calls.refused_tokens) IS NOT NULL
        ORDER BY call_index LIMIT 1) AS first_request_tokens
FROM runs JOIN endings USING (ended_by) JOIN machines USING (machine_id)
WHERE sweep_id = ? AND agent = ? AND agent_version = ? AND agent_commit IS ? AND engine NOT IN ('none', 'scripted')
ORDER BY runs.task
"""


def _store(agent: Agent, record: Record) -> list[Path]:
    files = {RECORD: record.model_dump_json(indent=1) + "\n", RECORD_PAGE: page(record)}
    for name, text in files.items():
        part = agent.folder / f"{name}.part"
        part.write_text(text, encoding="utf-8")
        part.rename(agent.folder / name)
    return [agent.folder / name for name in files]


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _named(facts: dict[str, Any]) -> str:
    """A machine for people."""
    return f"{facts['cpu'] or 'a processor without a name'}, {facts['cores']} cores"


def _scenario_row(tried: Tried) -> ScenarioRow:
    row = tried.row
    return ScenarioRow(
        scenario=tried.scenario.name,
        shows=tried.scenario.shows,
        protocol=tried.protocol,
        ended_by=row["ended_by"],
        says=row["claim_message"],
        verdict=row["verdict"],
        calls=row["calls"],
        agent_s=round(row["agent_s"], 1),
        first_request_bytes=tried.calls[0].request_bytes if tried.calls else None,
        problems=tuple(tried.problems),
    )


def _model_row(run: dict[str, Any]) -> ModelRow:
    own = json.loads(run["claim_details"] or "{}")
    own = own if isinstance(own, dict) else {}
    names = set(ModelRow.model_fields) - {"own_input_tokens", "own_output_tokens", "says", "agent_s", "counts"}
    return ModelRow(
        **{name: run[name] for name in names},
        says=run["claim_message"],
        agent_s=round(run["agent_s"], 1),
        counts=bool(run["counts"]),
        own_input_tokens=_count(own.get("input_tokens")),
        own_output_tokens=_count(own.get("output_tokens")),
    )


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
