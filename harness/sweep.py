"""All runs of a sweep: order, rest, retries, resume. Each run is stored when it has ended, and only then."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import docker
from sqlite_utils import Database

from harness import __version__, machine, paths
from harness.engines.base import Engine
from harness.errors import MachineError, UserError
from harness.gateway.server import Gateway
from harness.images import bundle
from harness.images.locate import prepare_all
from harness.images.prepare import IN_USE
from harness.meter.energy import EnergyMeter
from harness.outcome import ENDINGS, outcome
from harness.plan import Plan, PlannedRun
from harness.run import Bench, Finished, call_row, execute, sums
from harness.sandbox import leftovers
from harness.sandbox.container import wait_for_removals
from harness.store import records

SPOILT_IN_A_ROW = 3  # runs that the machine spoilt, after which going on would only make more
FREE_BYTES = 2 << 30  # asked for in the runs folder before a sweep starts


class Progress(Protocol):
    """What a sweep tells whoever watches."""

    def say(self, text: str) -> None: ...

    def run_started(self, planned: PlannedRun, attempt: int) -> None: ...

    def stage(self, name: str) -> None: ...

    def run_ended(self, planned: PlannedRun, row: Mapping[str, Any]) -> None: ...


@dataclass
class Result:
    sweep_id: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    cancelled: bool = False
    stopped: str | None = None  # why the sweep gave up before its end

    @property
    def failed(self) -> bool:
        """Whether something went wrong that is ours or the machine's."""
        bad = ("invalid", "ungraded")
        return self.stopped is not None or any(outcome(r["ended_by"], r["verdict"]) in bad for r in self.rows)


def new_id() -> str:
    return datetime.now(UTC).strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(2)


def check_same(stored: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises UserError that shows what differs between a stored sweep and one that wants to continue it."""
    before, after = _flat(stored), _flat(json.loads(json.dumps(now)))
    changed = [
        f"{key}: {before.get(key, 'nothing')[:60]} -> {after.get(key, 'nothing')[:60]}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]
    # The list of runs follows from the rest: it is the difference only where nothing else is.
    changed = [line for line in changed if not line.startswith("runs: ")] or changed
    if changed:
        shown = "; ".join(changed[:6]) + (f"; and {len(changed) - 6} more" if len(changed) > 6 else "")
        raise UserError(
            f"this is not the sweep that was begun ({shown}): undo the change, or start a new sweep without --resume"
        )


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested keys as dotted ones, values as JSON."""
    if not isinstance(value, Mapping):
        return {prefix: json.dumps(value)}
    flat: dict[str, str] = {}
    for name, inner in value.items():
        flat |= _flat(inner, f"{prefix}.{name}" if prefix else str(name))
    return flat


def check_space(runs_dir: Path) -> None:
    """Raises MachineError when the runs folder can't be written or has no room for a sweep."""
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        probe = runs_dir / f".probe-{secrets.token_hex(4)}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise MachineError(f"the runs folder {runs_dir} can't be written: {error.strerror}") from error
    free = shutil.disk_usage(runs_dir).free
    if free < FREE_BYTES:
        raise MachineError(
            f"{runs_dir} has {free >> 20} MB left, a sweep asks for {FREE_BYTES >> 20} MB: "
            "make room, or choose another folder with --runs-dir"
        )


def check_cores(cores: int, plan: Plan) -> None:
    """Raises UserError when a sandbox would need more cores than Docker has: no container could start."""
    if plan.spec.cpus:
        if plan.spec.cpus > cores:
            raise UserError(f"--cpus {plan.spec.cpus:g} is more than Docker has here: {cores}")
        return
    for task in plan.suite.tasks:
        if task.cpus and task.cpus > cores:
            raise UserError(
                f"{task.suite}/{task.name}: environment.cpus: {task.cpus:g} is more than Docker has here ({cores}): "
                "give --cpus to run it with fewer"
            )


@paths.lock(IN_USE, shared=True)
def run_sweep(
    plan: Plan,
    client: docker.DockerClient,
    db: Database,
    runs_dir: Path,
    progress: Progress,
    cancelled: threading.Event,
    resume: Mapping[str, Any] | None = None,
) -> Result:
    """Make every planned run that is not stored yet. `resume` is the stored sweep that is continued.

    Raises UserError for a resumed sweep that is not the same any more or images and bundles that don't build, and
    MachineError when Docker or an engine fails before the first run.
    """
    leftovers.remove(client, leftovers.find(client))
    if resume is not None:
        check_same(json.loads(resume["resolved"]), plan.resolved())
    cores = int(client.info()["NCPU"])
    check_cores(cores, plan)
    prepared = prepare_all(client, plan.suite, runs_dir / "logs", progress.say)
    bundles = {}
    for agent in plan.agents:
        made = bundle.ensure(client, agent, progress.say)
        if made is not None:
            bundles[agent.name] = made

    facts = machine.facts(str(client.version()["Version"]))
    result = Result(str(resume["sweep_id"]) if resume else new_id())
    if resume is None:
        records.insert_sweep(
            db, sweep_id=result.sweep_id, machine_id=machine.machine_id(facts), facts=facts, version=__version__,
            spec=plan.spec.model_dump(), resolved=plan.resolved(), planned_runs=len(plan.runs),
        )  # fmt: skip
    elif resume["machine_id"] != machine.machine_id(facts):
        raise UserError(
            f"sweep {resume['sweep_id']} was begun on another machine (or kernel, or Docker): rows of different "
            "machines are never pooled, so start a new sweep"
        )

    engines: dict[str, Engine] = {model.info.engine: model.engine for model in plan.models}
    with contextlib.ExitStack() as clean_up:
        clean_up.callback(wait_for_removals)
        energy = EnergyMeter()
        clean_up.callback(energy.stop)
        gateways = {}
        for name, engine in engines.items():
            clean_up.callback(engine.close)
            gateways[name] = Gateway(engine)
            clean_up.callback(gateways[name].close)
        bench = Bench(client, cores, plan, result.sweep_id, runs_dir, prepared, bundles, gateways, energy, cancelled)
        _run_all(bench, db, progress, result, machine.machine_id(facts))
        if len(result.rows) == len(plan.runs):
            records.end_sweep(db, result.sweep_id)
    return result


def _run_all(bench: Bench, db: Database, progress: Progress, result: Result, machine_id: str) -> None:
    stored = {row["position"]: row for row in records.runs_of(db, result.sweep_id)}
    for earlier in list(stored.values()):
        if records.spoilt(earlier):
            records.set_aside(db, earlier)
            del stored[earlier["position"]]
    attempts = records.attempts_of(db, result.sweep_id)
    spoilt = 0
    for planned in bench.plan.runs:
        if planned.position in stored:
            result.rows.append(stored[planned.position])
            continue
        if bench.cancelled.wait(bench.plan.spec.rest_s if result.rows else 0):
            break
        row = _one_run(bench, db, progress, planned, attempts.get(planned.position, 0) + 1, machine_id)
        if row is None:
            break
        result.rows.append(row)
        progress.run_ended(planned, row)
        spoilt = spoilt + 1 if not ENDINGS[row["ended_by"]].counts else 0
        if spoilt == SPOILT_IN_A_ROW and len(result.rows) < len(bench.plan.runs):
            result.stopped = f"{spoilt} runs in a row were spoilt by the machine, the last: {row['ended_detail']}"
            break
    result.cancelled = bench.cancelled.is_set()


def _one_run(
    bench: Bench, db: Database, progress: Progress, planned: PlannedRun, attempt: int, machine_id: str
) -> dict[str, Any] | None:
    """Make a run, again if the machine spoilt it, and store it. None: it was interrupted, and is not stored."""
    run_id = f"{bench.sweep_id}-{planned.position:04d}"
    last_attempt = attempt + bench.plan.spec.retries
    while True:
        progress.run_started(planned, attempt)
        try:
            finished = execute(bench, planned, run_id, progress.stage)
        except OSError as error:
            raise _not_stored(bench, planned, error) from error
        if finished.ended_by == "cancelled" or (bench.cancelled.is_set() and ENDINGS[finished.ended_by].retried):
            shutil.rmtree(bench.runs_dir / bench.sweep_id / run_id, ignore_errors=True)
            return None
        if not ENDINGS[finished.ended_by].retried or attempt >= last_attempt:
            break
        records.note_attempt(db, bench.sweep_id, planned.position, attempt, finished.ended_by, finished.detail)
        attempt += 1
    row = run_row(bench, planned, run_id, attempt, machine_id, finished)
    calls = [call_row(run_id, call) for call in finished.calls or []]
    energy = [asdict(figure) for figure in finished.energy]
    try:
        records.insert_run(
            db, row, calls, energy, [asdict(artefact) for artefact in finished.artefacts], finished.grade.notes
        )
    except sqlite3.OperationalError as error:
        raise _not_stored(bench, planned, error) from error
    return row


def _not_stored(bench: Bench, planned: PlannedRun, error: Exception) -> MachineError:
    return MachineError(
        f"run {planned.position} can't be stored ({error}): those before it are; "
        f"mend that and continue with `harness sweep --resume {bench.sweep_id}`"
    )


def run_row(
    bench: Bench, planned: PlannedRun, run_id: str, attempt: int, machine_id: str, finished: Finished
) -> dict[str, Any]:
    """A run as a row of the table `runs`."""
    plan, model, usage = bench.plan, planned.model, finished.usage
    calls = finished.calls
    tokens = sums(calls or []) if calls is not None else dict.fromkeys(sums([]))
    manifest = planned.agent.manifest
    made = bench.bundles.get(planned.agent.name)
    image = bench.images[planned.task.name]
    return {
        "run_id": run_id,
        "sweep_id": bench.sweep_id,
        "position": planned.position,
        "suite": planned.task.suite,
        "task": planned.task.name,
        "agent": planned.agent.name,
        "agent_version": manifest.version,
        "agent_commit": manifest.source.commit if manifest.source else None,
        "overrides": json.dumps(manifest.overrides),
        "engine": planned.engine_name,
        "engine_version": model.engine.version() if model else None,
        "model": planned.model_name,
        "model_digest": model.info.digest if model else None,
        "protocol": planned.protocol,
        "think": int(plan.spec.think),
        "repetition": planned.repetition,
        "attempt": attempt,
        "ended_by": finished.ended_by,
        "ended_detail": finished.detail,
        "verdict": finished.grade.verdict,
        "verdict_detail": finished.grade.detail,
        "claimed": finished.claim.status if finished.claim else None,
        "claim_message": finished.claim.message if finished.claim else None,
        "claim_details": finished.claim.details if finished.claim else None,
        "exit_code": finished.exit.code if finished.exit else None,
        "started_at": finished.started_at,
        "ended_at": finished.ended_at,
        "duration_s": finished.duration_s,
        "setup_s": finished.setup_s,
        "agent_s": finished.agent_s,
        "grading_s": finished.grading_s,
        "test_s": finished.grade.test_s,
        "engine_load_s": finished.readiness.load_s if finished.readiness else None,
        "engine_clear_s": finished.readiness.clear_s if finished.readiness else None,
        "calls": sum(call.sent for call in calls) if calls is not None else None,
        **tokens,
        "cpu_s": usage.cpu_s,
        "sandbox_peak_anon_bytes": usage.peak_anon_bytes,
        "sandbox_peak_cgroup_bytes": usage.peak_cgroup_bytes,
        "engine_peak_bytes": usage.engine_peak_bytes,
        "num_ctx": _window(finished, planned),
        "num_predict": plan.spec.num_predict if model else None,
        "temperature": plan.temperature if model else None,
        "top_p": plan.top_p if model else None,
        "seed": planned.seed,
        "image_digest": image.image,
        "image_source": image.source,
        "image_origin": image.origin,
        "bundle": made.key if made else None,
        "patch_bytes": len(finished.patch),
        "flags": json.dumps(_flags(finished, bench.energy)),
        "harness_version": __version__,
        "machine_id": machine_id,
    }


def _window(finished: Finished, planned: PlannedRun) -> int | None:
    if planned.model is None:
        return None
    loaded = finished.readiness.loaded_context_tokens if finished.readiness else None
    return loaded or planned.model.num_ctx


def _flags(finished: Finished, energy: EnergyMeter) -> Sequence[str]:
    kinds = {figure.kind for figure in finished.energy if figure.component == "total"}
    flags = [*finished.flags, *(f"engine: {note}" for note in (finished.readiness.notes if finished.readiness else ()))]
    if "estimated_constant" in kinds:
        flags.append("energy_is_a_clock")
    if "unavailable" in kinds:
        flags.append(f"no_energy: {energy.problem or 'the run did not come to it'}")
    return flags
