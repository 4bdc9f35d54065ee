"""What llama.cpp's server is sent and what it answers: its own words for a request, a refusal and an end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from harness.engines.base import ChatRequest, EngineError, Finish
from harness.engines.streaming import finish_reason


def body(request: ChatRequest) -> dict[str, Any]:
    body: dict[str, Any] = {
        "messages": list(request.messages),
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": request.num_predict,
        "temperature": request.temperature,
        "seed": request.seed & 0xFFFFFFFF,
        "cache_prompt": not request.fresh,
        "chat_template_kwargs": {"enable_thinking": request.think},
    }
    if request.top_p is not None:
        body["top_p"] = request.top_p
    if request.tools:
        body["tools"] = list(request.tools)
        body["timings_per_token"] = True  # so that an answer that ends by _NO_TOOL_CALL is not all unknown
        if request.tool_choice is not None:
            body["tool_choice"] = request.tool_choice
    if request.stop:
        body["stop"] = list(request.stop)
    if request.response_format is not None:
        body["response_format"] = dict(request.response_format)
    return body


def refusal(answer: bytes, status: int | None) -> EngineError:
    """`answer` is `{"error": {"code", "message", "type"}}`; a prompt that is too long has a type of its own."""
    try:
        error = json.loads(answer)["error"]
        message, kind, code = f"llama.cpp: {error['message']}", error["type"], status or error["code"]
    except (ValueError, KeyError, TypeError):
        text = answer.decode("utf-8", "replace")[:500]
        return EngineError("unavailable", f"llama.cpp answered {status}: {text}", status)
    if kind == "exceed_context_size_error":
        return EngineError("context_overflow", message, code, error.get("n_prompt_tokens"))
    if 400 <= code < 500:
        return EngineError("rate_limited" if code == 429 else "bad_request", message, code)
    return EngineError("unavailable", message, code)


def finish(reason: str, called: bool, timings: Mapping[str, Any], thinking_tokens: int | None, whole: bool) -> Finish:
    """`whole` is false when the last timings are older than the last token: what was put out is not known."""
    if not timings:
        return Finish(finish_reason(reason, called), thinking_tokens=thinking_tokens)
    cached = timings["cache_n"]
    return Finish(
        finish_reason(reason, called),
        input_tokens=timings["prompt_n"] + cached,
        cached_tokens=cached,
        thinking_tokens=thinking_tokens,
        output_tokens=timings["predicted_n"] if whole else None,
        load_s=0.0,  # it is loaded before the first call and stays
        prefill_s=timings["prompt_ms"] / 1000,
        decode_s=timings["predicted_ms"] / 1000 if whole else None,
    )
