"""How an answer of a script sounds: its chunks and its end in OpenAI's and Ollama's dialects. A test tool."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from harness.engines.base import Delta
from harness.engines.scripted_play import Entry, tokens

PATHS = frozenset({"/v1/chat/completions", "/api/chat", "/api/generate"})


class Voice(Protocol):
    """One answer in one dialect."""

    content_type: str  # of the stream
    streamed: bool

    def chunk(self, delta: Delta) -> bytes: ...

    def last(self, counts: Mapping[str, Any]) -> bytes: ...

    def whole(self, delta: Delta, counts: Mapping[str, Any]) -> bytes: ...


def voice(path: str, body: Mapping[str, Any]) -> Voice:
    """The dialect of a path, for one request."""
    return _OpenAI(body) if path.startswith("/v1/") else _Ollama(body, path == "/api/generate")


def error_body(path: str, message: str) -> dict[str, Any]:
    """An error in the dialect of a path."""
    if path.startswith("/v1/"):
        return {"error": {"message": message, "type": "scripted", "param": None, "code": None}}
    return {"error": message}


def prompt_tokens(body: Mapping[str, Any]) -> list[str]:
    """The words of the messages' text (not those of tools and tool calls)."""
    texts = [str(body.get("system") or ""), str(body.get("prompt") or "")]
    for message in body.get("messages") or ():
        content = message.get("content") or ""
        parts = content if isinstance(content, list) else [{"text": content}]
        texts += [str(part.get("text", "")) for part in parts]
    return " ".join(texts).split()


def deltas(path: str, body: Mapping[str, Any], entry: Entry) -> tuple[list[Delta], int, int, bool]:
    """An answer as (chunks, thinking tokens, output tokens with thinking, whether the limit cut it)."""
    options = body.get("options") or {}
    limit = options.get("num_predict") or body.get("max_completion_tokens") or body.get("max_tokens")
    thinks = path.startswith("/v1/") or bool(body.get("think"))
    thinking = tokens(entry.thinking) if thinks else []
    text = tokens(entry.text)
    full = len(thinking) + len(text)
    if limit and limit > 0:
        thinking = thinking[:limit]
        text = text[: limit - len(thinking)]
    chunks = [Delta(thinking=part) for part in _chunks(thinking, entry.chunk_words)]
    chunks += [Delta(text=part) for part in _chunks(text, entry.chunk_words)]
    used = len(thinking) + len(text)
    if entry.tool_calls and used == full:
        calls = tuple(
            {
                "id": f"call_{number}",
                "type": "function",
                "function": {
                    "name": call.name,
                    "arguments": call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments),
                },
            }
            for number, call in enumerate(entry.tool_calls)
        )
        chunks.append(Delta(tool_calls=calls))
    return chunks, len(thinking), used, used < full


def joined(chunks: list[Delta]) -> Delta:
    """The chunks as one."""
    return Delta(
        text="".join(chunk.text for chunk in chunks),
        thinking="".join(chunk.thinking for chunk in chunks),
        tool_calls=tuple(call for chunk in chunks for call in chunk.tool_calls),
    )


class _OpenAI:
    content_type = "text/event-stream"

    def __init__(self, body: Mapping[str, Any]) -> None:
        self.streamed = bool(body.get("stream"))
        self._usage = bool((body.get("stream_options") or {}).get("include_usage"))
        self._head = {"id": "chatcmpl-scripted", "created": 0, "model": body.get("model")}

    def chunk(self, delta: Delta) -> bytes:
        message = self._message(delta)
        if calls := message.get("tool_calls"):
            message["tool_calls"] = [{"index": number, **call} for number, call in enumerate(calls)]
        return self._event([{"index": 0, "delta": message, "finish_reason": None}])

    def last(self, counts: Mapping[str, Any]) -> bytes:
        end = self._event([{"index": 0, "delta": {}, "finish_reason": counts["reason"]}])
        if self._usage:
            end += self._event([], usage=_usage(counts))
        return end + b"data: [DONE]\n\n"

    def whole(self, delta: Delta, counts: Mapping[str, Any]) -> bytes:
        choice = {"index": 0, "message": self._message(delta), "finish_reason": counts["reason"]}
        body = {**self._head, "object": "chat.completion", "choices": [choice], "usage": _usage(counts)}
        return json.dumps(body).encode()

    def _message(self, delta: Delta) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": delta.text}
        if delta.thinking:
            message["reasoning_content"] = delta.thinking
        if delta.tool_calls:
            message["tool_calls"] = list(delta.tool_calls)
        return message

    def _event(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        body = {**self._head, "object": "chat.completion.chunk", "choices": choices, **more}
        return b"data: " + json.dumps(body).encode() + b"\n\n"


class _Ollama:
    content_type = "application/x-ndjson"

    def __init__(self, body: Mapping[str, Any], generate: bool) -> None:
        self.streamed = body.get("stream") is not False
        self._model = body.get("model")
        self._generate = generate

    def chunk(self, delta: Delta) -> bytes:
        return json.dumps(self._line(delta) | {"done": False}).encode() + b"\n"

    def last(self, counts: Mapping[str, Any]) -> bytes:
        return self.whole(Delta(), counts) + b"\n"

    def whole(self, delta: Delta, counts: Mapping[str, Any]) -> bytes:
        end = {
            "done": True,
            "done_reason": "length" if counts["reason"] == "length" else "stop",
            "total_duration": counts["prefill_ns"] + counts["decode_ns"],
            "load_duration": 0,
            "prompt_eval_count": counts["input_tokens"],
            "prompt_eval_duration": counts["prefill_ns"],
            "eval_count": counts["output_tokens"],
            "eval_duration": counts["decode_ns"],
            # Not Ollama's: it has no words for these.
            "scripted": {name: counts[name] for name in ("cached_tokens", "thinking_tokens", "reason")},
        }
        return json.dumps(self._line(delta) | end).encode()

    def _line(self, delta: Delta) -> dict[str, Any]:
        head = {"model": self._model, "created_at": datetime.now(UTC).isoformat().replace("+00:00", "Z")}
        if self._generate:
            return head | {"response": delta.text, "thinking": delta.thinking}
        message: dict[str, Any] = {"role": "assistant", "content": delta.text}
        if delta.thinking:
            message["thinking"] = delta.thinking
        if delta.tool_calls:
            message["tool_calls"] = [
                {
                    "id": call["id"],
                    "function": {
                        "name": call["function"]["name"],
                        "arguments": _object(call["function"]["arguments"]),
                    },
                }
                for call in delta.tool_calls
            ]
        return head | {"message": message}


def _object(arguments: str) -> Any:
    """Ollama's arguments are an object; broken ones, which Ollama itself does not let through, stay as they are."""
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


def _usage(counts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "prompt_tokens": counts["input_tokens"],
        "completion_tokens": counts["output_tokens"],
        "total_tokens": counts["input_tokens"] + counts["output_tokens"],
        "prompt_tokens_details": {"cached_tokens": counts["cached_tokens"]},
        "completion_tokens_details": {"reasoning_tokens": counts["thinking_tokens"]},
    }


def _chunks(pieces: list[str], size: int) -> Iterator[str]:
    size = size or max(len(pieces), 1)
    for start in range(0, len(pieces), size):
        yield "".join(pieces[start : start + size])
