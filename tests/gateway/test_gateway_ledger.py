from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from harness.engines.scripted import Scripted
from harness.gateway.ledger import canonical
from harness.gateway.policy import Policy, derive_seed
from harness.gateway.server import Gateway

SCRIPT = """
capabilities = ["thinking"]
[[answers]]
thinking = "let me see"
text = "THOUGHT: I list the files.\\n\\nls"
first_token_delay_s = 0.1
chunk_words = 2
delay_s = 0.05
[[answers]]
text = "done"
"""


def test_records_against_a_hand_count(open_run):
    run = open_run(SCRIPT, think=True)
    began = datetime.now(UTC)
    first = [
        {"role": "system", "content": "You fix bugs."},
        {"role": "user", "content": "the bug is in a.py"},
    ]
    answer = run.chat(messages=first).json()["choices"][0]["message"]
    second = [
        *first,
        {"role": "assistant", "content": answer["content"]},
        {"role": "user", "content": "a.py b.py"},
    ]
    run.chat(messages=second, stream=True)
    one, two = run.close()
    assert [record.index for record in (one, two)] == [0, 1]
    assert one.call_id != two.call_id
    assert (one.input_tokens, one.cached_tokens) == (8, 0)  # 3 + 5 words, nothing cached at call 1
    assert (one.thinking_tokens, one.output_tokens) == (3, 9)  # 3 + 6 words
    assert (two.input_tokens, two.cached_tokens) == (16, 8)  # 8 + 6 of the answer + 2
    assert (two.thinking_tokens, two.output_tokens) == (0, 1)
    assert 0.1 <= one.prefill_s <= one.first_token_s < 1
    assert 0.2 <= one.decode_s < 1  # five chunks, four pauses
    assert one.prefill_s + one.decode_s <= one.duration_s < 2
    assert one.first_token_s < one.duration_s
    assert one.load_s == 0.0
    assert two.offset_s >= one.offset_s + one.duration_s
    assert timedelta(0) <= datetime.fromisoformat(one.started_at) - began + timedelta(seconds=0.01)
    assert datetime.fromisoformat(one.started_at).utcoffset() == timedelta(0)
    assert (one.streamed, two.streamed) == (False, True)
    assert (one.seed, two.seed) == (derive_seed(7, 0), derive_seed(7, 1))
    assert one.request_bytes == len(json.dumps({"model": "any", "messages": first}, separators=(",", ":")))


def test_each_distinct_message_is_stored_once(open_run):
    run = open_run('when_exhausted = "repeat"\n[[answers]]\ntext = "I see."\n')
    history = [{"role": "user", "content": "start \u00fc \ufffd"}]
    for number in range(4):
        run.client.post("/v1/chat/completions", content=json.dumps({"messages": history}).replace(r"\ufffd", r"\ud83d"))
        history += [
            {"content": "I see.", "role": "assistant"},
            {"role": "user", "content": f"go on {number}"},
        ]
    run.close()
    calls, messages = run.lines("calls.jsonl"), run.lines("messages.jsonl")
    assert [len(call["messages"]) for call in calls] == [1, 3, 5, 7]
    assert len(messages) == 5  # the start, one answer, three times "go on"
    by_hash = {entry["sha256"]: entry["message"] for entry in messages}
    assert [by_hash[sha] for sha in calls[3]["messages"]] == history[:7]
    for sha, message in by_hash.items():
        assert hashlib.sha256(canonical(message)).hexdigest() == sha
    assert calls[0]["answer"] == {"text": "I see.", "thinking": "", "tool_calls": []}
    assert calls[0]["status"] == "ok"


def test_tools_are_stored_once_and_calls_with_their_answers(open_run):
    toml = 'capabilities = ["tools"]\nwhen_exhausted = "repeat"\n[[answers]]\ntool_calls = [{ name = "bash" }]\n'
    run = open_run(toml, protocol="tools")
    tools = [{"type": "function", "function": {"name": "bash"}}]
    for _ in range(2):
        run.chat(tools=tools)
    run.close()
    calls = run.lines("calls.jsonl")
    [stored] = [entry for entry in run.lines("messages.jsonl") if "tools" in entry]
    assert stored["tools"] == tools
    assert {call["tools"] for call in calls} == {stored["sha256"]}
    assert calls[0]["asked"]["tools"] == 1
    assert calls[0]["answer"]["tool_calls"][0]["function"]["name"] == "bash"


def test_a_crash_loses_at_most_the_call_under_way(short_dir: Path):
    script = short_dir / "script.toml"
    script.write_text('when_exhausted = "repeat"\n[[answers]]\ntext = "hello"\n')
    program = """
import sys, time, httpx
from pathlib import Path
from harness.engines.scripted import Scripted
from harness.gateway.policy import Policy
from harness.gateway.server import Gateway
folder, script = Path(sys.argv[1]), sys.argv[2]
engine = Scripted()
policy = Policy(script, 4096, 64, 0.0, None, 7, False, "text", None, None, 30.0)
door = Gateway(engine).open(folder / "door", policy, engine.describe(script), folder / "journal")
client = httpx.Client(transport=httpx.HTTPTransport(uds=str(folder / "door")), base_url="http://g")
for number in range(5):
    client.post("/api/chat", json={"messages": [{"role": "user", "content": str(number)}]})
print("five", flush=True)
time.sleep(60)
"""
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(short_dir), str(script)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "five\n"
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
    calls = [json.loads(line) for line in (short_dir / "journal" / "calls.jsonl").read_text().splitlines()]
    assert len(calls) >= 4
    assert [call["index"] for call in calls] == list(range(len(calls)))
    messages = (short_dir / "journal" / "messages.jsonl").read_text().splitlines()
    known = {json.loads(line)["sha256"] for line in messages}
    assert all(sha in known for call in calls for sha in call["messages"])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_journal_that_cannot_be_written_ends_the_run(open_run, short_dir: Path):
    (short_dir / "journal0").mkdir()
    (short_dir / "journal0" / "messages.jsonl").symlink_to("/dev/full")
    run = open_run('when_exhausted = "repeat"\n[[answers]]\ntext = "hello"\n')
    run.chat()
    assert run.door.stopped.wait(2)
    assert run.door.stop_reason == "sandbox_error"
    assert "No space left" in run.door.stop_detail
    assert run.chat().status_code == 403
    assert len(run.close()) == 1


def test_a_meter_is_told_of_the_edges_of_each_call(tmp_path: Path) -> None:
    """When it gets the engine, at its first token, at its end."""
    marks: list[float] = []
    (tmp_path / "play.toml").write_text('[[answers]]\ntext = "one two three four"\nfirst_token_delay_s = 0.2\n')
    engine = Scripted(tmp_path / "play.toml")
    gateway = Gateway(engine, lambda: marks.append(time.monotonic()))
    try:
        engine.prepare(str(tmp_path / "play.toml"), 4096)
        policy = Policy(str(tmp_path / "play.toml"), 4096, 100, 0.0, None, 1, False, "text", None, None, 30.0)
        socket_path = tmp_path / "s"
        door = gateway.open(socket_path, policy, engine.describe(str(tmp_path / "play.toml")), tmp_path / "journal")
        transport = httpx.HTTPTransport(uds=str(socket_path))
        with httpx.Client(transport=transport, base_url="http://gateway", timeout=20) as client:
            key = {"Authorization": f"Bearer {door.key}"}
            body = {"model": "any", "messages": [{"role": "user", "content": "hello"}]}
            assert client.post("/v1/chat/completions", json=body, headers=key).status_code == 200
        [call] = door.close()
    finally:
        gateway.close()
        engine.close()
    began, first, end = marks
    opened = door.opened_s
    assert call.first_token_s is not None
    assert began == pytest.approx(opened + call.offset_s, abs=0.05)
    assert first == pytest.approx(opened + call.offset_s + call.first_token_s, abs=0.05)
    assert end == pytest.approx(opened + call.offset_s + call.duration_s, abs=0.05)
    assert first - began >= 0.15
