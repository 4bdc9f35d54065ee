from __future__ import annotations

import json
from typing import Any

import pytest
from asking import question

from harness.engines.base import EngineError
from harness.engines.ollama import server_url
from harness.engines.ollama_shapes import chat_body, finish, refusal, tool_call
from harness.errors import UserError

CALL = {"id": "abc", "type": "function", "function": {"name": "shell", "arguments": '{"command": "ls"}'}}


def test_nothing_is_cut_or_shifted_and_every_limit_is_sent() -> None:
    body = chat_body(question("hi", top_p=0.9, stop=["x"]))
    assert (body["truncate"], body["shift"], body["stream"], body["keep_alive"]) == (False, False, True, -1)
    assert body["options"] == {
        "num_ctx": 2048,
        "num_predict": 8,
        "temperature": 0.0,
        "seed": 7,
        "top_p": 0.9,
        "stop": ["x"],
    }
    assert not {"tools", "format"} & body.keys()
    assert body["think"] is False  # said, not left out: without it a model that can think does


def test_a_conversation_with_tools() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "developer", "content": [{"type": "text", "text": "be "}, {"type": "text", "text": "brief"}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "abc", "content": "a.txt"},
    ]
    tool = {"type": "function", "function": {"name": "shell", "parameters": {"type": "object"}}}
    body = chat_body(question("", messages=messages, tools=[tool], think=True))
    assert body["messages"] == [
        {"role": "system", "content": "be brief"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "abc", "function": {"name": "shell", "arguments": {"command": "ls"}}}],
        },
        {"role": "tool", "content": "a.txt", "tool_call_id": "abc", "tool_name": "shell"},
    ]
    assert body["tools"] == [tool]
    assert body["think"] is True
    assert "tools" not in chat_body(question("", tools=[tool], tool_choice="none"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"type": "json_object"}, "json"),
        ({"type": "json_schema", "json_schema": {"schema": {"type": "array"}}}, {"type": "array"}),
        ({"type": "text"}, None),
    ],
)
def test_answer_formats(given: dict[str, Any], expected: Any) -> None:
    assert chat_body(question("", response_format=given)).get("format") == expected


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "image_url"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]}, "'{'"),
        ({"response_format": {"type": "yaml"}}, "yaml"),
    ],
)
def test_what_ollama_could_not_take_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(EngineError, match=said) as caught:
        chat_body(question("", **changes))
    assert caught.value.kind == "bad_request"


def test_calls_come_back_as_openai_has_them_with_an_id_that_repeats() -> None:
    answered = {"function": {"name": "shell", "arguments": {"command": "ls ü"}}}
    call = tool_call(answered, 0, seed=1)
    assert json.loads(call["function"]["arguments"]) == {"command": "ls ü"}
    assert call == tool_call(answered, 0, seed=1)
    ids = {tool_call(answered, index, seed)["id"] for index in (0, 1) for seed in (1, 2)}
    assert len(ids) == 4
    assert all(len(one) == 9 and one.isalnum() for one in ids)


def test_unknown_counts_stay_unknown() -> None:
    end = finish({"done_reason": "stop", "eval_count": 3, "eval_duration": 2_500_000_000}, False, 0)
    assert (end.output_tokens, end.decode_s) == (3, 2.5)
    assert (end.input_tokens, end.cached_tokens, end.prefill_s, end.load_s) == (None, None, None, None)
    assert finish({"done_reason": "stop"}, True, 0).reason == "tool_calls"
    assert finish({"done_reason": "length"}, True, 0).reason == "length"


@pytest.mark.parametrize(
    ("text", "status", "kind"),
    [
        ("the input length exceeds the context length", 400, "context_overflow"),
        ('"gemma3:4b" does not support thinking', 400, "bad_request"),
        ("server busy, please try again", 503, "unavailable"),
        ("slow down", 429, "rate_limited"),
        ("llama runner process has terminated", None, "unavailable"),
    ],
)
def test_refusals_are_told_apart(text: str, status: int | None, kind: str) -> None:
    assert refusal(text, status).kind == kind


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (None, "http://127.0.0.1:11434"),
        ("", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:9000", "http://127.0.0.1:9000"),
        (":9000", "http://127.0.0.1:9000"),
        ("box", "http://box:11434"),
        ("http://box", "http://box:80"),
        ("https://box/ollama/", "https://box:443/ollama"),
        ("[::1]:9000", "http://[::1]:9000"),
    ],
)
def test_the_servers_address(host: str | None, expected: str) -> None:
    assert server_url(host) == expected


@pytest.mark.parametrize("host", ["box:port", "ftp://box", "box:99999"])
def test_an_address_that_is_none(host: str) -> None:
    with pytest.raises(UserError, match="OLLAMA_HOST"):
        server_url(host)
