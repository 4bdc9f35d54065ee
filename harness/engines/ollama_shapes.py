"""OpenAI's shapes into those of Ollama's /api/chat, and its answers back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from harness.engines.base import ChatRequest, EngineError, Finish
from harness.engines.streaming import count_in, finish_reason, openai_call, text_in

FOREVER = -1  # keep_alive: the model leaves memory when the sweep says so, not in the middle of a run


def chat_body(request: ChatRequest) -> dict[str, Any]:
    """`truncate` and `shift` off: a prompt that does not fit is an error, and an answer that fills the window
    ends with "length", instead of a conversation that lost its beginning."""
    options: dict[str, Any] = {
        "num_ctx": request.num_ctx,
        "num_predict": request.num_predict,
        "temperature": request.temperature,
        "seed": request.seed & 0x7FFFFFFF,
    }
    if request.top_p is not None:
        options["top_p"] = request.top_p
    if request.stop:
        options["stop"] = list(request.stop)
    body: dict[str, Any] = {
        "model": request.model,
        "messages": _messages(request.messages),
        "stream": True,
        "think": request.think,  # left out, Ollama lets every model think that can
        "truncate": False,
        "shift": False,
        "options": options,
        "keep_alive": FOREVER,
    }
    # Ollama has no tool_choice: "none" is the one value that can be honoured, by offering nothing.
    if request.tools and request.tool_choice != "none":
        body["tools"] = list(request.tools)
    if request.response_format is not None:
        wanted = _format(request.response_format)
        if wanted is not None:
            body["format"] = wanted
    return body


def _messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Arguments of tool calls become objects, tool results get the name of their tool, content becomes text.

    Raises EngineError("bad_request") for images and for arguments that are no JSON object.
    """
    names: dict[str, str] = {}
    return [_message(message, names) for message in messages]


def _message(message: Mapping[str, Any], names: dict[str, str]) -> dict[str, Any]:
    role = message["role"]
    out: dict[str, Any] = {
        "role": "system" if role == "developer" else role,
        "content": _text(message.get("content")),
    }
    thinking = message.get("reasoning_content") or message.get("thinking")
    if thinking:
        out["thinking"] = thinking
    calls = message.get("tool_calls") or ()
    if calls:
        out["tool_calls"] = [_past_call(call, names) for call in calls]
    if role == "tool":
        identity = message.get("tool_call_id")
        if identity:
            out["tool_call_id"] = identity
        name = message.get("name") or names.get(identity or "")
        if name:
            out["tool_name"] = name
    return out


def _past_call(call: Mapping[str, Any], names: dict[str, str]) -> dict[str, Any]:
    function = call["function"]
    if call.get("id"):
        names[call["id"]] = function["name"]
    out: dict[str, Any] = {"function": {"name": function["name"], "arguments": _arguments(function.get("arguments"))}}
    if call.get("id"):
        out["id"] = call["id"]
    return out


def _arguments(given: Any) -> dict[str, Any]:
    if isinstance(given, Mapping):
        return dict(given)
    try:
        parsed = json.loads(given or "{}")
    except (TypeError, ValueError):
        parsed = None
    if not isinstance(parsed, dict):
        raise EngineError("bad_request", f"arguments of a tool call are no JSON object: {given!r}")
    return parsed


def _text(content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    pieces = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind != "text":
            raise EngineError("bad_request", f"a message has a part of type {kind}; the harness passes text only")
        pieces.append(str(part.get("text") or ""))
    return "".join(pieces)


def _format(response_format: Mapping[str, Any]) -> Any:
    """OpenAI's response_format as Ollama's `format`: "json", a JSON schema, or None for plain text."""
    kind = response_format.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return "json"
    if kind == "json_schema":
        schema = response_format.get("json_schema")
        if isinstance(schema, Mapping) and "schema" in schema:
            return schema["schema"]
        raise EngineError("bad_request", "response_format of type json_schema has no schema")
    raise EngineError("bad_request", f"response_format of type {kind} is unknown")


def tool_call(call: Mapping[str, Any], index: int, seed: int) -> dict[str, Any]:
    function = call["function"]
    arguments = json.dumps(function.get("arguments") or {}, ensure_ascii=False)
    return openai_call("", index, text_in(function["name"]), arguments, seed)


def finish(last: Mapping[str, Any], called: bool, thinking_chunks: int) -> Finish:
    return Finish(
        finish_reason(last.get("done_reason"), called),
        input_tokens=count_in(last.get("prompt_eval_count")),
        cached_tokens=count_in(last.get("prompt_eval_cached_count")),
        # One chunk is one token, but for a character that spans several: never more than there were.
        thinking_tokens=thinking_chunks,
        output_tokens=count_in(last.get("eval_count")),
        load_s=_seconds(last.get("load_duration")),
        prefill_s=_seconds(last.get("prompt_eval_duration")),
        decode_s=_seconds(last.get("eval_duration")),
    )


def _seconds(told: Any) -> float | None:
    nanoseconds = count_in(told)
    return None if nanoseconds is None else nanoseconds / 1e9


def error_text(content: bytes) -> str:
    try:
        return str(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError):
        return content.decode("utf-8", "replace").strip() or "(no message)"


def refusal(text: str, status: int | None) -> EngineError:
    """Ollama has no codes for its errors: the sentence is all there is."""
    message = f"Ollama: {text}"
    if "exceeds the context length" in text or "exceeds maximum context" in text:
        return EngineError("context_overflow", message, status)
    if status == 429:
        return EngineError("rate_limited", message, status)
    if status is not None and 400 <= status < 500:
        return EngineError("bad_request", message, status)
    return EngineError("unavailable", message, status)
