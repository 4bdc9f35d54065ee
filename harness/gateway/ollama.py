"""Ollama's own dialect: /api/chat and /api/generate (streamed by default), /api/show, /api/tags."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import harness
from harness.engines.base import Delta, Finish, ModelInfo
from harness.gateway.openai import asked
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

_UNSUPPORTED = ("raw", "template", "suffix", "context", "images")
"""Fields of /api/generate that change the prompt in ways a chat can't: refused, rather than dropped."""


def read_chat(body: Mapping[str, Any], policy: Policy) -> tuple[Ask, Reply] | bytes:
    """A request for /api/chat, or at once the answer to one without messages ("load the model").

    Raises Refusal.
    """
    messages = messages_of(body)
    if not messages:
        return _loaded(policy, {"message": {"role": "assistant", "content": ""}})
    return _ask(body, to_openai(messages), policy), _OllamaReply(policy.model, "chat")


def read_generate(body: Mapping[str, Any], policy: Policy) -> tuple[Ask, Reply] | bytes:
    """A request for /api/generate, as a chat of one message (and a system message). Raises Refusal."""
    for name in _UNSUPPORTED:
        if body.get(name):
            raise Refusal(400, "unsupported_parameter", f"{name} is not supported: send the text in prompt")
    prompt, system = body.get("prompt") or "", body.get("system") or ""
    if not isinstance(prompt, str) or not isinstance(system, str):
        raise Refusal(400, "invalid_request", "prompt and system must be strings")
    if not prompt:
        return _loaded(policy, {"response": ""})
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": prompt})
    return _ask(body, messages, policy), _OllamaReply(policy.model, "generate")


def to_openai(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages in OpenAI's shape.

    Ollama's tool results carry no id, or only the tool's name: they are matched to the calls in order.
    Raises Refusal.
    """
    result: list[dict[str, Any]] = []
    open_ids: list[str] = []
    for number, message in enumerate(messages):
        if message.get("images"):
            raise Refusal(400, "unsupported_parameter", f"messages[{number}].images is not supported")
        content = message.get("content") or ""
        if message["role"] == "tool":
            call_id = message.get("tool_call_id") or (open_ids.pop(0) if open_ids else f"call_{number}")
            result.append({"role": "tool", "tool_call_id": call_id, "content": content})
            continue
        entry: dict[str, Any] = {"role": message["role"], "content": content}
        if message.get("thinking"):
            entry["reasoning_content"] = message["thinking"]
        calls = message.get("tool_calls")
        if calls:
            entry["tool_calls"] = [_call_to_openai(call, f"call_{number}_{place}") for place, call in enumerate(calls)]
            open_ids = [call["id"] for call in entry["tool_calls"]]
        result.append(entry)
    return result


def show(policy: Policy, model: ModelInfo) -> dict[str, Any]:
    """The answer to /api/show. The window it tells is the run's, not the one the model was trained for."""
    capabilities = ["completion"]
    if policy.protocol == "tools" and "tools" in model.capabilities:
        capabilities.append("tools")
    if policy.think and "thinking" in model.capabilities:
        capabilities.append("thinking")
    return {
        "modelfile": "",
        "template": "",
        "parameters": f"num_ctx {policy.num_ctx}\nnum_predict {policy.num_predict}",
        "details": _details(model),
        "model_info": {"general.architecture": "harness", "harness.context_length": policy.num_ctx},
        "capabilities": capabilities,
    }


def tags(policy: Policy, model: ModelInfo) -> dict[str, Any]:
    """The answer to /api/tags: the one model of the run."""
    entry = {
        "name": policy.model,
        "model": policy.model,
        "modified_at": "1970-01-01T00:00:00Z",  # Ollama's clients require a time; there is none to tell
        "size": model.size_bytes or 0,
        "digest": model.digest or "",
        "details": _details(model),
    }
    return {"models": [entry]}


def version() -> dict[str, Any]:
    """The answer to /api/version."""
    return {"version": harness.__version__}


def failure_body(failure: Failure) -> dict[str, Any]:
    """An error in Ollama's shape."""
    return {"error": failure.message}


class _OllamaReply:
    stream_type = "application/x-ndjson"

    def __init__(self, model: str, kind: Literal["chat", "generate"]) -> None:
        self._model = model
        self._kind = kind

    def whole(self, answer: Answer, finish: Finish) -> bytes:
        content = self._content("".join(answer.text), "".join(answer.thinking), answer.tool_calls)
        return encode(self._line(content, **_end(finish)))

    def piece(self, delta: Delta) -> bytes:
        content = self._content(delta.text, delta.thinking, delta.tool_calls)
        return encode(self._line(content, done=False)) + b"\n"

    def closing(self, answer: Answer, finish: Finish) -> bytes:
        return encode(self._line(self._content("", "", ()), **_end(finish))) + b"\n"

    def broken(self, failure: Failure) -> bytes:
        return encode(failure_body(failure)) + b"\n"

    def _line(self, content: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {"model": self._model, "created_at": _now(), **content, **more}

    def _content(
        self, text: str, thinking: str, tool_calls: list[Mapping[str, Any]] | tuple[Mapping[str, Any], ...]
    ) -> dict[str, Any]:
        if self._kind == "generate":
            return {"response": text} | ({"thinking": thinking} if thinking else {})
        calls = [_call_from_openai(call) for call in tool_calls]
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if thinking:
            message["thinking"] = thinking
        if calls:
            message["tool_calls"] = calls
        return {"message": message}


def _ask(body: Mapping[str, Any], messages: list[dict[str, Any]], policy: Policy) -> Ask:
    options = body.get("options") or {}
    if not isinstance(options, dict):
        raise Refusal(400, "invalid_request", "options must be an object")
    return Ask(
        dialect="ollama",
        messages=messages,
        tools=tools_of(body),
        tool_choice=None,
        stop=stop_words(options.get("stop")),
        response_format=_response_format(body.get("format")),
        stream=flag(body, "stream", default=True),
        asked=asked(body),
    )


def _response_format(value: object) -> Mapping[str, Any] | None:
    """Ollama's `format` ("json" or a JSON schema) in OpenAI's words."""
    if value is None or value == "":
        return None
    if value == "json":
        return {"type": "json_object"}
    if isinstance(value, dict):
        return {"type": "json_schema", "json_schema": {"name": "format", "schema": value}}
    raise Refusal(400, "invalid_request", 'format must be "json" or a JSON schema')


def _call_to_openai(call: Mapping[str, Any], spare_id: str) -> dict[str, Any]:
    function = call["function"]
    arguments = function.get("arguments")
    return {
        "id": call.get("id") or spare_id,
        "type": "function",
        "function": {
            "name": function["name"],
            "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments or {}),
        },
    }


def _call_from_openai(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    try:
        arguments = json.loads(function["arguments"] or "{}")
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        # Ollama's shape has room for an object only; what the model wrote must not be lost.
        arguments = {"arguments": function["arguments"]}
    translated: dict[str, Any] = {"function": {"name": function["name"], "arguments": arguments}}
    return {"id": call["id"], **translated} if call.get("id") else translated


def _end(finish: Finish) -> dict[str, Any]:
    """The last line's fields; a count or a duration that the engine did not tell is left out."""
    parts = {
        "load_duration": _nanoseconds(finish.load_s),
        "prompt_eval_count": finish.input_tokens,
        "prompt_eval_duration": _nanoseconds(finish.prefill_s),
        "eval_count": finish.output_tokens,
        "eval_duration": _nanoseconds(finish.decode_s),
    }
    durations = [finish.load_s, finish.prefill_s, finish.decode_s]
    if None not in durations:
        parts["total_duration"] = _nanoseconds(sum(s for s in durations if s is not None))
    # Ollama has no word of its own for an answer that ends in tool calls.
    reason = "length" if finish.reason == "length" else "stop"
    known = {name: value for name, value in parts.items() if value is not None}
    return {"done": True, "done_reason": reason, **known}


def _loaded(policy: Policy, content: dict[str, Any]) -> bytes:
    line = {"model": policy.model, "created_at": _now(), **content, "done": True, "done_reason": "load"}
    return encode(line)


def _details(model: ModelInfo) -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": "",
        "family": "",
        "families": None,
        "parameter_size": model.parameters or "",
        "quantization_level": model.quantization or "",
    }


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _nanoseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1e9)
