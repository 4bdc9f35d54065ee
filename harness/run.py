"""One run, start to end: setup, agent, grading. What it finds is returned; the sweep stores it."""

from __future__ import annotations

import json
import shutil
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import docker

from harness import guest
from harness.ending import Evidence, name_the_ending
from harness.engines.base import EngineStuck, Readiness
from harness.errors import MachineError
from harness.gateway.ledger import CallRecord
from harness.gateway.policy import Policy
from harness.gateway.server import Door, Gateway
from harness.grading.harbor import Grade, grade
from harness.meter.energy import Energy, EnergyMeter, unavailable
from harness.meter.sampler import Sampler, Usage
from harness.outcome import EndedBy
from harness.plan import Plan, PlannedRun
from harness.sandbox.bundle import Bundle
from harness.sandbox.container import Container, Exit, Limits, SandboxError, running
from harness.sandbox.leftovers import socket_dir_prefix, socket_root
from harness.sandbox.prepare import Prepared
from harness.store.artefacts import Artefact, keep

GRACE_S = 5.0  # after a limit: for the agent to end by itself, and again between SIGTERM and SIGKILL
POLL_S = 0.05
LOOK_S = 1.0  # between questions to Docker whether the runner has ended
DRAIN_S = 0.5  # for the last of its output, once it has
LOG_BYTES = 16 << 20
OUT_BYTES = 64 << 20  # of what the agent leaves in its out folder
DEFAULT_CPUS = 2.0
DEFAULT_MEMORY_BYTES = 4 << 30
DEFAULT_DISK_BYTES = 10 << 30
HOUSEKEEPING_S = 300.0  # a container lives at most this much longer than its agent may


@dataclass(frozen=True)
class Bench:
    """What the runs of a sweep share."""

    client: docker.DockerClient
    cores: int  # that Docker has
    plan: Plan
    sweep_id: str
    runs_dir: Path
    images: dict[str, Prepared]  # by task name
    bundles: dict[str, Bundle]  # by agent name
    gateways: dict[str, Gateway]  # by engine name
    energy: EnergyMeter
    cancelled: threading.Event


@dataclass
class Finished:
    """A run that ended, whichever way."""

    ended_by: EndedBy
    detail: str | None
    started_at: str
    ended_at: str = ""
    exit: Exit | None = None
    claimed: str | None = None
    grade: Grade = field(default_factory=lambda: Grade("not_gradable", "the run did not come to it", None, b""))
    calls: list[CallRecord] | None = None  # None where no model is called
    usage: Usage = field(default_factory=Usage)
    energy: list[Energy] = field(default_factory=unavailable)
    readiness: Readiness | None = None
    patch: bytes = b""
    setup_s: float = 0.0
    agent_s: float = 0.0
    grading_s: float = 0.0
    duration_s: float = 0.0
    flags: list[str] = field(default_factory=list)
    artefacts: list[Artefact] = field(default_factory=list)


def execute(bench: Bench, planned: PlannedRun, run_id: str, on_stage: Callable[[str], None]) -> Finished:
    """Run one agent on one task and grade what it left.

    A fault of the machine gives a Finished that says so; only a bug raises.
    """
    began = time.monotonic()
    folder = bench.runs_dir / bench.sweep_id / run_id
    shutil.rmtree(folder, ignore_errors=True)  # what a killed harness left of this run
    folder.mkdir(parents=True)
    finished = Finished("sandbox_error", None, _now())
    try:
        on_stage("setup")
        _agent_stage(bench, planned, run_id, folder, finished, began, on_stage)
        if finished.ended_by != "cancelled":
            on_stage("grading")
            graded_from = time.monotonic()
            finished.grade = grade(
                bench.client, planned.task, bench.images[planned.task.name], finished.patch,
                _limits(bench, planned, planned.task.test_timeout_s), sweep=bench.sweep_id, run=run_id,
            )  # fmt: skip
            finished.grading_s = time.monotonic() - graded_from
    except MachineError as error:
        finished.ended_by, finished.detail = "sandbox_error", str(error)
    finished.ended_at, finished.duration_s = _now(), time.monotonic() - began
    for name, content in (("patch.diff", finished.patch), ("tests.log", finished.grade.log)):
        if content:
            finished.artefacts.append(keep(bench.runs_dir, folder, name, content))
    return finished


def _agent_stage(
    bench: Bench,
    planned: PlannedRun,
    run_id: str,
    folder: Path,
    finished: Finished,
    began: float,
    on_stage: Callable[[str], None],
) -> None:
    plan, prepared = bench.plan, bench.images[planned.task.name]
    bundle = bench.bundles.get(planned.agent.name)
    model = planned.model
    door: Door | None = None
    # The path of a socket may not exceed 107 bytes, whatever the runs folder is called.
    with (
        tempfile.TemporaryDirectory(prefix=socket_dir_prefix(), dir=socket_root()) as socket_dir,
        (folder / "agent.log").open("wb") as log,
    ):
        Path(socket_dir).chmod(0o755)  # the container's root, without capabilities, is nobody special
        try:
            if model:
                try:
                    finished.readiness = model.engine.prepare(model.info.name, model.num_ctx)
                except MachineError as error:
                    finished.ended_by, finished.detail = "model_error", str(error)
                    return
                door = bench.gateways[model.info.engine].open(
                    Path(socket_dir, guest.SOCKET_NAME), _policy(plan, planned), model.info, folder
                )
            visit = guest.Visit(planned, plan, prepared.workdir, bundle, door.key if door else None)
            with running(
                bench.client, prepared.image, kind="run", limits=_limits(bench, planned, plan.spec.time_limit_s),
                files=visit.files(), sweep=bench.sweep_id, run=run_id,
                mounts=visit.mounts(socket_dir if door else None),
            ) as container:  # fmt: skip
                if door:
                    visit.start_forwarder(container)
                engine_bytes = model.engine.memory_bytes if model else None
                sampler = Sampler(container, engine_bytes)
                finished.setup_s = time.monotonic() - began
                on_stage("agent")
                bench.energy.open(run_id)
                sampler.start()
                agent_from = time.monotonic()
                try:
                    stopped = _watch(bench, container, visit, door, sampler, _capped(log.write, LOG_BYTES), finished)
                finally:
                    finished.agent_s = time.monotonic() - agent_from
                    finished.energy = bench.energy.close(run_id)
                    finished.usage = sampler.stop()
                if door:
                    _close(door, planned, finished)
                alive = container.alive()
                container.kill()
                _collect(bench, container, prepared, folder, finished)
                finished.ended_by, finished.detail = stopped or name_the_ending(
                    Evidence(
                        exit_code=finished.exit.code if finished.exit else None,
                        container_alive=alive,
                        oom_kills=finished.usage.oom_kills,
                        claimed=finished.claimed,
                        calls=[call for call in finished.calls or [] if call.sent],
                        max_calls=plan.spec.max_calls,
                    )
                )
        finally:
            if door:
                finished.calls = door.close()
                for name in ("calls.jsonl", "messages.jsonl"):
                    if (folder / name).exists():
                        finished.artefacts.append(keep(bench.runs_dir, folder, name, folder / name))
            log.close()
            finished.artefacts.append(keep(bench.runs_dir, folder, "agent.log", folder / "agent.log"))


def _watch(
    bench: Bench,
    container: Container,
    visit: guest.Visit,
    door: Door | None,
    sampler: Sampler,
    sink: Callable[[bytes], None],
    finished: Finished,
) -> tuple[EndedBy, str] | None:
    """Start the runner and wait for its end, or for what ends it. Returns why it was ended, or None."""
    command = visit.begin(container)
    ended = threading.Event()
    exits: list[Exit] = []
    failure: list[SandboxError] = []

    def follow() -> None:
        try:
            exits.append(container.follow(command, sink))
        except SandboxError as error:
            failure.append(error)
        finally:
            ended.set()

    began = time.monotonic()
    threading.Thread(target=follow, name="agent", daemon=True).start()
    deadline = began + bench.plan.spec.time_limit_s
    next_look = began + LOOK_S
    reason: tuple[EndedBy, str] | None = None
    while reason is None and not ended.wait(POLL_S):
        now = time.monotonic()
        if door and door.stopped.is_set():
            reason = (door.stop_reason or "sandbox_error", door.stop_detail or "")
        elif bench.cancelled.is_set():
            reason = ("cancelled", "the sweep was interrupted")
        elif sampler.usage.disk_full.is_set():
            wrote, limit = (sampler.usage.disk_bytes or 0) >> 20, container.limits.disk_bytes >> 20
            reason = ("disk_full", f"the sandbox wrote {wrote} MB, its limit is {limit} MB")
        elif now > deadline:
            reason = ("timeout", f"the time limit of {bench.plan.spec.time_limit_s:g} s was reached")
        elif now > next_look:
            next_look = now + LOOK_S
            # A process that the runner left behind may hold its output open: the runner has ended all the same.
            code = container.exit_code(command)
            if code is not None and not ended.wait(DRAIN_S):
                exits.append(Exit(code, now - began))
                break
    if reason and not ended.is_set():
        if door:
            door.stop(*reason)
        grace_s = 0.0 if reason[0] == "cancelled" else GRACE_S
        if not ended.wait(grace_s):
            visit.terminate(container)
            if not ended.wait(grace_s):
                container.kill()
                ended.wait(GRACE_S)
    if failure:
        raise failure[0]
    finished.exit = exits[0] if exits else None
    # A limit that the gateway met in the agent's last breath is how the run ended, too.
    if reason is None and door and door.stopped.is_set():
        reason = (door.stop_reason or "sandbox_error", door.stop_detail or "")
    return reason


def _close(door: Door, planned: PlannedRun, finished: Finished) -> None:
    """Close the door; nothing may decode into the next run."""
    finished.calls = door.close()
    engine = planned.model.engine if planned.model else None
    if engine is None:
        return
    try:
        engine.settle()
    except EngineStuck:
        engine.restart()
        finished.flags.append("engine_restarted")
    sent = [call for call in finished.calls if call.sent]
    if sent and sent[0].cached_tokens:
        finished.flags.append("cached_at_start")
    if any(call.input_tokens is None or call.output_tokens is None for call in sent):
        finished.flags.append("tokens_incomplete")
    if any(call.truncated for call in sent):
        finished.flags.append("answers_truncated")


def _collect(bench: Bench, container: Container, prepared: Prepared, folder: Path, finished: Finished) -> None:
    """Read the dead container: the work directory's difference, the agent's claim, what else it left."""
    difference = prepared.base.difference(container.archive(prepared.workdir))
    finished.patch = difference.patch
    if difference.too_large:
        finished.flags.append("patch_left_out_large_files")
    try:
        archive = container.archive(guest.OUT)
    except FileNotFoundError:
        return
    room = OUT_BYTES
    with tarfile.open(fileobj=archive) as tar:
        for member in tar:
            parts = PurePosixPath(member.name).parts[1:]
            stream = tar.extractfile(member) if member.isfile() and parts and ".." not in parts else None
            if stream is None:
                continue
            if member.size > room:
                finished.flags.append("out_folder_cut")
                break
            room -= member.size
            content = stream.read()
            if parts == (guest.RESULT_NAME,):
                finished.claimed = guest.claim(content)
            finished.artefacts.append(keep(bench.runs_dir, folder, "out/" + "/".join(parts), content))


def _policy(plan: Plan, planned: PlannedRun) -> Policy:
    assert planned.model is not None
    assert planned.protocol is not None
    spec = plan.spec
    return Policy(
        model=planned.model.info.name,
        num_ctx=planned.model.num_ctx,
        num_predict=spec.num_predict,
        temperature=plan.temperature,
        top_p=plan.top_p,
        seed=planned.seed,
        think=spec.think,
        protocol=planned.protocol,
        max_calls=spec.max_calls,
        max_tokens=spec.max_tokens,
        call_timeout_s=spec.time_limit_s,
    )


def _limits(bench: Bench, planned: PlannedRun, longest_s: float) -> Limits:
    """The sweep's limits, where it sets them. Else a task that asks for more than the defaults gets it."""
    spec, task = bench.plan.spec, planned.task
    return Limits(
        cpus=spec.cpus or max(min(DEFAULT_CPUS, bench.cores), task.cpus or 0),
        memory_bytes=(spec.memory_mb << 20) if spec.memory_mb else max(DEFAULT_MEMORY_BYTES, task.memory_bytes or 0),
        disk_bytes=(spec.disk_mb << 20) if spec.disk_mb else max(DEFAULT_DISK_BYTES, task.storage_bytes or 0),
        deadline_s=longest_s + HOUSEKEEPING_S,
    )


def _capped(write: Callable[[bytes], Any], limit: int) -> Callable[[bytes], None]:
    room = limit

    def sink(chunk: bytes) -> None:
        nonlocal room
        if room > 0:
            write(chunk[:room])
            room -= len(chunk)
            if room <= 0:
                write(f"\n[the rest is left out: the limit is {limit >> 20} MB]\n".encode())

    return sink


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def sums(calls: Sequence[CallRecord]) -> dict[str, int | None]:
    """Tokens over the calls that the engine was asked for: the sum of what is known, None if nothing is."""
    totals: dict[str, int | None] = {}
    for name in ("input_tokens", "cached_tokens", "thinking_tokens", "output_tokens"):
        known = [value for call in calls if call.sent and (value := getattr(call, name)) is not None]
        totals[name] = sum(known) if known or not calls else None
    return totals


def call_row(run_id: str, call: CallRecord) -> dict[str, Any]:
    """A call as a row of the table `calls`."""
    row = asdict(call)
    row["call_index"] = row.pop("index")
    row["run_id"] = run_id
    row["call_id"] = f"{run_id}/{call.index}"
    row["asked"] = json.dumps(call.asked)
    return row
