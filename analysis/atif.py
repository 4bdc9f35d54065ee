"""A sweep's runs in the Agent Trajectory Interchange Format, in which Harbor and its tools keep what agents did.

Written by its version 1.7. What the format has no field for (energy with its kind, outcome, loops, durations) stands in
its `extra` fields. Nobody was charged for these tokens, and what they cost is told in joules: no `cost_usd` is written.
Reads the store and nothing else.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from harness.analysis.loops.detector import Loop
from harness.analysis.loops.digest import digest_of, loops_of
from harness.analysis.loops.stored import NO_CALLS, Analysed, analyse
from harness.analysis.names import label
from harness.analysis.steps.actions import actions_of
from harness.analysis.steps.journal import Call, read_calls
from harness.analysis.steps.observations import text_of
from harness.analysis.steps.rebuild import Message, Rebuild, Step, new_messages

VERSION = "ATIF-v1.7"
SOURCES = {"system": "system", "developer": "system", "assistant": "agent"}
"""Who said a message, by its role; anything else the model hears as a user's."""

ABOUT_RUN = (
    "run_id", "sweep_id", "suite", "task", "repetition", "outcome", "ended_by", "ended_detail", "verdict",
    "verdict_detail", "claimed", "counts", "left_out", "started_at", "ended_at", "duration_s", "setup_s", "agent_s",
    "grading_s", "protocol", "think", "num_ctx", "num_predict", "temperature", "top_p", "seed", "guard",
    "guard_patience", "engine", "engine_version", "engine_location", "model_digest", "image_digest", "image_source",
    "image_origin", "machine_id", "harness_version",
)  # fmt: skip
ABOUT_CALL = (
    "call_index", "status", "error", "finish_reason", "queued_s", "duration_s", "first_token_s", "load_s", "prefill_s",
    "decode_s", "seed",
)  # fmt: skip
WHOLE_RUN = "The token totals are those of the whole run: of every conversation, and of calls that were tried again."


@dataclass(frozen=True)
class Written:
    """`files` by the runs that have one; `unreadable` and `without_calls` name the others."""

    files: dict[str, str]
    unreadable: dict[str, str]
    """Why, by run."""
    without_calls: list[str]


@dataclass
class _Conversation:
    """One exchange with the model, as steps of the format. `heard` are the messages of its last request."""

    steps: list[dict[str, Any]] = field(default_factory=list)
    heard: Sequence[Message] = ()

    def add(self, source: str, message: str, **fields: Any) -> None:
        self.steps.append(_known({"step_id": len(self.steps) + 1, "source": source, "message": message} | fields))


@dataclass(frozen=True)
class _Facts:
    """What is known of a run's calls beside what was said in them, by the call's index."""

    rows: Mapping[int, Mapping[str, Any]]
    answers: Mapping[int, Mapping[str, Any]]
    steps: Mapping[int, Step]
    loops: Sequence[Loop]
    energy: Mapping[int, list[dict[str, Any]]]
    guard: Mapping[int, list[dict[str, Any]]]


def write_trajectories(db: Database, runs_dir: Path, sweep_id: str, folder: Path) -> Written:
    """One file in `folder` for each run that called a model and whose journal can be read. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    written = Written({}, {}, [])
    runs = db.execute("SELECT run_id FROM runs WHERE sweep_id = ? ORDER BY position", [sweep_id]).fetchall()
    for (run_id,) in runs:  # one at a time: what was said in a whole sweep would not fit into memory
        analysed = analyse(db, runs_dir, run_id)
        if analysed.history is None:
            if analysed.why != NO_CALLS:
                written.unreadable[run_id] = str(analysed.why)
            else:
                written.without_calls.append(run_id)
            continue
        try:
            # What is no Unicode can't be in a file that other programs are to read.
            text = json.dumps(_trajectory(db, runs_dir, analysed), ensure_ascii=False, indent=1, allow_nan=False)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            written.unreadable[run_id] = f"its journal is not the gateway's: {error}"
            continue
        path = folder / f"{run_id}.json"
        path.write_bytes(text.encode("utf-8", errors="replace") + b"\n")
        written.files[run_id] = str(path)
    return written


def _trajectory(db: Database, runs_dir: Path, analysed: Analysed) -> dict[str, Any]:
    run_id = analysed.run["run_id"]
    [row] = db.query("SELECT * FROM runs WHERE run_id = ?", [run_id])
    run = analysed.run | row
    lines, messages = (_lines(db, runs_dir, run_id, name) for name in ("calls.jsonl", "messages.jsonl"))
    conversations = _conversations(read_calls(lines, messages), _facts(db, analysed, lines))
    agent = {
        "name": run["agent"],
        "version": run["agent_version"],
        "model_name": label(run["engine"], run["model"]),
        "tool_definitions": _tools(lines, messages),
        "extra": _known({"commit": run["agent_commit"], "bundle": run["bundle"], "overrides": _json(run["overrides"])}),
    }
    first, *others = [
        _known(
            {
                "schema_version": VERSION,
                "session_id": run_id,
                "trajectory_id": f"{run_id}/{number}" if number else run_id,
                "agent": _known(agent),
                "steps": conversation.steps,
            }
        )
        for number, conversation in conversations.items()
    ]
    notes = [WHOLE_RUN]
    if others:
        notes.append("The run's further conversations with the model are its subagent_trajectories, in their order.")
    return _known(
        first
        | {
            "notes": " ".join(notes),
            "final_metrics": _final_metrics(db, run, len(first["steps"])),
            "subagent_trajectories": others or None,
            "extra": _known({name: run[name] for name in ABOUT_RUN})
            | {
                "flags": _json(run["flags"]),
                "loops": [_without(loop, "run_id") for loop in loops_of(digest_of(analysed))],
            },
        }
    )


def _lines(db: Database, runs_dir: Path, run_id: str, name: str) -> list[str]:
    [(path,)] = db.execute("SELECT path FROM artefacts WHERE run_id = ? AND name = ?", [run_id, name]).fetchall()
    with gzip.open(runs_dir / path, "rt", encoding="utf-8", errors="replace") as lines:
        return [line for line in lines if line.strip()]


def _tools(calls: Sequence[str], messages: Sequence[str]) -> list[Any] | None:
    """The tools that the model was offered first."""
    key = next((tools for line in calls if (tools := json.loads(line).get("tools"))), None)
    return next((said.get("tools") for line in messages if (said := json.loads(line))["sha256"] == key), None)


def _final_metrics(db: Database, run: Mapping[str, Any], steps: int) -> dict[str, Any]:
    energy = [
        _known(figure)
        for figure in db.query(
            "SELECT source, layer, phase, joules, low_j, high_j, kind, coverage, detail FROM energy "
            "WHERE run_id = ? AND source = ? AND component = 'total' ORDER BY rowid",
            [run["run_id"], run["energy_source"]],
        )
    ]
    return _known(
        {
            "total_prompt_tokens": run["input_tokens"],
            "total_completion_tokens": run["output_tokens"],
            "total_cached_tokens": run["cached_tokens"],
            "total_steps": steps,
            "extra": _known({"calls": run["calls"], "thinking_tokens": run["thinking_tokens"], "energy": energy}),
        }
    )


def _facts(db: Database, analysed: Analysed, lines: Sequence[str]) -> _Facts:
    run_id, history = analysed.run["run_id"], analysed.history
    assert history is not None

    def by_call(query: str) -> dict[int, list[dict[str, Any]]]:
        rows = db.query(query, [run_id])
        return {
            index: [_known(_without(row, "call_index")) for row in found]
            for index, found in groupby(rows, key=lambda row: row["call_index"])
        }

    return _Facts(
        rows={row["call_index"]: row for row in db.query("SELECT * FROM calls WHERE run_id = ?", [run_id])},
        answers={said["index"]: said["answer"] for said in map(json.loads, lines)},
        steps={step.call: step for step in history.steps},
        loops=history.loops,
        energy=by_call(
            "SELECT call_index, phase, duration_s, joules, low_j, high_j, spread_j, kind, source, coverage "
            "FROM call_energy WHERE run_id = ? ORDER BY call_index, phase"
        ),
        guard=by_call(
            "SELECT call_index, action, kind, onset, steps, text FROM interventions WHERE run_id = ? "
            "ORDER BY call_index, number"
        ),
    )


def _conversations(calls: Sequence[Call], facts: _Facts) -> dict[int, _Conversation]:
    """The conversations of a run by number, each with what was said in it."""
    found: dict[int, _Conversation] = {}
    rebuild = Rebuild()
    for call in calls:
        if call.is_request:
            rebuild.asked(call.messages, call.workdir)
            conversation = found.setdefault(rebuild.asking, _Conversation())
            _hear(conversation, call.messages)
        if call.is_step:
            _answer(found[rebuild.asking], call, facts)
    return {number: conversation for number, conversation in sorted(found.items()) if conversation.steps}


def _hear(conversation: _Conversation, messages: Sequence[Message]) -> None:
    """What a request tells beyond the one before: its opening as steps, later what came of the last answer."""
    last = conversation.steps[-1] if conversation.steps else None
    if last is None or last["source"] != "agent" or "llm_call_count" not in last:
        for message in messages[len(conversation.heard) :]:
            source = SOURCES.get(str(message.get("role")), "user")
            # An answer that no call gave: a framework's example.
            example = {"is_copied_context": True} if source == "agent" else {}
            conversation.add(source, text_of(message.get("content")), **example)
    elif list(messages) != list(conversation.heard):
        ids = {call["tool_call_id"] for call in last.get("tool_calls", [])}
        came = [message for message in new_messages(conversation.heard, messages) if message.get("role") != "assistant"]
        if came:
            last["observation"] = {"results": [_result(message, ids) for message in came]}
    conversation.heard = messages


def _result(message: Message, ids: set[str]) -> dict[str, Any]:
    source = message.get("tool_call_id")
    return _known({"source_call_id": source if source in ids else None, "content": text_of(message.get("content"))})


def _answer(conversation: _Conversation, call: Call, facts: _Facts) -> None:
    row, answer, step = facts.rows.get(call.index, {}), facts.answers[call.index], facts.steps.get(call.index)
    metrics = {"prompt_tokens": "input_tokens", "completion_tokens": "output_tokens", "cached_tokens": "cached_tokens"}
    extra = _known({name: row.get(name) for name in ABOUT_CALL} | {"call_index": call.index, "status": call.status})
    extra |= {"energy": facts.energy.get(call.index), "guard": facts.guard.get(call.index)}
    if step is not None:
        extra["loops"] = [
            loop.kind for loop in facts.loops if loop.thread == step.thread and loop.onset <= call.index <= loop.end
        ]
        changed = None if None in (step.said.before, step.after) else step.said.before != step.after
        extra |= {"files_changed": changed, "failed": step.failed, "unreadable": step.unreadable,
                  "discarded": step.discarded, "request": step.said.request}  # fmt: skip
    conversation.add(
        "agent",
        answer["text"],
        timestamp=row.get("started_at") or None,
        reasoning_content=answer["thinking"] or None,
        tool_calls=_called(call) or _written(call) or None,
        metrics=_known({name: row.get(column) for name, column in metrics.items()}
                       | {"extra": _known({"thinking_tokens": row.get("thinking_tokens")}) or None}) or None,
        llm_call_count=1,
        extra=_known(extra),
    )  # fmt: skip


def _called(call: Call) -> list[dict[str, Any]]:
    """Tool calls as the model made them. Arguments that are no object are kept as the text that they are."""
    found: list[dict[str, Any]] = []
    ids: set[str] = set()
    for number, made in enumerate(call.tool_calls):
        function = made.get("function")
        function = function if isinstance(function, Mapping) else {}
        given = function.get("arguments")
        arguments = _json(given) if isinstance(given, str) else given
        is_object = isinstance(arguments, dict)
        name = made.get("id")
        if not isinstance(name, str) or not name or name in ids:  # some models give none, or the same again
            name = f"call_{call.index}_{number}"
        ids.add(name)
        found.append(
            {
                "tool_call_id": name,
                "function_name": str(function.get("name") or ""),
                "arguments": arguments if is_object else {},
            }
            | ({} if is_object else {"extra": {"arguments": given}})
        )
    return found


def _written(call: Call) -> list[dict[str, Any]]:
    """What an answer asks for in its text, as its framework would read it."""
    return [
        {
            "tool_call_id": f"call_{call.index}_{number}",
            "function_name": action.tool,
            "arguments": {"command" if action.tool == "shell" else "text": action.text},
            "extra": {"written_in_text": True},
        }
        for number, action in enumerate(actions_of(call.text, []))
    ]


def _json(text: str | None) -> Any:
    """None for what is not JSON, and for numbers that JSON does not have."""
    try:
        return json.loads(text or "", parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _known(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Unknown is left out: never a zero, and never a null that would have to be told from one."""
    return {name: value for name, value in fields.items() if value is not None}


def _without(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {column: value for column, value in row.items() if column != name}
