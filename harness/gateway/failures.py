"""Why a call failed, in the words that its client is told: statuses that say whether trying again makes sense."""

from __future__ import annotations

from typing import Literal

from harness.engines.base import EngineError
from harness.gateway.policy import Policy
from harness.gateway.wire import Answer, Failure, short


def run_over(reason: str, code: str = "run_over") -> Failure:
    """What every request gets once its run has to end: a status that no client library retries."""
    return Failure("limit", 403, code, f"the run is over: {reason}")


def aborted(by: Literal["client", "run"]) -> Failure:
    who = "the client left" if by == "client" else "the run ended"
    return Failure("aborted", 403, "run_over", f"{who} before the answer was complete")


def engine_failed(error: EngineError, policy: Policy) -> Failure:
    said = short(str(error))
    if error.kind == "context_overflow":
        # The wording by which litellm, and the frameworks on top of it, know this error.
        message = f"This model's maximum context length is {policy.num_ctx} tokens: {said}"
        return Failure("context_overflow", 400, "context_length_exceeded", message)
    if error.kind == "bad_request":
        return Failure("bad_request", 400, "engine_refused", f"the engine refused the request: {said}")
    if error.kind == "timeout":
        return Failure("timeout", 400, "call_timeout", f"the engine timed out: {said}")
    return Failure("engine_error", 503, "engine_failed", f"the engine failed: {said}")


def no_answer(answer: Answer, policy: Policy) -> Failure | None:
    """What is wrong with an answer that came to its end, if anything: it has no last word, or nothing but thinking."""
    finish = answer.finish
    if finish is None:
        return engine_failed(EngineError("unavailable", "its answer ended without a last word"), policy)
    thought = bool(answer.thinking) or bool(finish.thinking_tokens)
    if finish.reason == "length" and thought and not answer.tool_calls and not "".join(answer.text).strip():
        message = f"thinking used up all {policy.num_predict} tokens of the answer"
        return Failure("empty_after_thinking", 422, "empty_after_thinking", message)
    return None
