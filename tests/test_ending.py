"""Which ending is concluded from what was seen; what the agent claims counts last."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.ending import Evidence, name_the_ending
from harness.gateway.ledger import CallRecord
from harness.sandbox.container import State

CLEAN = Evidence(
    exit_code=0, container=State("running", False), oom_kills=0, claimed="submitted", calls=[], max_calls=2
)


def call(status: str = "ok", error: str | None = None) -> CallRecord:
    return CallRecord(
        index=0, call_id="c", started_at="", offset_s=0.0, queued_s=0.0, duration_s=0.0, first_token_s=None,
        load_s=None, prefill_s=None, decode_s=None, input_tokens=None, cached_tokens=None, thinking_tokens=None,
        output_tokens=None, status=status, http_status=None, error=error, truncated=False, finish_reason=None,
        dialect="openai", streamed=False, sent=True, seed=None, asked={}, tool_calls=0, request_bytes=0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("seen", "ended_by", "word"),
    [
        ({}, "submitted", None),
        ({"claimed": None}, "gave_up", "no result file"),
        ({"claimed": "unreadable"}, "gave_up", "can't be read"),
        ({"claimed": "gave_up"}, "gave_up", None),
        ({"claimed": "format_failure"}, "format_failure", None),
        ({"claimed": "error"}, "crashed", "of its framework"),
        ({"claimed": "limit", "calls": [call(), call()]}, "budget_calls", "limit of 2 calls"),
        ({"claimed": "limit", "calls": [call()]}, "gave_up", "limit of its own"),
        ({"exit_code": 7}, "crashed", "exit code 7"),
        ({"exit_code": 7, "claimed": "gave_up"}, "crashed", "exit code 7"),
        ({"exit_code": 137, "oom_kills": 1}, "oom", "out of memory"),
        ({"exit_code": None, "oom_kills": 1}, "oom", "out of memory"),
        # A tool that the agent called was killed, and the agent lived with it.
        ({"exit_code": 0, "oom_kills": 1}, "submitted", None),
        ({"oom_kills": None, "exit_code": 137}, "crashed", "exit code 137"),
        ({"exit_code": None}, "sandbox_error", "did not tell how the runner ended"),
        ({"container": State("gone", False), "exit_code": None}, "sandbox_error", "Docker does not answer"),
        ({"container": State("ended", False), "exit_code": None}, "crashed", "ended its own sandbox"),
        ({"container": State("ended", True), "exit_code": None}, "oom", "out of memory"),
        ({"calls": [call("context_overflow", "too long")], "exit_code": 1}, "context_overflow", "too long"),
        ({"calls": [call("engine_error", "refused")], "exit_code": 1}, "model_error", "refused"),
        ({"calls": [call("timeout", "slow")], "claimed": "error"}, "model_error", "slow"),
        ({"calls": [call("bad_request", "no")], "exit_code": 1}, "crashed", "exit code 1"),
        ({"calls": [call("empty_after_thinking", "hm")], "claimed": "error"}, "format_failure", "hm"),
        ({"calls": [call("empty_after_thinking", "hm")], "exit_code": 1}, "format_failure", "hm"),
        ({"calls": [call("empty_after_thinking", "hm")], "claimed": "gave_up"}, "gave_up", None),
        # It went on after the fault, so the fault is not what ended it.
        ({"calls": [call("engine_error", "refused"), call()]}, "submitted", None),
    ],
)
def test_the_ending_follows_from_what_was_seen(seen: dict[str, object], ended_by: str, word: str | None) -> None:
    name, detail = name_the_ending(replace(CLEAN, **seen))
    assert name == ended_by
    assert (detail is None) if word is None else word in (detail or "")
