"""Trying an agent: every scenario is a run as in a sweep, in the same sandbox, through the same gateway and grading."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import docker

from harness import machine, paths
from harness.bench import Bench
from harness.conformance import speech as speeches
from harness.conformance.scenarios import RUNS, RUNS_UNROOTED, SCENARIOS, TASK, Scenario, capabilities_of
from harness.conformance.speech import Speech
from harness.engines.scripted import Scripted
from harness.gateway.ledger import CallRecord
from harness.gateway.server import Gateway
from harness.guest import STATUSES
from harness.images import bundle
from harness.images.bases import Say
from harness.images.locate import prepare_all
from harness.images.prepare import IN_USE
from harness.manifests import Agent
from harness.plan import Plan, Protocol, make_plan, resolve_model
from harness.rows import run_row
from harness.run import GRACE_S, execute
from harness.sandbox import daemon
from harness.spec import Spec
from harness.store.artefacts import read_lines
from harness.suites import Suite, choose, load_suite

OUTPUT_LINES = 20


@dataclass
class Tried:
    """What came of a scenario."""

    scenario: Scenario
    protocol: Protocol | None
    row: dict[str, Any] = field(default_factory=dict)  # as in the table `runs`
    calls: list[CallRecord] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    output: list[str] = field(default_factory=list)  # the last lines that the runner printed


@dataclass(frozen=True)
class NotTried:
    scenario: Scenario
    protocol: Protocol
    why: str


Chosen = tuple[Scenario, Protocol | None, Speech | None]
"""A scenario with the protocol it is tried in and how the model speaks; both None where no model is called."""


def to_try(agent: Agent) -> tuple[list[Chosen], list[NotTried]]:
    """The scenarios that fit an agent, each in the protocols it is for, and those for which its plays are missing.

    Raises UserError for a play that is malformed.
    """
    if not agent.manifest.calls_model:
        alone = (RUNS, RUNS_UNROOTED) if agent.manifest.non_root else (RUNS,)
        return [(scenario, None, None) for scenario in alone], []
    spoken: list[Protocol] = list(agent.manifest.protocols)
    known = {protocol: speeches.find(agent, protocol) for protocol in spoken}
    fitting: list[Chosen] = []
    missing: list[NotTried] = []
    for scenario in SCENARIOS:
        if scenario.user == "agent" and not agent.manifest.non_root:
            continue
        wanted = [protocol for protocol in scenario.protocols if protocol in spoken]
        if not wanted and scenario.protocols == ("text",):
            wanted = spoken[:1]
        for protocol in wanted:
            speech = known[protocol]
            if speech is None and scenario.speaks:
                missing.append(NotTried(scenario, protocol, f"there is no plays/{protocol}.toml"))
            elif scenario.needs_commands and speech and not speech.takes_commands:
                continue  # its model can't have a command run, so there is nothing to try
            else:
                fitting.append((scenario, protocol, speech))
    return fitting, missing


def try_agent(
    client: docker.DockerClient,
    agent: Agent,
    chosen: Sequence[Chosen],
    say: Say,
) -> Iterator[Tried]:
    """Make the runs, one after another. Raises UserError and MachineError as a sweep does before its first run."""
    suite = choose(load_suite("smoke"), [TASK], None)
    with contextlib.ExitStack() as clean_up, tempfile.TemporaryDirectory(prefix="harness-check-") as folder:
        runs_dir = Path(folder)
        clean_up.enter_context(paths.lock(IN_USE, shared=True))
        users = {scenario.user for scenario, _, _ in chosen}
        prepared = {user: prepare_all(client, suite, paths.cache() / "logs", say, user) for user in users}
        made = bundle.ensure(client, agent, say)
        engine = Scripted()
        clean_up.callback(engine.close)
        gateway = Gateway(engine)
        clean_up.callback(gateway.close)
        cores = int(client.info()["NCPU"])
        machine_id = machine.machine_id(machine.facts(daemon.facts(client)))
        for number, (scenario, protocol, speech) in enumerate(chosen):
            play = runs_dir / f"{number:02d}-{scenario.name}-{protocol}.toml"
            if protocol is not None:
                speeches.write(
                    play, list(scenario.answers(speech)), repeat=scenario.repeat,
                    capabilities=capabilities_of(scenario, protocol),
                    context_tokens=speech.play.context_tokens if speech else None,
                )  # fmt: skip
            plan = _plan(agent, scenario, protocol, engine, play, suite)
            bench = Bench(
                client, cores, plan, "check", runs_dir, prepared[scenario.user],
                {agent.name: made} if made else {}, {engine.name: gateway}, None, threading.Event(),
                elsewhere=daemon.elsewhere(client),
            )  # fmt: skip
            yield _try(bench, scenario, protocol, f"check-{number:04d}", machine_id)


def _plan(
    agent: Agent, scenario: Scenario, protocol: Protocol | None, engine: Scripted, play: Path, suite: Suite
) -> Plan:
    spec = Spec(
        agents=[agent.name], models=[f"scripted/{play}"], tasks="smoke", retries=0, protocol=protocol or "auto",
        max_calls=scenario.max_calls, time_limit_s=scenario.time_limit_s, num_predict=scenario.num_predict,
        think=scenario.thinks, sandbox_user=scenario.user,
    )  # fmt: skip
    models = {"scripted": resolve_model(engine, engine.describe(str(play)), spec)} if protocol else {}
    return make_plan(spec, suite, [agent], [], models)


def _try(bench: Bench, scenario: Scenario, protocol: Protocol | None, run_id: str, machine_id: str) -> Tried:
    [planned] = bench.plan.runs
    finished = execute(bench, planned, run_id, lambda _: None)
    tried = Tried(scenario, protocol, run_row(bench, planned, run_id, 1, machine_id, finished))
    folder = bench.runs_dir / bench.sweep_id / run_id
    with contextlib.suppress(FileNotFoundError):
        tried.output = [line.rstrip() for line in deque(read_lines(folder, "agent.log.gz"), OUTPUT_LINES)]
    tried.calls = finished.calls or []
    tried.problems = problems(scenario, tried.row, finished.patch.decode(errors="replace"), tried.calls)
    return tried


def problems(scenario: Scenario, row: dict[str, Any], patch: str, calls: Sequence[CallRecord]) -> list[str]:
    """What a user must mend, each in a sentence; empty when all is as it should be."""
    found = []
    ended_by, detail = row["ended_by"], row["ended_detail"] or "no more is known"
    if ended_by not in scenario.ended_by:
        found.append(f"it ended by {ended_by} ({detail}), expected {' or '.join(scenario.ended_by)}")
    if scenario.verdict and row["verdict"] != scenario.verdict:
        why = "nothing in HARNESS_WORKDIR was changed" if row["verdict"] == "empty_patch" else "its tests failed"
        found.append(f"the verdict is {row['verdict']}: {row['verdict_detail'] or why}")
    if scenario.patch_has and scenario.patch_has not in patch:
        found.append(f"the work directory's difference has no {scenario.patch_has!r}")
    by_itself = ended_by in ("submitted", "gave_up", "format_failure", "crashed")
    if by_itself and row["exit_code"] and scenario.ended_by != ("crashed",):
        found.append(f"its runner ended with exit code {row['exit_code']}: it ends with 0 when it ends by itself")
    if row["exit_code"] == 0 and row["claimed"] is None:
        found.append("it ended by itself and left no result file: see HARNESS_RESULT_FILE in agents/README.md")
    if row["claimed"] == "unreadable":
        found.append(f"its result file is not an object with a status of {', '.join(STATUSES)}")
    if found and row["claim_message"]:
        found.append(f"its own word is: {row['claim_message']}")
    if row["calls"] == 0 and row["exit_code"] == 0:
        found.append("it made no call to the model: see OPENAI_BASE_URL in agents/README.md")
    allowed_s = scenario.time_limit_s + 3 * GRACE_S
    if row["agent_s"] > allowed_s:
        found.append(f"it took {row['agent_s']:.0f} s, {allowed_s:.0f} s were allowed")
    lost_s = _after_the_first_error(row, calls)
    if scenario.within_s is not None and lost_s > scenario.within_s:
        found.append(f"it went on for {lost_s:.0f} s after the first error, {scenario.within_s:.0f} s are allowed")
    return found


def _after_the_first_error(row: dict[str, Any], calls: Sequence[CallRecord]) -> float:
    """Seconds from the end of the first call that failed to the end of the agent stage; 0 when none did."""
    failed = next((call for call in calls if call.status != "ok"), None)
    if failed is None:
        return 0.0
    known_at = datetime.fromisoformat(failed.started_at) + timedelta(seconds=failed.duration_s)
    ended_at = datetime.fromisoformat(row["started_at"]) + timedelta(seconds=row["setup_s"] + row["agent_s"])
    return max(0.0, (ended_at - known_at).total_seconds())
