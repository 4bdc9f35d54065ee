"""A store as a long sweep leaves it, made up: for reports, pages and benchmarks, which need runs by the thousand.

Nothing in it was measured. Energies are lognormal by task, framework and model; some runs end at their time limit; runs
that loop waste most of what they spend; a few tasks are resolved.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, product
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from harness.analysis.loops.kinds import DETECTOR
from harness.store.db import open_store
from harness.store.records import insert_sweep

AGENTS = {"mini-swe-agent": 1.0, "openhands": 0.7, "swe-agent": 2.2, "autocoderover": 5.0}
"""With how much a run costs, relatively."""
MODELS = {"gemma3:4b": 1.4, "qwen3:1.7b": 1.0}
BEGAN = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
PHASES = {"load": 0.01, "prefill": 0.34, "decode": 0.5, "between_calls": 0.12, "tail": 0.03}
IDLE_W, BUSY_W = 38.0, 120.0
LIMIT_S = 1800.0
KINDS = ("repeated_action", "repeated_error", "cycle", "re_reading", "monologue", "degenerate")


def generate(
    path: Path,
    *,
    sweep_id: str = "20260105-080000-made",
    tasks: int = 50,
    repeats: int = 3,
    calls: int = 50,
    kind: str = "measured",
    machine: str = "machine-a",
    agents: dict[str, float] | None = None,
    models: dict[str, float] | None = None,
    rate: float = 0.08,
    guard: str = "off",
    seed: int = 0,
) -> str:
    """Fill the store at `path` with a sweep of every agent with every model on every task. Returns the sweep's id."""
    agents, models = agents or AGENTS, models or MODELS
    chance = random.Random(seed)
    names = [f"django__django-{11_000 + 7 * number}" for number in range(tasks)]
    hard = {name: chance.lognormvariate(0, 0.6) for name in names}
    order = [
        (task, repetition, agent, model)
        for repetition, task in product(range(1, repeats + 1), names)
        for agent, model in chance.sample(list(product(agents, models)), len(agents) * len(models))
    ]
    db = open_store(path)
    insert_sweep(
        db, sweep_id=sweep_id, machine_id=machine, version="0.1.0", planned_runs=len(order),
        facts={"architecture": "x86_64", "cores": 16, "cpu": "Made-up CPU", "gpus": ["Made-up GPU, 12 GB"],
               "kernel": "6.1", "memory_bytes": 64 << 30, "os": "Debian GNU/Linux 12", "docker": "27.0"},
        spec={"tasks": "made-up", "models": list(models), "agents": list(agents), "guard": guard},
        resolved={
            "suite": {"name": "swe-bench-verified-mini", "hash": "0123456789abcdef", "tasks": names, "left_out": {}},
            "models": {name: {"digest": f"sha256:{name}", "num_ctx": 16_384} for name in models},
            "agents": {
                name: {"version": "1.0", "hash": "0123", "group": "framework", "commit": None, "overrides": {}}
                for name in agents
            },
            "sampling": {"temperature": 0.7, "top_p": 0.95, "seed": seed},
            "rules": {"repeats": repeats, "order": "blocks", "warmup": 1, "rest_s": 60.0, "control_every": 24,
                      "idle_s": 60.0, "idle_every": 24, "engine_state": "warm", "slots": 1, "time_limit_s": LIMIT_S,
                      "max_calls": 50, "num_predict": 2048, "guard": guard, "think": False, "protocol": "text",
                      "when_busy": "warn"},
        },
    )  # fmt: skip
    _between_runs(db, sweep_id, kind, len(order), chance)
    runs = _runs(order, sweep_id, machine, kind, calls, guard, rate, hard, agents, models, chance)
    connection = db.conn
    assert connection is not None
    while batch := list(islice(runs, 1_000)):
        with db.atomic():
            for table in ("runs", "calls", "energy", "call_energy", "artefacts", "grades", "histories", "loops"):
                rows = [row for run in batch for row in run[table]]
                if rows:
                    marks = ", ".join("?" * len(rows[0]))
                    connection.executemany(
                        f"INSERT INTO {table} ({', '.join(rows[0])}) VALUES ({marks})",
                        [tuple(row.values()) for row in rows],
                    )
    db.table("sweeps").update(sweep_id, {"ended_at": _at(3600.0 * 24 * 7)})
    db.close()
    return sweep_id


def _at(seconds: float) -> str:
    return (BEGAN + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


def _between_runs(db: Database, sweep_id: str, kind: str, runs: int, chance: random.Random) -> None:
    sources = {"parts": {"rapl": [{"unit": "package-0", "component": "cpu", "kind": kind, "period_s": 0.001}]}}
    db.table("sessions").insert(
        {"sweep_id": sweep_id, "session": 1, "started_at": _at(0), "ended_at": _at(3600.0 * 24 * 7),
         "duration_s": 3600.0 * 24 * 7, "sources": json.dumps(sources),
         "conditions": json.dumps({"governor": "performance", "smt": True, "load_1_min": 0.1}), "country": "DE",
         "carbon_g_per_kwh": 380.0, "carbon_source": "made up"}
    )  # fmt: skip
    for number, position in enumerate(range(0, runs, max(24, runs // 100)), 1):
        db.table("idle").insert(
            {"sweep_id": sweep_id, "number": number, "session": 1, "before_position": position, "state": "loaded",
             "model": "gemma3:4b", "started_at": _at(position), "duration_s": 60.0, "source": "rapl",
             "component": "total", "watts": IDLE_W + chance.gauss(0, 0.4), "kind": kind, "coverage": "cpu+gpu",
             "busy_cores": 0.02}
        )  # fmt: skip
        db.table("jobs").insert(
            {"sweep_id": sweep_id, "number": number, "session": 1, "job": "control", "before_position": position,
             "what": "gemma3:4b, 128 tokens", "started_at": _at(position), "duration_s": 5 + chance.gauss(0, 0.05),
             "output_tokens": 128, "joules": 600 + chance.gauss(0, 9), "kind": kind, "coverage": "cpu+gpu"}
        )  # fmt: skip


def _runs(
    order: list[tuple[str, int, str, str]],
    sweep_id: str,
    machine: str,
    kind: str,
    most_calls: int,
    guard: str,
    rate: float,
    hard: dict[str, float],
    agents: dict[str, float],
    models: dict[str, float],
    chance: random.Random,
) -> Iterator[dict[str, list[dict[str, Any]]]]:
    clock_s = 0.0
    for position, (task, repetition, agent, model) in enumerate(order):
        run_id = f"{sweep_id}-{position:04d}"
        seconds = 60.0 * agents[agent] * models[model] * hard[task] * chance.lognormvariate(0, 0.4)
        timed_out = seconds > LIMIT_S
        seconds = min(seconds, LIMIT_S)
        calls = max(2, min(most_calls, round(most_calls * chance.uniform(0.6, 1.4))))
        resolved = not timed_out and chance.random() < rate * 2 * (hard[task] < 0.8)
        stuck = not resolved and chance.random() < 0.7
        onset = chance.randrange(1, calls) if stuck else calls
        joules = seconds * BUSY_W * chance.uniform(0.9, 1.1)
        per_call_s = seconds * 0.85 / calls
        tokens = [(600 + 220 * index, chance.randrange(40, 300)) for index in range(calls)]
        all_tokens = sum(map(sum, tokens))
        after = sum(map(sum, tokens[onset:]))
        share = (calls - onset) / calls
        told = kind not in ("unavailable", "estimated_constant")
        verdict = "resolved" if resolved else chance.choice(("unresolved", "unresolved", "empty_patch"))
        ended_by = "timeout" if timed_out else "submitted" if verdict != "empty_patch" else "budget_calls"
        spoilt = chance.random() < 0.004
        row = {
            "run_id": run_id, "sweep_id": sweep_id, "position": position, "suite": "swe-bench-verified-mini",
            "task": task, "agent": agent, "agent_version": "1.0", "engine": "ollama", "engine_version": "0.13",
            "model": model, "model_digest": f"sha256:{model}", "protocol": "text", "think": 0,
            "repetition": repetition, "attempt": 1, "ended_by": "sandbox_error" if spoilt else ended_by,
            "verdict": "not_gradable" if spoilt else verdict, "claimed": "submitted", "exit_code": 0,
            "started_at": _at(clock_s), "ended_at": _at(clock_s + seconds + 20), "duration_s": seconds + 20.0,
            "setup_s": 2.0, "agent_s": seconds, "grading_s": 18.0, "test_s": 12.0, "calls": calls,
            "input_tokens": sum(given for given, _ in tokens), "cached_tokens": 0,
            "output_tokens": sum(made for _, made in tokens), "cpu_s": seconds * 0.2,
            "sandbox_peak_anon_bytes": int(3e8 * agents[agent] ** 0.3 * chance.uniform(0.9, 1.3)),
            "engine_peak_bytes": int(4e9 * models[model]), "num_ctx": 16_384, "num_predict": 2_048,
            "temperature": 0.7, "top_p": 0.95, "seed": position, "image_digest": "sha256:made-up",
            "image_source": "published", "patch_bytes": 0 if verdict == "empty_patch" else 400,
            "flags": json.dumps(["neighbour_busy: 1.2 cores"] if chance.random() < 0.01 else []),
            "harness_version": "0.1.0", "machine_id": machine, "session": 1, "energy_source": "rapl",
            "peak_w": BUSY_W * 1.6, "idle_number": 1, "engine_location": "local", "engine_state": "warm",
            "guard": guard,
        }  # fmt: skip
        made: dict[str, list[dict[str, Any]]] = {"runs": [row], "calls": [], "call_energy": [], "loops": []}
        for index, (given, answered) in enumerate(tokens):
            made["calls"].append(
                {"call_id": f"{run_id}/{index}", "run_id": run_id, "call_index": index,
                 "started_at": _at(clock_s + 2 + index * seconds / calls), "offset_s": index * seconds / calls,
                 "queued_s": 0.0, "duration_s": per_call_s, "first_token_s": per_call_s * 0.4, "load_s": 0.0,
                 "prefill_s": per_call_s * 0.4, "decode_s": per_call_s * 0.6, "input_tokens": given,
                 "cached_tokens": 0, "output_tokens": answered, "status": "ok", "http_status": 200, "truncated": 0,
                 "finish_reason": "stop", "dialect": "openai", "streamed": 1, "sent": 1, "seed": index,
                 "tool_calls": 0, "request_bytes": given * 4, "asked": "{}"}
            )  # fmt: skip
        figure = {"run_id": run_id, "source": "rapl", "component": "total", "kind": kind, "coverage": "cpu+gpu"}
        net = joules - IDLE_W * seconds
        made["energy"] = [
            figure | {"layer": layer, "phase": phase, "joules": None if kind == "unavailable" else value * part}
            for layer, value in (("gross", joules), ("idle", IDLE_W * seconds), ("net", net))
            if layer == "gross" or kind != "estimated_constant"
            for phase, part in {"agent": 1.0, **(PHASES if told else {})}.items()
        ]
        for name in ("patch.diff", "agent.log"):
            made.setdefault("artefacts", []).append(
                {"run_id": run_id, "name": name, "path": f"{sweep_id}/{run_id}/{name}.gz", "sha256": "", "bytes": 1}
            )
        made["grades"] = [
            {"run_id": run_id, "number": 1, "graded_at": row["ended_at"], "verdict": row["verdict"],
             "image_digest": "sha256:made-up", "notes": "[]", "harness_version": "0.1.0"}
        ]  # fmt: skip
        growth = [[call, call - onset, sum(map(sum, tokens[call:]))] for call in range(onset + 2, calls)]
        made["histories"] = [
            {"run_id": run_id, "detector": DETECTOR, "last_useful": onset - 1, "calls": calls, "tokens": all_tokens,
             "counted_tokens": all_tokens, "wasted_calls": calls - onset, "wasted_tokens": after,
             "wasted_s": seconds * share, "wasted_j": joules * share if told else None,
             "after_useful_calls": calls - onset, "after_useful_tokens": after, "after_useful_s": seconds * share,
             "after_useful_j": joules * share if told else None, "growth": json.dumps(growth[:30])}
        ]  # fmt: skip
        if stuck:
            made["loops"].append(
                {"run_id": run_id, "number": 1, "kind": chance.choice(KINDS), "conversation": 0, "onset": onset,
                 "end": calls - 1, "steps": calls - onset, "plain_at": min(onset + 2, calls - 1), "recovered": 0}
            )  # fmt: skip
        clock_s += seconds + 80.0
        yield made
