"""The labelled set's traces: packing runs into it, reading it back, and showing one as text to whoever labels it.

    python tests/loops/traces.py pack OUT.json.xz GROUP RUNS_DIR...
    python tests/loops/traces.py show FILE.json.xz OUT_DIR

A trace is a run's calls with what was said in them. The messages before the model's first answer (a framework's
prompts, the issue) are replaced by their length and hash: that they are the same as in the call before is all that
counts of them, and the words are the frameworks' own.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.analysis.loops.watch import history_of
from harness.analysis.steps.journal import Call, read_calls
from harness.analysis.steps.observations import text_of
from harness.analysis.steps.rebuild import Step

FIELDS = ("index", "status", "http_status", "finish_reason", "workdir", "messages", "answer", "input_tokens",
          "output_tokens", "offset_s", "duration_s")  # fmt: skip


@dataclass(frozen=True, eq=False)  # one is itself, whatever another holds
class Trace:
    name: str
    group: str  # real, hard_negative or composed
    agent: str
    model: str
    protocol: str
    task: str
    ended_by: str
    outcome: str
    calls: list[Call]
    tokens: dict[int, int]
    """Of each call, prompt and answer together, in the engine's count; for the scripted model, words."""

    @property
    def steps(self) -> list[Step]:
        return history_of(self.calls).steps


def read(file: Path) -> list[Trace]:
    with lzma.open(file, "rt", encoding="utf-8") as packed:
        content = json.load(packed)
    messages = [json.dumps({"sha256": sha256, "message": message}) for sha256, message in content["messages"].items()]
    return [
        Trace(**facts, calls=read_calls([json.dumps(call) for call in calls], messages), tokens=_tokens(calls))
        for facts, calls in content["traces"]
    ]


def _tokens(calls: Sequence[Any]) -> dict[int, int]:
    return {call["index"]: (call["input_tokens"] or 0) + (call["output_tokens"] or 0) for call in calls}


def pack(out: Path, group: str, folders: Sequence[Path]) -> None:
    messages: dict[str, Any] = {}
    traces = []
    for facts, calls in sorted((found for folder in folders for found in _runs(folder, group, messages)), key=_name):
        traces.append([facts, calls])
    used = {sha256 for _, calls in traces for call in calls for sha256 in call["messages"]}
    content = {"traces": traces, "messages": {sha256: messages[sha256] for sha256 in sorted(used)}}
    with lzma.open(out, "wt", encoding="utf-8", preset=9) as packed:
        json.dump(content, packed, ensure_ascii=True, separators=(",", ":"))
    print(f"{out}: {len(traces)} traces, {out.stat().st_size} bytes")


def _name(found: tuple[dict[str, Any], Any]) -> str:
    return str(found[0]["name"])


def _runs(folder: Path, group: str, messages: dict[str, Any]) -> Iterator[tuple[dict[str, Any], list[Any]]]:
    db = sqlite3.connect(folder / "harness.db")
    db.row_factory = sqlite3.Row
    for run in db.execute("SELECT * FROM runs_summary ORDER BY run_id"):
        files = folder / run["sweep_id"] / run["run_id"]
        if not run["calls"] or not (files / "calls.jsonl.gz").exists():
            continue
        said = {}
        with gzip.open(files / "messages.jsonl.gz", "rt", encoding="utf-8") as lines:
            for line in map(json.loads, lines):
                if "message" in line:
                    said[line["sha256"]] = line["message"]
        with gzip.open(files / "calls.jsonl.gz", "rt", encoding="utf-8") as lines:
            calls = [{name: call[name] for name in FIELDS} for call in map(json.loads, lines)]
        renamed = {sha256: _kept(message, messages) for sha256, message in _without_openings(said, calls).items()}
        for call in calls:
            call["messages"] = [renamed[sha256] for sha256 in call["messages"]]
        number = run["run_id"].rpartition("-")[2]
        name = folder.name if group != "real" else f"{folder.name}-{run['agent']}-{number}"
        facts = {
            "name": name,
            "group": group,
            **{field: run[field] for field in ("agent", "model", "protocol", "task")},
        }
        facts["model"] = "scripted" if run["engine"] == "scripted" else run["model"]
        yield facts | {"ended_by": run["ended_by"], "outcome": run["outcome"]}, calls


def _without_openings(said: dict[str, Any], calls: list[Any]) -> dict[str, Any]:
    """What stands before the model's first word in any call, by its length and hash alone."""
    kept = dict(said)
    for call in calls:
        for sha256 in call["messages"]:
            message = said[sha256]
            if message["role"] == "assistant":
                break
            if message["role"] in ("system", "developer") or sha256 in calls[0]["messages"]:
                content = f"[opening of {len(text_of(message.get('content')))} characters, {sha256[:16]}]"
                kept[sha256] = {"role": message["role"], "content": content}
            else:
                break
    return kept


def _kept(message: Any, messages: dict[str, Any]) -> str:
    encoded = json.dumps(message, sort_keys=True, separators=(",", ":")).encode()
    sha256 = hashlib.sha256(encoded).hexdigest()
    messages[sha256] = message
    return sha256


def show(trace: Trace, longest: int = 500) -> str:
    """A trace as a person reads it."""
    lines = [f"TRACE {trace.name}  agent={trace.agent} protocol={trace.protocol} ended_by={trace.ended_by}"]
    for step in trace.steps:
        before = step.said.before
        changed = "?" if step.after is None or before is None else "yes" if step.after != before else "no"
        state = f"files changed: {changed}" + (f" (state {step.after[:6]})" if changed == "yes" and step.after else "")
        about = "" if step.said.status == "ok" else f" CALL FAILED: {step.said.status}"
        about += " [same request as the call before, sent again]" if step.said.request == "again" else ""
        about += " [the conversation was cut down before this call]" if step.said.request == "cut_down" else ""
        lines += [
            f"--- step {step.call} (conversation {step.thread}){about}",
            "ANSWER: " + _cut(step.said.text, longest),
        ]
        lines += [f"ASKS FOR: {action.tool}: {_cut(action.text, longest)}" for action in step.said.actions]
        if step.said.cut:
            lines.append("(the answer was cut at its longest length)")
        outcome = "(nothing came back)" if step.observation is None else _cut(step.observation, longest)
        lines += [f"OUTCOME: {outcome}", state]
    return "\n".join(lines) + "\n"


def _cut(text: str, longest: int) -> str:
    text = text.strip()
    if len(text) <= longest:
        return text
    half = longest // 2
    return f"{text[:half]} [...{len(text) - longest} characters...] {text[-half:]}"


if __name__ == "__main__":
    if sys.argv[1] == "pack":
        pack(Path(sys.argv[2]), sys.argv[3], [Path(folder) for folder in sys.argv[4:]])
    else:
        folder = Path(sys.argv[3])
        folder.mkdir(parents=True, exist_ok=True)
        for one in read(Path(sys.argv[2])):
            (folder / f"{one.name}.txt").write_text(show(one), encoding="utf-8")
