"""One run, start to end: setup, agent, grading. What it finds is returned; the sweep stores it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from harness import guest
from harness.bench import Bench
from harness.ending import Evidence, name_the_ending
from harness.engine_state import ready, spoilt
from harness.engines.base import EngineStuck, Readiness
from harness.errors import MachineError
from harness.gateway.guard import Intervention
from harness.gateway.ledger import CallRecord
from harness.gateway.policy import Policy
from harness.gateway.server import Door
from harness.grading.grade import Grade, grade
from harness.grading.trial import Cancelled, work_directory
from harness.images.prepare import Prepared
from harness.meter.budget import EnergyBudget
from harness.meter.run_energy import RunEnergy, Windows, clocks_apart, none, run_energy
from harness.meter.usage import Targets, Usage, UsageWatch
from harness.outcome import EndedBy
from harness.output import Output
from harness.plan import Plan, PlannedRun
from harness.sandbox import history
from harness.sandbox.archive import TooMuch
from harness.sandbox.command import Exit, Running, SandboxError
from harness.sandbox.container import Container, Limits, running, tar_of
from harness.sandbox.daemon import DockerFault
from harness.sandbox.doors import SOCKET_NAME, shared_folder
from harness.spec import DEFAULT_GUARD_PATIENCE
from harness.store.artefacts import Artefact, keep, settle
from harness.task_limits import task_limits

GRACE_S = 5.0  # after a limit: for the agent to end by itself, and again between SIGTERM and SIGKILL
POLL_S = 0.05
OUT_BYTES = 64 << 20  # of what the agent leaves in its out folder
RESULT_BYTES = 1 << 20
SLOW_S, SLOW_SHARE = 1.0, 0.02  # an agent stage whose edges are known no better than by both of these is flagged


@dataclass
class Finished:
    """A run that ended, whichever way."""

    ended_by: EndedBy
    detail: str | None
    started_at: str
    ended_at: str = ""
    exit: Exit | None = None
    claim: guest.Claim | None = None
    grade: Grade = field(default_factory=lambda: Grade("not_gradable", "the run did not come to it", None, b""))
    calls: list[CallRecord] | None = None  # None where no model is called
    interventions: list[Intervention] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    energy: RunEnergy = field(default_factory=lambda: none("the run did not come to its agent stage"))
    engine_location: str = "none"
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
    finished = Finished("sandbox_error", None, now())
    windows = Windows(clocks=(clocks_apart(), 0.0))
    try:
        on_stage("setup")
        _agent_stage(bench, planned, run_id, folder, finished, windows, began, on_stage)
        if finished.ended_by != "cancelled" and finished.grade.verdict != "patch_rejected":
            on_stage("grading")
            graded_from = time.monotonic()
            limits = task_limits(planned.task, bench.cores, bench.plan.spec)
            finished.grade = _graded(bench, planned, run_id, finished.patch, limits)
            windows.grading = (graded_from, time.monotonic())
            finished.grading_s = windows.grading[1] - graded_from
            finished.flags += finished.grade.notes
    except Cancelled:
        finished.ended_by, finished.detail = "cancelled", "the sweep was interrupted"
    except MachineError as error:
        finished.ended_by, finished.detail = "sandbox_error", str(error)
    except DockerFault as error:  # some are an OSError, and this is no fault of the runs folder
        finished.ended_by, finished.detail = "sandbox_error", f"Docker failed: {error}"
    finished.ended_at, finished.duration_s = now(), time.monotonic() - began
    windows.clocks = (windows.clocks[0], clocks_apart())
    _measure(bench, planned, finished, windows)
    power = json.dumps(finished.energy.columns).encode() if finished.energy.columns else b""
    contents = (("patch.diff", finished.patch), ("tests.log", finished.grade.log), ("power.json", power))
    for name, content in contents:
        if content:
            finished.artefacts.append(keep(bench.runs_dir, folder, name, content))
    settle(bench.runs_dir, folder)
    return finished


def _measure(bench: Bench, planned: PlannedRun, finished: Finished, windows: Windows) -> None:
    """Turn what the instruments said since the last run into this run's figures."""
    if bench.meter is None:
        finished.energy = none("energy was not asked for")
        return
    if bench.plan.spec.slots > 1:
        finished.energy = none("other runs went on at the same time (--slots)")
        finished.flags.append("shared_machine")
        return
    engine = planned.model.engine if planned.model else None
    away = bench.elsewhere is not None
    remote = finished.engine_location == "remote" or (away and engine is None)
    finished.energy = run_energy(
        bench.meter.cut(),
        windows,
        finished.calls or [],
        idle=bench.idles.get(bench.memory.label),
        engine_pids=engine.pids() if engine else (),
        remote=remote,
        sandbox_away=away,
        meter_away=remote and bench.plan.spec.meter_at == "engine",
        wall_factor=bench.wall_factor,
        cores=os.cpu_count() or 1,
    )


def _graded(bench: Bench, planned: PlannedRun, run_id: str, patch: bytes, limits: Limits) -> Grade:
    """The grade of a patch. A bug met in grading it is that run's, and never the sweep's end. Raises Cancelled."""
    image = bench.images[planned.task.name]
    try:
        return grade(
            bench.client, planned.task, image, patch, limits, bench.cancelled,
            sweep=bench.sweep_id, run=run_id, runtime=bench.runtime,
        )  # fmt: skip
    except (Cancelled, MachineError, OSError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever a patch can make the parsers of logs and patches do
        return Grade("grader_error", f"grading failed: {type(error).__name__}: {error}", None, b"")


def _agent_stage(
    bench: Bench,
    planned: PlannedRun,
    run_id: str,
    folder: Path,
    finished: Finished,
    windows: Windows,
    began: float,
    on_stage: Callable[[str], None],
) -> None:
    plan, prepared = bench.plan, bench.images[planned.task.name]
    bundle = bench.bundles.get(planned.agent.name)
    model = planned.model
    door: Door | None = None
    with shared_folder() as socket_dir, (folder / "agent.log").open("wb") as log, contextlib.ExitStack() as clean_up:
        output = Output(log)
        socket_path = socket_dir / SOCKET_NAME
        relay_to = socket_path if bench.door == "relay" else None
        try:
            if model:
                try:
                    finished.readiness = ready(bench, model)
                    finished.engine_location = model.engine.location()
                except MachineError as error:
                    finished.ended_by, finished.detail = "model_error", str(error)
                    return
                cleared = time.monotonic()  # the last that is done to make an engine ready
                windows.clear = (cleared - finished.readiness.clear_s, cleared)
                door = bench.gateways[model.info.engine].open(socket_path, _policy(plan, planned), model.info, folder)
            limits = task_limits(planned.task, bench.cores, plan.spec, plan.spec.time_limit_s)
            visit = guest.Visit(planned, plan, prepared.workdir, bundle, door.key if door else None)
            with running(
                bench.client, prepared.sandbox_image, kind="run", limits=limits, uid=visit.uid,
                files=visit.files(), sweep=bench.sweep_id, run=run_id,
                mounts=visit.mounts(str(socket_dir) if door and not relay_to else None), runtime=bench.runtime,
            ) as container:  # fmt: skip
                history.check(container, prepared.workdir, prepared.base)
                if door:
                    way = visit.start_forwarder(container, relay_to, partial(door.stop, "sandbox_error"))
                    clean_up.callback(way.close)
                    if way.unwatched:
                        finished.flags.append(f"workdir_unwatched: {way.unwatched}")
                engine_bytes = model.engine.memory_bytes if model else None
                watch = UsageWatch(container, engine_bytes, bench.own_kernel)
                if watch.group.cpu is None:
                    finished.flags.append(f"sandbox_unseen: {bench.elsewhere or 'its control group is not to be seen'}")
                targets = Targets(bench.meter, watch.group, model.engine.pids if model else None, bench.own_kernel)
                finished.setup_s = time.monotonic() - began
                on_stage("agent")
                watch.start()
                targets.mark()
                limit_j = plan.spec.max_energy_j
                budget = EnergyBudget(bench.meter, limit_j) if bench.meter and limit_j else None
                runner = visit.begin(container, output.add)
                try:
                    stopped = _watch(bench, container, visit, runner, door, watch, targets, budget, finished)
                finally:
                    windows.agent = (runner.asked_s, runner.ended_s or time.monotonic())
                    targets.mark()
                    windows.opened_s = door.opened_s if door else 0.0
                    finished.agent_s = windows.agent[1] - windows.agent[0]
                    finished.usage = watch.stop()
                if (lag_s := runner.lag_s()) > max(SLOW_S, SLOW_SHARE * finished.agent_s):
                    finished.flags.append(f"docker_slow: {lag_s:.1f} s to tell that the agent began and ended")
                if finished.usage.tmp_full:
                    finished.flags.append("tmp_full")
                if door:
                    _close(bench, door, planned, finished)
                    if way.ended:
                        finished.flags.append(f"way_ended: {way.ended}")
                    if model and not bench.cancelled.is_set() and (why := spoilt(bench, model, finished.calls or [])):
                        stopped = ("model_error", why)
                if finished.usage.no_room:
                    raise SandboxError(finished.usage.no_room)
                state = container.state_after(finished.exit)
                if state.word != "running":
                    finished.exit = None  # what Docker says of a command whose container has died means nothing
                container.kill()
                _collect(bench, container, prepared, folder, finished)
                finished.ended_by, finished.detail = stopped or name_the_ending(
                    Evidence(
                        exit_code=finished.exit.code if finished.exit else None,
                        container=state,
                        oom_kills=finished.usage.oom_kills,
                        tmp_full=finished.usage.tmp_full,
                        claimed=finished.claim.status if finished.claim else None,
                        calls=[call for call in finished.calls or [] if call.sent],
                        max_calls=plan.spec.max_calls,
                    )
                )
        finally:
            if door:
                finished.calls = door.close()
                finished.interventions = door.interventions
                for name in ("calls.jsonl", "messages.jsonl"):
                    if (folder / name).exists():
                        finished.artefacts.append(keep(bench.runs_dir, folder, name, folder / name))
            output.close()
            if output.left_out_bytes:
                finished.flags.append("output_cut")
            finished.artefacts.append(keep(bench.runs_dir, folder, "agent.log", folder / "agent.log"))


def _watch(
    bench: Bench,
    container: Container,
    visit: guest.Visit,
    runner: Running,
    door: Door | None,
    usage: UsageWatch,
    targets: Targets,
    budget: EnergyBudget | None,
    finished: Finished,
) -> tuple[EndedBy, str] | None:
    """Wait for the runner's end, or for what ends it. Returns why it was ended, or None."""
    reason: tuple[EndedBy, str] | None = None
    while reason is None and not runner.wait(POLL_S):
        targets.look_for(runner)
        if door and door.stopped.is_set():
            reason = (door.stop_reason or "sandbox_error", door.stop_detail or "")
        elif bench.cancelled.is_set():
            reason = ("cancelled", "the sweep was interrupted")
        elif usage.usage.disk_full.is_set():
            wrote, limit = (usage.usage.disk_bytes or 0) >> 20, container.limits.disk_bytes >> 20
            reason = ("disk_full", f"the sandbox wrote {wrote} MB, its limit is {limit} MB")
        elif usage.usage.no_room:
            reason = ("sandbox_error", usage.usage.no_room)
        elif budget and (used_up := budget.exceeded()):
            reason = ("budget_energy", used_up)
        elif runner.ran_s() > bench.plan.spec.time_limit_s:
            reason = ("timeout", f"the time limit of {bench.plan.spec.time_limit_s:g} s was reached")
    if reason:
        if door:
            door.stop(*reason)
        grace_s = 0.0 if reason[0] == "cancelled" else GRACE_S
        if not runner.wait(grace_s):
            visit.terminate(container)
            if not runner.wait(grace_s):
                container.kill()
                runner.wait(GRACE_S)
    finished.exit = runner.exit()
    # A limit that the gateway met in the agent's last breath is how the run ended, too.
    if reason is None and door and door.stopped.is_set():
        reason = (door.stop_reason or "sandbox_error", door.stop_detail or "")
    return reason


def _close(bench: Bench, door: Door, planned: PlannedRun, finished: Finished) -> None:
    """Close the door; nothing may decode into the next run."""
    finished.calls = door.close()
    engine = planned.model.engine if planned.model else None
    if engine is None:
        return
    try:
        try:
            if bench.plan.spec.slots == 1:  # else it may well be at work, for another run
                engine.settle()
        except EngineStuck:
            engine.restart()
            finished.flags.append("engine_restarted")
    except MachineError as error:
        # This run is over; whether the next one can start, its own preparation finds out.
        finished.flags.append(f"engine_not_drained: {error}")
    sent = [call for call in finished.calls if call.sent]
    if sent and sent[0].cached_tokens != 0:
        finished.flags.append("warm_cache" if sent[0].cached_tokens else "cache_unknown_at_start")
    if bench.plan.spec.engine_state == "cold" and sent and sent[0].load_s is not None and sent[0].load_s == 0:
        finished.flags.append("warm_cache: the model was in memory, a cold start was asked for")
    if any(call.input_tokens is None or call.output_tokens is None for call in sent):
        finished.flags.append("tokens_incomplete")
    if any(call.status == "engine_error" and call.http_status is None for call in sent):
        finished.flags.append("engine_retried")
    if any(call.truncated for call in sent):
        finished.flags.append("answers_truncated")


def _collect(bench: Bench, container: Container, prepared: Prepared, folder: Path, finished: Finished) -> None:
    """Read the dead container: the work directory's difference, the agent's claim, what else it left."""
    try:
        try:
            difference = prepared.base.difference(work_directory(container, prepared.workdir, bench.cancelled))
        except FileNotFoundError:
            difference = prepared.base.difference(io.BytesIO(tar_of({})))  # the agent removed all of it
        finished.patch = difference.patch
        if difference.too_large:
            finished.flags.append("patch_left_out_large_files")
        if difference.unnameable:
            finished.flags.append("patch_left_out_names_of_git")
    except TooMuch as error:
        finished.grade = Grade("patch_rejected", f"no patch can be taken: {error}", None, b"")
    with contextlib.suppress(FileNotFoundError):
        finished.claim = _claim(container)
        try:
            # One file, whatever the agent called those in it.
            with container.archive(guest.OUT, limit_bytes=OUT_BYTES) as out:
                finished.artefacts.append(keep(bench.runs_dir, folder, "out.tar", out.read()))
        except ValueError:
            finished.flags.append("out_folder_too_large")


def _claim(container: Container) -> guest.Claim | None:
    """What the result file says. Raises FileNotFoundError when there is no out folder any more."""
    try:
        archive = container.archive(f"{guest.OUT}/{guest.RESULT_NAME}", limit_bytes=RESULT_BYTES)
    except FileNotFoundError:
        return None
    except ValueError:
        return guest.Claim("unreadable")
    with archive, tarfile.open(fileobj=archive) as tar:
        member = tar.next()
        stream = tar.extractfile(member) if member and member.isfile() else None
        return guest.claim(stream.read()) if stream else guest.Claim("unreadable")


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
        guard=spec.guard,
        guard_patience=spec.patience or DEFAULT_GUARD_PATIENCE,
    )


def now() -> str:
    """UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
