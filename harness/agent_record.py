"""The dated record of what was tried with an agent at its pinned version: `conformance.json`, and a page of it.

`harness agents check --record` writes its first part, `harness agents record` its second.

It lies in the agent's folder. Three readers: people (`CONFORMANCE.md`), the matrix in docs/agents.md, and the plan,
which refuses a model whose window is smaller than the agent's first request is known to be.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.errors import UserError
from harness.manifests import RECORD, RECORD_PAGE, Agent

if TYPE_CHECKING:
    from sqlite_utils import Database

    from harness.conformance.check import NotTried, Tried
    from harness.images.bundle import Bundle


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ScenarioRow(_Row):
    """A run against a scripted model."""

    scenario: str
    shows: str
    protocol: str | None
    ended_by: str
    says: str | None  # the framework's own word for its ending
    verdict: str
    calls: int | None
    agent_s: float
    first_request_bytes: int | None  # body of the first request
    problems: tuple[str, ...]


class ModelRow(_Row):
    """A run with a real model, out of a database. Tokens are the gateway's; `own_…` those that the framework counts."""

    engine: str
    engine_version: str | None
    model: str
    num_ctx: int
    protocol: str
    suite: str
    task: str
    image_source: str
    ended_by: str
    says: str | None
    verdict: str
    calls: int
    input_tokens: int | None
    output_tokens: int | None
    own_input_tokens: int | None
    own_output_tokens: int | None
    agent_s: float
    first_request_tokens: int | None


class Record(_Row):
    agent: str
    version: str
    commit: str | None
    lock: str | None  # the lock file's hash, first 16 digits
    recorded_on: str  # UTC, ISO 8601
    harness_version: str
    machine: str
    python: str | None
    bundle_bytes: int | None
    issue_bytes: int  # of the scenarios' task
    scenarios: tuple[ScenarioRow, ...]
    not_tried: tuple[str, ...]
    models: tuple[ModelRow, ...]


def lock_hash(agent: Agent) -> str | None:
    return hashlib.sha256(agent.lock.read_bytes()).hexdigest()[:16] if agent.lock else None


def read(agent: Agent) -> Record | None:
    """The record of exactly this version, or None: it has none, or that of another pin.

    Raises UserError for a file that is not what `write` writes.
    """
    file = agent.folder / RECORD
    if not file.is_file():
        return None
    try:
        record = Record.model_validate_json(file.read_bytes())
    except (ValidationError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{file} is no record of `harness agents check --record`: {reason}; remove it") from error
    source = agent.manifest.source
    pin = (agent.manifest.version, source.commit if source else None, lock_hash(agent))
    return record if (record.version, record.commit, record.lock) == pin else None


def first_request_tokens(agent: Agent, model: str, protocol: str) -> int | None:
    """The smallest first request that is on record in a protocol: with this model, else with any. None: unknown."""
    record = read(agent)
    rows = [row for row in record.models if row.protocol == protocol and row.first_request_tokens] if record else []
    same = [row for row in rows if row.model == model] or rows
    return min((row.first_request_tokens for row in same if row.first_request_tokens), default=None)


def write(
    agent: Agent,
    bundle: Bundle | None,
    tried: Sequence[Tried],
    not_tried: Sequence[NotTried],
    machine: str,
    issue_bytes: int,
) -> list[Path]:
    """Write what came of the scenarios; runs with real models that are on record for the same pin stay. Returns the
    files."""
    from harness import __version__

    before = read(agent)
    source = agent.manifest.source
    record = Record(
        agent=agent.name,
        version=agent.manifest.version,
        commit=source.commit if source else None,
        lock=lock_hash(agent),
        recorded_on=_today(),
        harness_version=__version__,
        machine=machine,
        python=f"{bundle.python_version} ({bundle.runtime})" if bundle else None,
        bundle_bytes=bundle.size_bytes if bundle else None,
        issue_bytes=issue_bytes,
        scenarios=tuple(_scenario_row(each) for each in tried),
        not_tried=tuple(f"{each.scenario.name} ({each.protocol}): {each.why}" for each in not_tried),
        models=before.models if before else (),
    )
    return _store(agent, record)


def write_models(agent: Agent, models: Sequence[ModelRow]) -> list[Path]:
    """Put runs with real models into the record, in the place of those that it has. Returns the files.

    Raises UserError when there is no record of this pin.
    """
    before = read(agent)
    if before is None:
        who = f"{agent.name} {agent.manifest.version}"
        raise UserError(f"agent {who} has no record yet: `harness agents check {agent.name} --record`")
    return _store(agent, before.model_copy(update={"models": tuple(models), "recorded_on": _today()}))


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _store(agent: Agent, record: Record) -> list[Path]:
    files = [agent.folder / RECORD, agent.folder / RECORD_PAGE]
    files[0].write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
    files[1].write_text(page(record), encoding="utf-8")
    return files


def model_rows(db: Database, agent: Agent, sweeps: Sequence[str]) -> list[ModelRow]:
    """The runs of an agent at its pinned version in stored sweeps, those with real models. Raises UserError when a
    sweep has none."""
    rows: list[ModelRow] = []
    source = agent.manifest.source
    for sweep in sweeps:
        found = list(
            db.query(
                """SELECT runs.*, COALESCE(first.input_tokens, first.refused_tokens) AS first_request_tokens
                   FROM runs LEFT JOIN calls AS first ON first.run_id = runs.run_id AND first.call_index = 0
                   WHERE sweep_id = ? AND agent = ? AND agent_version = ? AND agent_commit IS ?
                         AND engine NOT IN ('none', 'scripted')
                   ORDER BY runs.task""",
                [sweep, agent.name, agent.manifest.version, source.commit if source else None],
            )
        )
        if not found:
            raise UserError(f"sweep {sweep} has no run of {agent.name} {agent.manifest.version} with a real model")
        rows += [_model_row(run) for run in found]
    return rows


def page(record: Record) -> str:
    """The record for people, in Markdown."""
    commit = f", commit `{record.commit}`" if record.commit else ""
    bad = [row for row in record.scenarios if row.problems]
    lines = [
        f"# {record.agent} {record.version}: what was tried",
        "",
        f"Written on {record.recorded_on} by `harness agents check {record.agent} --record` and "
        "`harness agents record`; not to be edited.",
        "",
        f"Version {record.version}{commit}; Python {record.python or 'none'}; harness {record.harness_version}; "
        f"{record.machine}.",
        "",
        "## Against a scripted model",
        "",
        f"{len(record.scenarios) - len(bad)} of {len(record.scenarios)} scenarios came out as they should.",
        "",
        "| scenario | protocol | ended by | its own word | verdict | calls | seconds | |",
        "|---|---|---|---|---|---:|---:|---|",
        *(
            f"| {row.scenario}: {row.shows} | {row.protocol} | {row.ended_by} | {_cell(row.says)} | {row.verdict} | "
            f"{_cell(row.calls)} | {row.agent_s:.1f} | {_cell('; '.join(row.problems) or 'as it should be')} |"
            for row in record.scenarios
        ),
    ]
    if record.not_tried:
        lines += ["", "Not tried: " + "; ".join(record.not_tried) + "."]
    lines += ["", "## With real models", ""]
    if not record.models:
        lines += ["No run is on record."]
    for (engine, version, model, suite), rows in _grouped(record.models).items():
        resolved = sum(row.verdict == "resolved" for row in rows)
        lines += [
            f"### {model} on {engine} {version or ''}, suite {suite}".replace(" ,", ","),
            "",
            f"{len(rows)} runs, {resolved} resolved; means: {_mean([row.calls for row in rows])} calls, "
            f"{_mean([row.input_tokens for row in rows])} tokens in, {_mean([row.output_tokens for row in rows])} out, "
            f"{_mean([row.agent_s for row in rows])} s.",
            "",
            "| task | protocol | window | ended by | its own word | verdict | calls | tokens in | out | seconds "
            "| first request |",
            "|---|---|---:|---|---|---|---:|---:|---:|---:|---:|",
            *(
                f"| {row.task} | {row.protocol} | {row.num_ctx} | {row.ended_by} | {_cell(row.says)} | {row.verdict} | "
                f"{row.calls} | {_cell(row.input_tokens)} | {_cell(row.output_tokens)} | {row.agent_s:.1f} | "
                f"{_cell(row.first_request_tokens)} |"
                for row in rows
            ),
            "",
        ]
    return "\n".join(lines).rstrip() + "\n"


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
    names = set(ModelRow.model_fields) - {"own_input_tokens", "own_output_tokens", "says", "agent_s"}
    return ModelRow(
        **{name: run[name] for name in names},
        says=run["claim_message"],
        agent_s=round(run["agent_s"], 1),
        own_input_tokens=_count(own.get("input_tokens")),
        own_output_tokens=_count(own.get("output_tokens")),
    )


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _grouped(rows: Sequence[ModelRow]) -> dict[tuple[str, str | None, str, str], list[ModelRow]]:
    groups: dict[tuple[str, str | None, str, str], list[ModelRow]] = {}
    for row in rows:
        groups.setdefault((row.engine, row.engine_version, row.model, row.suite), []).append(row)
    return groups


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{fmean(known):,.1f}" if known else "unknown"


def _cell(value: object) -> str:
    """A cell of a Markdown table; unknown is a dash."""
    return "–" if value is None else str(value).replace("|", "\\|").replace("\n", " ")[:120]
