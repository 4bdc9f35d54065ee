"""A finished run as rows of the database."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from harness import __version__
from harness.bench import Bench
from harness.gateway.ledger import CallRecord
from harness.meter.figures import CallEnergy
from harness.plan import PlannedRun
from harness.run import Finished


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
        "image_digest": image.sandbox_image,
        "task_image_digest": image.task_image,
        "sandbox_user": plan.spec.sandbox_user,
        "image_source": image.source,
        "image_origin": image.origin,
        "bundle": made.key if made else None,
        "bundle_digest": made.digest if made else None,
        "patch_bytes": len(finished.patch),
        "flags": json.dumps(flags_of(finished)),
        "harness_version": __version__,
        "machine_id": machine_id,
        "session": bench.session,
        "energy_source": finished.energy.source,
        "peak_w": finished.energy.peak_w,
        "idle_number": finished.energy.idle_number,
        "engine_location": finished.engine_location,
        "engine_state": plan.spec.engine_state if model else None,
        "framework_cpu_s": finished.energy.framework_cpu_s,
        "engine_cpu_s": finished.energy.engine_cpu_s,
        "harness_cpu_s": finished.energy.harness_cpu_s,
        "rest_cpu_s": finished.energy.rest_cpu_s,
        "conditions": json.dumps(finished.energy.conditions),
        "door": bench.door if model else None,
        "runtime": bench.runtime,
        "guard": plan.spec.guard if model else "off",
        "guard_patience": plan.spec.patience if model else None,
    }


def _window(finished: Finished, planned: PlannedRun) -> int | None:
    if planned.model is None:
        return None
    loaded = finished.readiness.loaded_context_tokens if finished.readiness else None
    return loaded or planned.model.num_ctx


def flags_of(finished: Finished) -> Sequence[str]:
    notes = finished.readiness.notes if finished.readiness else ()
    return [*finished.flags, *finished.energy.flags, *(f"engine: {note}" for note in notes)]


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


def _read(call: CallRecord) -> int:
    """Tokens of the prompt that did not come out of the cache."""
    return (call.input_tokens or 0) - (call.cached_tokens or 0)


def call_energy_row(figure: CallEnergy, calls: Sequence[CallRecord]) -> dict[str, Any]:
    """A phase of a call as a row of the table `call_energy`, with the tokens that were read or written in it."""
    call = next(call for call in calls if call.index == figure.call_index)
    tokens: Mapping[str, int | None] = {
        "prefill": None if None in (call.input_tokens, call.cached_tokens) else _read(call),
        "decode": call.output_tokens,
    }
    return {**asdict(figure), "tokens": tokens.get(figure.phase)}
