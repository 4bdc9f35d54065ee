"""A store to look at: a sweep whose runs are traces of the labelled set, with journals, energy and power that the
harness's own writers made.

    python tests/view/view_store.py FOLDER    fills FOLDER with harness.db and the runs' files
"""

from __future__ import annotations

import json
import lzma
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from harness.gateway.ledger import CallRecord, Journal, Spoken
from harness.meter.accounting import Curve
from harness.meter.meter import Part, Recording
from harness.meter.phases import cut
from harness.meter.readings import Instrument, Readings
from harness.meter.run_energy import RunEnergy, Windows, run_energy
from harness.rows import call_energy_row, call_row, sums
from harness.store.artefacts import keep
from harness.store.db import open_store
from harness.store.records import insert_run, insert_sweep

TRACES = Path(__file__).parents[1] / "loops" / "traces"
BEGUN = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
SETUP_S = 4.0
WATTS = {"load": 70.0, "prefill": 96.0, "decode": 64.0, "between_calls": 27.0, "tail": 19.0}
STEP_S = 0.097
RAPL = Part(Instrument("rapl", "cpu", "counter", 0.001, 0.002), "measured", "package-0")
DRAM = Part(Instrument("rapl", "dram", "counter", 0.001, 0.002), "measured", "package-0/dram")
MODEL = Part(Instrument("codecarbon", "ram", "model", 1.0), "estimated_constant", "ram")


@dataclass(frozen=True)
class Trace:
    facts: Mapping[str, Any]
    calls: Sequence[Mapping[str, Any]]
    messages: Mapping[str, Any]


@cache
def traces(group: str = "real") -> tuple[Trace, ...]:
    with lzma.open(TRACES / f"{group}.json.xz", "rt", encoding="utf-8") as packed:
        content = json.load(packed)
    return tuple(Trace(facts, calls, content["messages"]) for facts, calls in content["traces"])


def talk(*turns: tuple[str, str]) -> Trace:
    """Answers and what came back of each, as a trace."""
    messages: dict[str, Any] = {"s": {"role": "system", "content": "You are an engineer."}}
    messages["i"] = {"role": "user", "content": "Mend it."}
    said, calls = ["s", "i"], []
    for number, (answer, came) in enumerate(turns):
        spoken = {"text": answer, "thinking": "", "tool_calls": []}
        calls.append({"index": number, "messages": list(said), "answer": spoken, "offset_s": number * 3.0})
        messages[f"a{number}"] = {"role": "assistant", "content": answer}
        messages[f"o{number}"] = {"role": "user", "content": came}
        said += [f"a{number}", f"o{number}"]
    return Trace({"agent": "mini-swe-agent", "ended_by": "submitted", "task": "a-task"}, calls, messages)


def new_store(folder: Path, *, sweep_id: str = "s", planned: int = 9, tasks: Sequence[str] = ("t",)) -> Database:
    db = open_store(folder / "harness.db")
    new_sweep(db, sweep_id=sweep_id, planned=planned, tasks=tasks)
    return db


def new_sweep(db: Database, *, sweep_id: str, planned: int = 9, tasks: Sequence[str] = ("t",)) -> None:
    agents = {
        name: {"version": "1", "hash": "h", "commit": None, "overrides": {}} for name in ("mini-swe-agent", "swe-agent")
    }
    resolved = {
        "agents": agents,
        "models": {"gemma3:4b": {"digest": "sha256:1", "num_ctx": 16384}},
        "suite": {"name": "smoke", "hash": "abcd", "tasks": list(tasks), "left_out": {}},
        "sampling": {"temperature": 0.0},
        "rules": {"max_calls": 25},
        "runs": [],
    }
    insert_sweep(
        db,
        sweep_id=sweep_id,
        machine_id="m",
        facts={"cpu": "a processor", "memory_bytes": 64 << 30},
        version="0.1.0",
        spec={"agents": list(agents), "models": ["gemma3:4b"], "tasks": "smoke"},
        resolved=resolved,
        planned_runs=planned,
    )


def add_run(
    db: Database, runs_dir: Path, position: int, trace: Trace | None = None, *, sweep_id: str = "s",
    part: Part | None = RAPL, flags: Sequence[str] = (), interventions: Sequence[Mapping[str, Any]] = (),
    **changes: Any,
) -> str:  # fmt: skip
    """Store a run. `part` None: nothing told its energy. `trace` None: it made no call."""
    run_id = f"{sweep_id}-{position:04d}"
    folder = runs_dir / sweep_id / run_id
    begun = BEGUN + timedelta(minutes=10 * position)
    calls = _calls(run_id, begun, trace) if trace else []
    agent_s = calls[-1].offset_s + calls[-1].duration_s + 3.0 if calls else 2.0
    artefacts = [keep(runs_dir, folder, "agent.log", b"what the agent printed\n")]
    if trace:
        artefacts += _journal(runs_dir, folder, calls, trace)
    energy = RunEnergy([])
    if part is not None:
        windows = Windows(agent=(5000.0, 5000.0 + agent_s), opened_s=5000.4)
        energy = run_energy(_recording(part, windows, calls), windows, calls, idle=None, cores=2)
        artefacts.append(keep(runs_dir, folder, "power.json", json.dumps(energy.columns).encode()))
    row = {
        "run_id": run_id, "sweep_id": sweep_id, "position": position, "suite": "smoke", "task": "t",
        "agent": "mini-swe-agent", "agent_version": "1", "engine": "ollama" if trace else "none",
        "model": "gemma3:4b" if trace else "none", "think": 0, "repetition": 1, "attempt": 1, "ended_by": "submitted",
        "verdict": "unresolved", "started_at": begun.isoformat(timespec="milliseconds"),
        "ended_at": (begun + timedelta(seconds=SETUP_S + agent_s)).isoformat(), "duration_s": agent_s + 12.0,
        "setup_s": SETUP_S, "agent_s": agent_s, "grading_s": 8.0, "image_digest": "", "image_source": "dockerfile",
        "calls": len(calls) if trace else None, **(sums(calls) if trace else {}), "cpu_s": 3.2,
        "sandbox_peak_anon_bytes": 61_000_000, "engine_peak_bytes": 3_400_000_000 if trace else None,
        "flags": json.dumps([*flags, *energy.flags]), "energy_source": energy.source, "peak_w": energy.peak_w,
        "harness_version": "0.1.0", "machine_id": "m",
    } | changes  # fmt: skip
    insert_run(
        db,
        row,
        [call_row(run_id, call) for call in calls],
        [asdict(figure) for figure in energy.rows],
        [call_energy_row(figure, calls) for figure in energy.calls],
        [asdict(artefact) for artefact in artefacts],
        interventions=interventions,
    )
    return run_id


def _calls(run_id: str, begun: datetime, trace: Trace) -> list[CallRecord]:
    found = []
    for call in trace.calls:
        took_s = float(call.get("duration_s", 2.0))
        offset_s = float(call["offset_s"])
        began = (begun + timedelta(seconds=SETUP_S + 0.4 + offset_s)).isoformat(timespec="milliseconds")
        found.append(
            CallRecord(
                index=call["index"], call_id=f"{run_id}/{call['index']}", started_at=began,
                offset_s=offset_s, queued_s=0.0, duration_s=took_s, first_token_s=took_s * 0.3, load_s=0.0,
                prefill_s=took_s * 0.3, decode_s=took_s * 0.7, input_tokens=call.get("input_tokens", 900),
                cached_tokens=0, thinking_tokens=None, output_tokens=call.get("output_tokens", 40),
                status=call.get("status", "ok"), http_status=call.get("http_status", 200), error=None, truncated=False,
                finish_reason=call.get("finish_reason", "stop"), dialect="openai", streamed=False,
                sent=call.get("status", "ok") not in ("refused", "limit"), seed=1, asked={},
                tool_calls=len(call["answer"]["tool_calls"]), request_bytes=1000, workdir=call.get("workdir"),
            )
        )  # fmt: skip
    return found


def _journal(runs_dir: Path, folder: Path, calls: Sequence[CallRecord], trace: Trace) -> list[Any]:
    failed: list[OSError] = []
    journal = Journal(folder, failed.append)
    for record, call in zip(calls, trace.calls, strict=True):
        said = [trace.messages[sha256] for sha256 in call["messages"]]
        journal.add(record, Spoken(said, [], **call["answer"]))
    journal.close()
    assert not failed
    return [keep(runs_dir, folder, name, folder / name) for name in ("calls.jsonl", "messages.jsonl")]


def _recording(part: Part, windows: Windows, calls: Sequence[CallRecord]) -> Recording:
    """Readings of a machine that draws so many watts in each phase, and some noise."""
    assert windows.agent is not None
    begin_s, end_s = windows.agent
    phases = cut(begin_s, end_s, windows.opened_s, calls)
    noise = random.Random(1)
    made = Recording()
    for one in (part, DRAM) if part is RAPL else (part,):
        times, joules, total, moment_s, number = [], [], 0.0, begin_s - 3.0, 0
        while moment_s < end_s + 3.0:
            while number < len(phases) - 1 and phases[number].end_s <= moment_s:
                number += 1
            watts = WATTS[phases[number].name] if begin_s <= moment_s < end_s else 18.0
            total += STEP_S * (20.0 if one is MODEL else watts * noise.uniform(0.9, 1.1) * (0.12 if one is DRAM else 1))
            moment_s += STEP_S
            times.append(moment_s)
            joules.append(total)
        key = (one.instrument.source, one.unit)
        made.parts[key], made.raw[key] = one, Readings(times, joules)
        made.curves[key] = Curve(one.instrument, made.raw[key])
    return made


def main(folder: Path) -> None:
    chosen = [trace for group in ("real", "composed") for trace in traces(group)]
    tasks = sorted({trace.facts["task"] for trace in chosen})
    db = new_store(folder, sweep_id="20260301-090000-a1b2", planned=len(chosen) * 2, tasks=tasks)
    pick = random.Random(3)
    for position, trace in enumerate(chosen * 2):
        facts, verdict = trace.facts, "empty_patch"
        if position % 5 == 0:
            verdict = pick.choice(("resolved", "unresolved"))
        add_run(
            db, folder, position, trace, sweep_id="20260301-090000-a1b2", task=facts["task"], agent=facts["agent"],
            repetition=1 + position // len(chosen), ended_by=facts["ended_by"], verdict=verdict,
            part=(RAPL, RAPL, MODEL, None)[position % 4], flags=["throttled: 3 events"] if position % 9 == 0 else [],
            engine="ollama", model=("gemma3:4b", "qwen3:4b")[position % 2],
        )  # fmt: skip
    new_sweep(db, sweep_id="20260301-080000-ffff", planned=4, tasks=["t"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
