"""The dated record of what was tried with an agent at its pin, as it lies in the agent's folder (`conformance.json`).

`harness agents check --record` writes one part of it, `harness agents record` the other (conformance/record.py).
Three readers: people (`CONFORMANCE.md`), the matrix in docs/agents.md, and the plan, which refuses a model whose window
is smaller than the agent's first request to it is known to be.
"""

from __future__ import annotations

import hashlib

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.errors import UserError
from harness.manifests import RECORD, Agent


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True)


class Pin(_Row):
    """What a record is of. With any other it is the record of something else."""

    version: str
    commit: str | None
    lock: str | None  # hash of the lock file, first 16 digits
    runner: str  # hash of the runner, first 16 digits


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
    counts: bool  # whether it is a valid measurement
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
    pin: Pin
    harness_version: str
    machine: str  # of the scenarios
    python: str | None
    bundle_bytes: int | None
    issue_bytes: int  # of the scenarios' task, as JSON
    scenarios_on: str  # UTC, ISO 8601
    scenarios: tuple[ScenarioRow, ...]
    not_tried: tuple[str, ...]
    models_on: str | None = None
    models_machine: str | None = None
    models: tuple[ModelRow, ...] = ()


def pin_of(agent: Agent) -> Pin:
    source = agent.manifest.source
    return Pin(
        version=agent.manifest.version,
        commit=source.commit if source else None,
        lock=hashlib.sha256(agent.lock.read_bytes()).hexdigest()[:16] if agent.lock else None,
        runner=hashlib.sha256((agent.folder / agent.manifest.runner).read_bytes()).hexdigest()[:16],
    )


def read(agent: Agent) -> Record | None:
    """The record of exactly this pin, or None: there is none, or that of another pin.

    Raises UserError for a file that is no record.
    """
    file = agent.folder / RECORD
    if not file.is_file():
        return None
    try:
        record = Record.model_validate_json(file.read_bytes())
    except (ValidationError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{file} is no record of `harness agents check --record`: {reason}; remove it") from error
    return record if record.pin == pin_of(agent) else None


def first_request_tokens(agent: Agent, model: str, protocol: str, suite: str) -> int | None:
    """The smallest first request on record to this model in a protocol, on this suite or on the suite smoke, whose
    issues are short. None: unknown, since other models have other tokenizers."""
    try:
        record = read(agent)
    except UserError:  # a plan can do without; `harness agents check` names the file
        return None
    rows = record.models if record else ()
    return min(
        (
            row.first_request_tokens
            for row in rows
            if row.first_request_tokens is not None
            and (row.model, row.protocol) == (model, protocol)
            and row.suite in ("smoke", suite)
        ),
        default=None,
    )
