"""OpenAI's dialect: /v1/chat/completions, plain and streamed, and /v1/models."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any

from harness.engines.base import Delta, Finish
from harness.gateway.policy import Policy
from harness.gateway.wire import (
    Answer,
    Ask,
    Failure,
    Refusal,
    Reply,
    encode,
    flag,
    messages_of,
    stop_words,
    tools_of,
)

_SAID = frozenset(("messages", "tools", "functions", "prompt", "system", "input", "context", "images"))
ASKED_BYTES = 64 << 10
"""Of a request, less what was said, that is kept with its record: the records of a run stay in memory to its end."""
_ERROR_TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error"}


def read_chat(body: Mapping[str, Any], policy: Policy) -> tuple[Ask, Reply]:
    """A request for /v1/chat/completions. Raises Refusal."""
    messages = messages_of(body)
    if not messages:
        raise Refusal(400, "invalid_request", "messages must have at least one message")
    if body.get("n") not in (None, 1):
        raise Refusal(400, "unsupported_parameter", f"n must be 1: one answer a call, not n={body['n']!r}")
    if body.get("functions"):
        raise Refusal(400, "unsupported_parameter", "functions is not supported: use tools")
    response_format = body.get("response_format")
    if response_format is not None and not isinstance(response_format, dict):
        raise Refusal(400, "invalid_request", "response_format must be an object")
    if not isinstance(body.get("tool_choice"), str | dict | None):
        raise Refusal(400, "invalid_request", "tool_choice must be a string or an object")
    stream_options = body.get("stream_options") or {}
    if not isinstance(stream_options, dict):
        raise Refusal(400, "invalid_request", "stream_options must be an object")
    ask = Ask(
        dialect="openai",
        messages=messages,
        tools=tools_of(body),
        tool_choice=body.get("tool_choice"),
        stop=stop_words(body.get("stop")),
        response_format=response_format,
        stream=flag(body, "stream", default=False),
        asked=asked(body),
    )
    return ask, _ChatReply(policy.model, include_usage=flag(stream_options, "include_usage", default=False))


def asked(body: Mapping[str, Any]) -> dict[str, Any]:
    """What the framework asked for, as sent, less what was said; of the tools their number. Of what is larger than
    anybody's parameters the size alone."""
    rest = {name: value for name, value in body.items() if name not in _SAID}
    tools = body.get("tools")
    number = {"tools": len(tools) if isinstance(tools, list) else 0}
    size = len(encode(rest))
    return (rest if size <= ASKED_BYTES else {"left_out_bytes": size}) | number


def models(policy: Policy) -> dict[str, Any]:
    """The answer to /v1/models: the one model of the run."""
    return {"object": "list", "data": [model(policy)]}


def model(policy: Policy) -> dict[str, Any]:
    return {"id": policy.model, "object": "model", "created": 0, "owned_by": "harness"}


def failure_body(failure: Failure) -> dict[str, Any]:
    """An error in OpenAI's shape."""
    kind = _ERROR_TYPES.get(
        failure.http_status, "server_error" if failure.http_status >= 500 else "invalid_request_error"
    )
    return {"error": {"message": failure.message, "type": kind, "param": None, "code": failure.code}}


class _ChatReply:
    stream_type = "text/event-stream"

    def __init__(self, model: str, include_usage: bool) -> None:
        self._head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}
        self._include_usage = include_usage
        self._begun = False
        self._tool_calls = 0

    def whole(self, answer: Answer, finish: Finish) -> bytes:
        text = "".join(answer.text)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": text if text or not answer.tool_calls else None,
        }
        if answer.thinking:
            message["reasoning_content"] = "".join(answer.thinking)
        if answer.tool_calls:
            message["tool_calls"] = answer.tool_calls
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish.reason}
        body = {**self._head, "object": "chat.completion", "choices": [choice]}
        usage = _usage(finish)
        return encode(body | {"usage": usage} if usage else body)

    def piece(self, delta: Delta) -> bytes:
        part: dict[str, Any] = {}
        if not self._begun:
            self._begun = True
            part["role"] = "assistant"
        if delta.text or not (delta.thinking or delta.tool_calls):
            part["content"] = delta.text
        if delta.thinking:
            part["reasoning_content"] = delta.thinking
        if delta.tool_calls:
            part["tool_calls"] = [
                {"index": number, **call} for number, call in enumerate(delta.tool_calls, start=self._tool_calls)
            ]
            self._tool_calls += len(delta.tool_calls)
        return self._chunk([{"index": 0, "delta": part, "logprobs": None, "finish_reason": None}])

    def closing(self, answer: Answer, finish: Finish) -> bytes:
        part = {} if self._begun else {"role": "assistant", "content": ""}
        end = self._chunk([{"index": 0, "delta": part, "logprobs": None, "finish_reason": finish.reason}])
        usage = _usage(finish) if self._include_usage else None
        if usage:
            end += self._chunk([], usage=usage)
        return end + b"data: [DONE]\n\n"

    def broken(self, failure: Failure) -> bytes:
        return b"data: " + encode(failure_body(failure)) + b"\n\n"

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        body = {**self._head, "object": "chat.completion.chunk", "choices": choices, **more}
        return b"data: " + encode(body) + b"\n\n"


def _usage(finish: Finish) -> dict[str, Any] | None:
    """Left out altogether when a count is unknown: OpenAI's shape has no word for that."""
    if finish.input_tokens is None or finish.output_tokens is None:
        return None
    usage: dict[str, Any] = {
        "prompt_tokens": finish.input_tokens,
        "completion_tokens": finish.output_tokens,
        "total_tokens": finish.input_tokens + finish.output_tokens,
    }
    if finish.cached_tokens is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": finish.cached_tokens}
    if finish.thinking_tokens is not None:
        usage["completion_tokens_details"] = {"reasoning_tokens": finish.thinking_tokens}
    return usage
