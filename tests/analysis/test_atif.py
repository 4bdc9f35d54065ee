"""Trajectories by the rules of their format, ATIF 1.7, as its specification and Harbor's models have them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import stored_sweep

from harness.analysis.atif import Written, write_trajectories
from harness.analysis.loops.stored import analyse
from harness.store.db import open_store, read_store

# Every object's fields: those that it must have, and those that it may have. No other is allowed.
FIELDS: dict[str, tuple[set[str], set[str]]] = {
    "trajectory": (
        {"schema_version", "agent", "steps"},
        {"session_id", "trajectory_id", "notes", "final_metrics", "continued_trajectory_ref", "extra",
         "subagent_trajectories"},
    ),
    "agent": ({"name", "version"}, {"model_name", "tool_definitions", "extra"}),
    "step": (
        {"step_id", "source", "message"},
        {"timestamp", "model_name", "reasoning_effort", "reasoning_content", "tool_calls", "observation", "metrics",
         "is_copied_context", "llm_call_count", "extra"},
    ),
    "tool_call": ({"tool_call_id", "function_name", "arguments"}, {"extra"}),
    "observation": ({"results"}, set()),
    "result": (set(), {"source_call_id", "content", "subagent_trajectory_ref", "extra"}),
    "metrics": (
        set(),
        {"prompt_tokens", "completion_tokens", "cached_tokens", "cost_usd", "prompt_token_ids", "completion_token_ids",
         "logprobs", "extra"},
    ),
    "final_metrics": (
        set(),
        {"total_prompt_tokens", "total_completion_tokens", "total_cached_tokens", "total_cost_usd", "total_steps",
         "extra"},
    ),
}  # fmt: skip
AGENTS_ONLY = {"model_name", "reasoning_effort", "reasoning_content", "tool_calls", "metrics"}
TEXTS = {"schema_version", "session_id", "trajectory_id", "notes", "name", "version", "model_name", "message",
         "reasoning_content", "tool_call_id", "function_name", "source_call_id", "content"}  # fmt: skip


def check(kind: str, found: Mapping[str, Any]) -> None:
    needed, allowed = FIELDS[kind]
    assert needed <= found.keys(), (kind, needed - found.keys())
    assert found.keys() <= needed | allowed, (kind, found.keys() - needed - allowed)
    assert None not in found.values()
    for name in found.keys() & TEXTS:
        assert isinstance(found[name], str), (kind, name)
    assert isinstance(found.get("extra", {}), dict)


def check_trajectory(found: Mapping[str, Any], embedded: bool = False) -> None:
    check("trajectory", found)
    assert found["schema_version"] == "ATIF-v1.7"
    assert found.get("trajectory_id") or not embedded
    check("agent", found["agent"])
    assert found["steps"]
    for number, step in enumerate(found["steps"], 1):
        check("step", step)
        assert step["step_id"] == number
        assert step["source"] in ("system", "user", "agent")
        assert step["source"] == "agent" or not step.keys() & AGENTS_ONLY
        if "timestamp" in step:
            datetime.fromisoformat(step["timestamp"])
        ids = []
        for call in step.get("tool_calls", []):
            check("tool_call", call)
            assert isinstance(call["arguments"], dict)
            ids.append(call["tool_call_id"])
        assert len(ids) == len(set(ids))
        if "observation" in step:
            check("observation", step["observation"])
            for result in step["observation"]["results"]:
                check("result", result)
                assert result.get("source_call_id") in (None, *ids)
        if "metrics" in step:
            check("metrics", step["metrics"])
            assert all(isinstance(step["metrics"][name], int) for name in step["metrics"].keys() - {"extra"})
    if "final_metrics" in found:
        check("final_metrics", found["final_metrics"])
    below = found.get("subagent_trajectories", [])
    assert len({one["trajectory_id"] for one in below}) == len(below)
    for one in below:
        check_trajectory(one, embedded=True)


def every(written: Written) -> Iterator[tuple[str, dict[str, Any]]]:
    for run_id, path in written.files.items():
        yield run_id, json.loads(Path(path).read_bytes())


def answers(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The model's own steps of all conversations."""
    conversations = [found, *found.get("subagent_trajectories", [])]
    return [step for one in conversations for step in one["steps"] if "llm_call_count" in step]


def observed(step: Mapping[str, Any]) -> str:
    return "\n".join(result["content"] for result in step.get("observation", {"results": []})["results"])


@pytest.mark.parametrize("group", ["real", "composed"])
def test_every_recorded_run_makes_a_trajectory_by_the_formats_rules(tmp_path: Path, group: str) -> None:
    db = open_store(stored_sweep.make(tmp_path, runs=1))
    runs = stored_sweep.recorded(group)
    for position, (facts, calls, messages) in enumerate(runs, 10):
        stored_sweep.add(db, tmp_path, stored_sweep.SWEEP, position, facts, calls, messages)
    written = write_trajectories(db, tmp_path, stored_sweep.SWEEP, tmp_path / "out")
    assert (len(written.files), written.unreadable, len(written.without_calls)) == (len(runs) + 1, {}, 1)
    for run_id, found in every(written):
        check_trajectory(found)
        analysed = analyse(db, tmp_path, run_id)
        assert analysed.history is not None
        told = sorted((step["extra"]["call_index"], observed(step)) for step in answers(found))
        assert told == [(step.call, step.observation or "") for step in analysed.history.steps]


@pytest.fixture
def one(tmp_path: Path) -> tuple[str, dict[str, Any]]:
    db = open_store(stored_sweep.make(tmp_path, runs=1))
    written = write_trajectories(db, tmp_path, stored_sweep.SWEEP, tmp_path / "out")
    return next(every(written))


def test_what_the_format_has_a_field_for_stands_there_and_the_rest_in_extra(one: tuple[str, dict[str, Any]]) -> None:
    run_id, found = one
    assert (found["session_id"], found["trajectory_id"]) == (run_id, run_id)
    assert (found["agent"]["version"], found["agent"]["model_name"]) == ("1.2.3", "llamacpp/smollm2:135m")
    assert found["agent"]["extra"] == {"bundle": "b", "overrides": {"a": "b"}}
    [call] = [step for step in answers(found) if step["extra"]["call_index"] == 2]
    assert call["timestamp"] == "2026-01-01T00:00:02+00:00"
    assert call["metrics"].keys() == {"prompt_tokens", "completion_tokens"}
    assert call["extra"]["energy"][0] == {"phase": "decode", "duration_s": 1.0, "spread_j": 1.25, "kind": "measured",
                                          "source": "rapl", "coverage": "cpu"}  # fmt: skip
    assert call["extra"]["guard"][0]["text"] == "Try something else."
    final = found["final_metrics"]
    assert final["total_steps"] == len(found["steps"])
    assert "total_cached_tokens" not in final
    assert [(figure["layer"], figure.get("joules"), figure["kind"]) for figure in final["extra"]["energy"]] == [
        ("gross", 240.0, "measured"), ("net", None, "unavailable")
    ]  # fmt: skip
    assert (found["extra"]["outcome"], found["extra"]["flags"]) == ("unresolved", ["answers_truncated"])
    assert found["extra"]["machine_id"] == stored_sweep.MACHINE


def test_nobody_is_said_to_have_paid_nothing(one: tuple[str, dict[str, Any]]) -> None:
    text = json.dumps(one[1])
    assert '"prompt_tokens":' in text
    assert "cost_usd" not in text


def said(
    index: int, messages: list[dict[str, Any]], text: str, known: dict[str, Any], **changes: Any
) -> dict[str, Any]:  # fmt: skip
    hashes = []
    for number, message in enumerate(messages):
        known[key := f"{number}-{hash(json.dumps(message))}".ljust(64, "x")] = message
        hashes.append(key)
    answer = {"text": text, "thinking": "", "tool_calls": []} | changes.pop("answer", {})
    return {"index": index, "status": "ok", "http_status": 200, "finish_reason": "stop", "workdir": None,
            "messages": hashes, "answer": answer, "input_tokens": None, "output_tokens": None, "offset_s": 0.0,
            "duration_s": 1.0} | changes  # fmt: skip


def export(tmp_path: Path, calls: list[dict[str, Any]], known: dict[str, Any]) -> dict[str, Any]:
    db = open_store(stored_sweep.make(tmp_path, runs=1))
    facts = {"agent": "a", "task": "t"}
    run_id = stored_sweep.add(db, tmp_path, stored_sweep.SWEEP, 9, facts, calls, known)
    written = write_trajectories(db, tmp_path, stored_sweep.SWEEP, tmp_path / "out")
    assert written.unreadable == {}
    found: dict[str, Any] = json.loads(Path(written.files[run_id]).read_bytes())
    check_trajectory(found)
    return found


OPENING = [{"role": "system", "content": "You mend."}, {"role": "user", "content": "Mend it."}]


def test_tool_calls_and_their_results_belong_together_whatever_ids_a_model_gives(tmp_path: Path) -> None:
    made = [
        {"id": "x", "type": "function", "function": {"name": "bash", "arguments": '{"command": "ls"}'}},
        {"id": "x", "type": "function", "function": {"name": "bash", "arguments": '{"command": NaN}'}},
        {"function": {"name": "bash", "arguments": "not JSON"}},
    ]
    results = [{"role": "tool", "tool_call_id": "x", "content": "a.py"}, {"role": "user", "content": "go on"}]
    known: dict[str, Any] = {}
    first = said(0, OPENING, "", known, answer={"tool_calls": made, "thinking": "Let me look. \ud800"})
    asked = {"role": "assistant", "content": "", "tool_calls": made}
    second = said(1, [*OPENING, asked, *results], "Done.", known)
    _, _, step, last = export(tmp_path, [first, second], known)["steps"]
    assert [(call["tool_call_id"], call["arguments"]) for call in step["tool_calls"]] == [
        ("x", {"command": "ls"}), ("call_0_1", {}), ("call_0_2", {})
    ]  # fmt: skip
    assert step["tool_calls"][2]["extra"] == {"arguments": "not JSON"}
    assert step["reasoning_content"] == "Let me look. ?"
    assert step["observation"]["results"] == [
        {"source_call_id": "x", "content": "a.py"}, {"content": "go on"}
    ]  # fmt: skip
    assert "metrics" not in step  # nothing was counted
    assert (last["message"], "tool_calls" in last) == ("Done.", False)


def test_a_command_that_stands_in_the_text_is_a_tool_call_that_says_so(tmp_path: Path) -> None:
    known: dict[str, Any] = {}
    found = export(tmp_path, [said(0, OPENING, "I look.\n```sh\nls\n```", known)], known)
    [call] = found["steps"][-1]["tool_calls"]
    assert (call["function_name"], call["arguments"]) == ("shell", {"command": "ls"})
    assert call["extra"] == {"written_in_text": True}


def test_another_conversation_of_a_run_is_a_trajectory_within_it(tmp_path: Path) -> None:
    known: dict[str, Any] = {}
    other = [{"role": "system", "content": "You review."}, {"role": "user", "content": "Is it good?"}]
    calls = [said(0, OPENING, "One.", known), said(1, other, "Yes.", known)]
    found = export(tmp_path, calls, known)
    [below] = found["subagent_trajectories"]
    assert [step["message"] for step in below["steps"]] == ["You review.", "Is it good?", "Yes."]
    assert [step["source"] for step in below["steps"]] == ["system", "user", "agent"]
    assert below["trajectory_id"] == found["trajectory_id"] + "/1"
    assert len(found["steps"]) == 3


def test_a_frameworks_example_is_no_answer_of_the_model(tmp_path: Path) -> None:
    known: dict[str, Any] = {}
    opening = [*OPENING, {"role": "assistant", "content": "ls"}, {"role": "user", "content": "a.py"}]
    steps = export(tmp_path, [said(0, opening, "Done.", known)], known)["steps"]
    assert [step["source"] for step in steps] == ["system", "user", "agent", "user", "agent"]
    assert steps[2]["is_copied_context"]
    assert "llm_call_count" not in steps[2]


@pytest.mark.parametrize("damage", ["cut", "gone", "nonsense"])
def test_a_run_whose_journal_can_not_be_read_is_named_and_the_others_are_written(tmp_path: Path, damage: str) -> None:
    database = stored_sweep.make(tmp_path, runs=3)
    run_id = f"{stored_sweep.SWEEP}-0001"
    file = tmp_path / stored_sweep.SWEEP / run_id / "calls.jsonl.gz"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:200])
    elif damage == "gone":
        file.unlink()
    else:
        file.write_bytes(gzip.compress(b'{"index": 0}\n'))
    db = read_store(database)
    written = write_trajectories(db, tmp_path, stored_sweep.SWEEP, tmp_path / "out")
    assert list(written.unreadable) == [run_id]
    assert len(written.files) == 2
    assert not (tmp_path / "out" / f"{run_id}.json").exists()
