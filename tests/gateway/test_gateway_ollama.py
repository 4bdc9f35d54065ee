from __future__ import annotations

import json

import httpx
import pytest

from harness.gateway.ollama import to_openai

HELLO = """
capabilities = ["tools", "thinking"]
when_exhausted = "repeat"
[[answers]]
text = "one two three"
thinking = "well well"
chunk_words = 1
"""

TOOL = """
capabilities = ["tools"]
[[answers]]
tool_calls = [{ name = "bash", arguments = { command = "ls" } }]
"""

MESSAGES = [{"role": "user", "content": "fix it please"}]


def lines(response: httpx.Response) -> list[dict]:
    return [json.loads(line) for line in response.text.splitlines()]


def test_chat_streams_by_default(open_run):
    run = open_run(HELLO, think=True)
    response = run.client.post("/api/chat", json={"model": "any", "messages": MESSAGES})
    assert response.headers["content-type"].startswith("application/x-ndjson")
    *parts, last = lines(response)
    assert "".join(part["message"]["content"] for part in parts) == "one two three"
    assert "".join(part["message"].get("thinking", "") for part in parts) == "well well"
    assert [part["done"] for part in parts] == [False] * 5
    assert (last["done"], last["done_reason"]) == (True, "stop")
    assert (last["prompt_eval_count"], last["eval_count"]) == (3, 5)
    assert last["total_duration"] >= last["eval_duration"]
    [record] = run.close()
    assert (record.dialect, record.streamed) == ("ollama", True)


def test_chat_plain(open_run):
    run = open_run(HELLO)
    response = run.client.post("/api/chat", json={"model": "any", "messages": MESSAGES, "stream": False})
    body = response.json()
    assert body["message"] == {"role": "assistant", "content": "one two three"}
    assert body["done"] is True


@pytest.mark.parametrize("stream", [False, True])
def test_generate(open_run, stream):
    run = open_run(HELLO)
    body = {"model": "any", "prompt": "fix it", "system": "You fix.", "stream": stream}
    answers = lines(run.client.post("/api/generate", json=body))
    assert "".join(answer["response"] for answer in answers) == "one two three"
    assert run.upstream()[0]["messages"] == [
        {"role": "system", "content": "You fix."},
        {"role": "user", "content": "fix it"},
    ]
    [record] = run.close()
    assert record.input_tokens == 4
    assert "prompt" not in record.asked
    assert "system" not in record.asked


@pytest.mark.parametrize("stream", [False, True])
def test_tool_calls(open_run, stream):
    run = open_run(TOOL, protocol="tools")
    tools = [{"type": "function", "function": {"name": "bash"}}]
    body = {"messages": MESSAGES, "tools": tools, "stream": stream}
    answers = lines(run.client.post("/api/chat", json=body))
    calls = [call for answer in answers for call in answer["message"].get("tool_calls", ())]
    assert [call["function"] for call in calls] == [{"name": "bash", "arguments": {"command": "ls"}}]
    assert run.close()[0].tool_calls == 1


def test_the_policy_applies_and_stop_and_format_pass(open_run):
    run = open_run(HELLO)
    options = {"temperature": 1.9, "num_ctx": 512, "num_predict": -1, "seed": 5, "stop": ["END"]}
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    body = {"messages": MESSAGES, "options": options, "format": schema, "think": True, "keep_alive": 0}
    assert run.client.post("/api/chat", json=body).is_success
    [sent] = run.upstream()
    [record] = run.close()
    assert sent["think"] is False
    assert sent["options"]["stop"] == ["END"]
    assert sent["options"]["temperature"] == 0.0
    assert sent["options"]["num_ctx"] == 4096
    assert sent["options"]["seed"] == record.seed != 5
    assert sent["format"]["json_schema"]["schema"] == schema
    assert record.asked["options"] == options


def test_show_tags_and_version(open_run):
    run = open_run(HELLO, protocol="tools", num_ctx=2048)
    [entry] = run.client.get("/api/tags").json()["models"]
    shown = run.client.post("/api/show", json={"model": entry["name"]}).json()
    assert shown["capabilities"] == ["completion", "tools"]
    assert shown["model_info"]["harness.context_length"] == 2048
    assert run.client.get("/api/version").json()["version"]
    assert run.close() == []


def test_load_requests_do_not_reach_the_engine(open_run):
    run = open_run(HELLO)
    assert run.client.post("/api/chat", json={"model": "m"}).json()["done_reason"] == "load"
    assert run.client.post("/api/generate", json={"model": "m"}).json()["done_reason"] == "load"
    assert run.upstream() == []


@pytest.mark.parametrize("field", ["raw", "template", "suffix", "context", "images"])
def test_what_a_chat_cannot_do_is_refused_by_name(open_run, field):
    run = open_run(HELLO)
    response = run.client.post("/api/generate", json={"prompt": "x", field: ["y"]})
    assert response.status_code == 400
    assert field in response.json()["error"]


def test_history_with_tools_in_openais_shape():
    call = {"function": {"name": "bash", "arguments": {"command": "ls"}}}
    history = [
        {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [call, call]},
        {"role": "tool", "content": "a", "tool_name": "bash"},
        {"role": "tool", "content": "b", "tool_name": "bash"},
    ]
    assistant, *results = to_openai(history)
    assert assistant["reasoning_content"] == "hm"
    assert assistant["tool_calls"][0]["function"] == {"name": "bash", "arguments": '{"command": "ls"}'}
    ids = [call["id"] for call in assistant["tool_calls"]]
    assert len(set(ids)) == 2
    assert [result["tool_call_id"] for result in results] == ids
