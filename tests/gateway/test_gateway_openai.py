from __future__ import annotations

import json
from typing import Any

import pytest

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
text = "I look."
tool_calls = [{ name = "bash", arguments = { command = "ls" } }, { name = "bash", arguments = {} }]
"""

TOOLS = [{"type": "function", "function": {"name": "bash", "parameters": {"type": "object"}}}]


def events(text: str) -> list[dict[str, Any]]:
    """The chunks of a stream, whose last event must be [DONE]."""
    parts = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert parts[-1] == "[DONE]"
    return [json.loads(part) for part in parts[:-1]]


def test_plain(open_run):
    run = open_run(HELLO)
    response = run.chat()
    assert response.status_code == 200
    body = response.json()
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"] == {"role": "assistant", "content": "one two three"}
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["prompt_tokens"] == 6
    assert body["usage"]["completion_tokens"] == 3
    assert body["usage"]["total_tokens"] == 9
    assert run.upstream()[0]["stream"] is True  # also for a client that does not stream


def test_streamed(open_run):
    response = open_run(HELLO).chat(stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    chunks = events(response.text)
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == "one two three"
    assert len(chunks) == 4
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert all("usage" not in chunk for chunk in chunks)


def test_usage_in_the_last_chunk_when_asked_for(open_run):
    chunks = events(open_run(HELLO).chat(stream=True, stream_options={"include_usage": True}).text)
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] == 9


@pytest.mark.parametrize("stream", [False, True])
def test_thinking_is_kept_apart(open_run, stream):
    run = open_run(HELLO, think=True)
    response = run.chat(stream=stream)
    if stream:
        deltas = [chunk["choices"][0]["delta"] for chunk in events(response.text)]
        thinking = "".join(delta.get("reasoning_content", "") for delta in deltas)
        content = "".join(delta.get("content", "") for delta in deltas)
    else:
        message = response.json()["choices"][0]["message"]
        thinking, content = message["reasoning_content"], message["content"]
    assert (thinking, content) == ("well well", "one two three")
    [record] = run.close()
    assert (record.thinking_tokens, record.output_tokens) == (2, 5)


@pytest.mark.parametrize("stream", [False, True])
def test_tool_calls(open_run, stream):
    run = open_run(TOOL, protocol="tools")
    response = run.chat(stream=stream, tools=TOOLS)
    if stream:
        deltas = [chunk["choices"][0]["delta"] for chunk in events(response.text)]
        calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
        assert [call["index"] for call in calls] == [0, 1]
    else:
        choice = response.json()["choices"][0]
        assert choice["finish_reason"] == "tool_calls"
        calls = choice["message"]["tool_calls"]
    assert calls[0]["function"] == {"name": "bash", "arguments": '{"command": "ls"}'}
    assert calls[0]["id"] != calls[1]["id"]
    assert run.upstream()[0]["tools"] == TOOLS
    assert run.close()[0].tool_calls == 2


def test_the_policy_applies_whatever_is_asked(open_run):
    run = open_run(HELLO, temperature=0.7, top_p=0.95, num_ctx=2048, num_predict=33)
    asked = {"temperature": 1.5, "top_p": 0.1, "seed": 99, "max_tokens": 4000, "num_ctx": 9, "think": True}
    assert run.chat(model="gpt-5", stop=["END"], response_format={"type": "json_object"}, **asked).is_success
    [sent] = run.upstream()
    [record] = run.close()
    assert sent["model"] != "gpt-5"
    assert sent["think"] is False
    assert sent["format"] == {"type": "json_object"}
    assert sent["options"] == {
        "num_ctx": 2048,
        "num_predict": 33,
        "temperature": 0.7,
        "top_p": 0.95,
        "seed": record.seed,
        "stop": ["END"],
    }
    assert record.seed != 99
    assert {name: record.asked[name] for name in asked} == asked
    assert record.asked["model"] == "gpt-5"
    assert "messages" not in record.asked


def test_seeds_are_equal_across_runs_and_differ_between_calls(open_run):
    seeds = []
    for _ in range(2):
        run = open_run(HELLO)
        for _ in range(3):
            run.chat()
        seeds.append([record.seed for record in run.close()])
    assert seeds[0] == seeds[1]
    assert len(set(seeds[0])) == 3


def test_refused_requests_do_not_shift_the_seeds_after_them(open_run):
    straight = open_run(HELLO)
    for _ in range(3):
        straight.chat()
    wanted = [record.seed for record in straight.close()]
    curious = open_run(HELLO)
    curious.chat()
    assert curious.chat(tools=TOOLS).status_code == 400
    assert curious.client.post("/v1/chat/completions", content=b"{").status_code == 400
    curious.chat()
    assert curious.chat(n=2).status_code == 400
    curious.chat()
    records = curious.close()
    assert [record.index for record in records] == list(range(6))
    assert [record.seed for record in records] == [wanted[0], None, None, wanted[1], None, wanted[2]]


def test_models_with_and_without_the_prefix(open_run):
    run = open_run(HELLO)
    for path in ("/v1/models", "/models"):
        [model] = run.client.get(path).json()["data"]
        assert model["id"].endswith("script0.toml")
    assert run.client.post("/chat/completions", json={"messages": [{"role": "user", "content": "x"}]}).is_success
    assert run.client.get("/v1/engines").status_code == 404
    assert len(run.close()) == 1


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"n": 2}, "n=2"),
        ({"tools": TOOLS}, "text mode"),
        ({"functions": [{}]}, "functions"),
        ({"messages": []}, "messages"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": "hello"}, "messages"),
        ({"stop": 3}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"response_format": "json"}, "response_format"),
    ],
)
def test_refused(open_run, more, word):
    run = open_run(HELLO)
    response = run.chat(**more)
    assert response.status_code == 400
    assert word in response.json()["error"]["message"]
    assert response.json()["error"]["code"]
    [record] = run.close()
    assert (record.status, record.http_status, record.sent, record.seed) == ("refused", 400, False, None)
    assert run.upstream() == []


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'{"messages": NaN}', b"[" * 100_000])
def test_a_body_that_is_not_a_json_object(open_run, body):
    response = open_run(HELLO).client.post("/v1/chat/completions", content=body)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_json"


def test_tools_are_refused_to_a_model_without_them(open_run):
    run = open_run("[[answers]]\ntext = 'x'", protocol="tools")
    response = run.chat(tools=TOOLS)
    assert response.status_code == 400
    assert "no tool support" in response.json()["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_thinking_used_up_has_an_error_of_its_own(open_run, stream):
    toml = 'capabilities = ["thinking"]\n[[answers]]\nthinking = "a b c d e"\ntext = "never said"'
    run = open_run(toml, think=True, num_predict=3)
    response = run.chat(stream=stream)
    assert "empty_after_thinking" in response.text
    if not stream:
        assert response.status_code == 422
        assert response.json()["error"]["code"] == "empty_after_thinking"
        assert response.headers["x-should-retry"] == "false"
    [record] = run.close()
    assert (record.status, record.truncated, record.output_tokens) == ("empty_after_thinking", True, 3)


def test_an_answer_cut_at_num_predict_is_truncated(open_run):
    run = open_run(HELLO, num_predict=2)
    choice = run.chat().json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("one two", "length")
    [record] = run.close()
    assert (record.status, record.truncated, record.finish_reason) == ("ok", True, "length")


def test_calls_are_fresh_until_the_engine_has_answered_once(open_run):
    run = open_run('[[answers]]\nfault = "refuse"\n[[answers]]\ntext = "a"\n[[answers]]\ntext = "b"\n')
    assert [run.chat().status_code for _ in range(2)] == [200, 200]
    assert [request.fresh for request in run.engine.requests] == [True, True, False]
