"""What of a scenario's run is to be mended, decided from what was stored of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.conformance.check import problems
from harness.conformance.scenarios import SCENARIOS
from harness.gateway.ledger import CallRecord

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}

ROW: dict[str, Any] = {
    "ended_by": "submitted", "ended_detail": None, "verdict": "resolved", "verdict_detail": None, "exit_code": 0,
    "claimed": "submitted", "claim_message": None, "calls": 2,
    "agent_s": 4.0, "setup_s": 1.0, "started_at": "2026-01-01T00:00:00.000+00:00",
}  # fmt: skip

CALL = CallRecord(
    index=0, call_id="c", started_at="2026-01-01T00:00:02.000+00:00", offset_s=0.0, queued_s=0.0, duration_s=1.0,
    first_token_s=None, load_s=None, prefill_s=None, decode_s=None, input_tokens=None, cached_tokens=None,
    thinking_tokens=None, output_tokens=None, status="ok", http_status=200, error=None, truncated=False,
    finish_reason=None, dialect="openai", streamed=False, sent=True, seed=None, asked={}, tool_calls=0,
    request_bytes=0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("scenario", "row", "patch", "problem"),
    [
        ("solves", {}, "", None),
        ("solves", {"verdict": "unresolved"}, "", "the verdict is unresolved"),
        ("solves", {"ended_by": "gave_up"}, "", "it ended by gave_up (no more is known), expected submitted"),
        ("rambles", {}, "", "it ended by submitted"),
        ("rambles", {"ended_by": "gave_up", "claimed": None}, "", "left no result file"),
        (
            "rambles",
            {"ended_by": "gave_up", "claimed": "unreadable"},
            "",
            "is not an object with a status of submitted",
        ),
        ("rambles", {"ended_by": "gave_up", "calls": 0}, "", "made no call to the model"),
        ("hangs", {"ended_by": "timeout", "exit_code": None, "claimed": None, "agent_s": 30.0}, "kept.txt", None),
        ("hangs", {"ended_by": "timeout", "exit_code": None, "claimed": None}, "", "has no 'kept.txt'"),
        ("hangs", {"ended_by": "timeout", "exit_code": None, "agent_s": 36.0}, "kept.txt", "it took 36 s, 35 s were"),
    ],
)
def test_what_is_wrong_with_a_run_is_said_in_a_sentence(
    scenario: str, row: dict[str, Any], patch: str, problem: str | None
) -> None:
    found = problems(BY_NAME[scenario], ROW | row, patch, [CALL])
    assert (found == []) if problem is None else (problem in "; ".join(found))


def test_the_time_after_the_first_error_is_measured_from_the_end_of_that_call() -> None:
    """The call was over 3 s into the run. Setup took 1 s, so the agent stage ended at 1 s + agent_s."""
    dead = BY_NAME["dead-server"]
    row = ROW | {"ended_by": "model_error"}
    failed = replace(CALL, status="engine_error")
    assert problems(dead, row | {"agent_s": 32.0}, "", [failed]) == []
    [sentence] = problems(dead, row | {"agent_s": 33.5}, "", [failed])
    assert sentence.startswith("it went on for 32 s after the first error, 30 s are allowed")
    later = replace(failed, started_at="2026-01-01T00:00:20.000+00:00")
    assert problems(dead, row | {"agent_s": 50.0}, "", [CALL, later]) == []
