"""How a run ended, what its patch was worth, and the one word that both make.

Two facts are stored and never mixed: `ended_by` (how the agent stopped) and `verdict` (what the tests said).
The two tables below are the only place where they are interpreted; the store copies them into the database,
so that a query sees the same interpretation as the code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

EndedBy = Literal[
    "submitted",
    "gave_up",
    "crashed",
    "format_failure",
    "budget_calls",
    "budget_tokens",
    "budget_energy",
    "timeout",
    "context_overflow",
    "stopped_by_guard",
    "oom",
    "disk_full",
    "model_error",
    "sandbox_error",
    "cancelled",
]

Verdict = Literal["resolved", "unresolved", "empty_patch", "patch_rejected", "grader_error", "not_gradable"]

Outcome = Literal["resolved", "unresolved", "no_patch", "ungraded", "invalid"]

Fault = Literal["agent", "limit", "machine", "user"]


@dataclass(frozen=True)
class Ending:
    """Whose doing an ending was, and what follows from it."""

    fault: Fault
    retried: bool  # a sweep tries such a run again, `--retries` times
    counts: bool  # the run is a valid measurement and enters statistics
    meaning: str


ENDINGS: dict[EndedBy, Ending] = {
    "submitted": Ending("agent", False, True, "the agent ended by itself and says that it is done"),
    "gave_up": Ending("agent", False, True, "the agent ended by itself and does not say that it is done"),
    "crashed": Ending("agent", False, True, "the agent's process ended with an error"),
    "format_failure": Ending("agent", False, True, "the agent could not make sense of the model's answers"),
    "budget_calls": Ending("limit", False, True, "the limit on calls was reached"),
    "budget_tokens": Ending("limit", False, True, "the limit on tokens was reached"),
    "budget_energy": Ending("limit", False, True, "the limit on energy was reached"),
    "timeout": Ending("limit", False, True, "the time limit was reached"),
    "context_overflow": Ending("agent", False, True, "the conversation outgrew the model's window"),
    "stopped_by_guard": Ending("limit", False, True, "a guard stopped an unproductive loop"),
    "oom": Ending("agent", False, True, "the sandbox ran out of its memory"),
    "disk_full": Ending("agent", False, True, "the sandbox ran out of its disk"),
    "model_error": Ending("machine", True, False, "the engine failed"),
    "sandbox_error": Ending("machine", True, False, "the sandbox failed"),
    "cancelled": Ending("user", True, False, "the sweep was interrupted"),
}

VERDICTS: dict[Verdict, tuple[Outcome, str]] = {
    "resolved": ("resolved", "every test that decides passes"),
    "unresolved": ("unresolved", "a test that decides fails"),
    "empty_patch": ("no_patch", "the work directory was left as it was"),
    "patch_rejected": ("unresolved", "the patch does not apply to a fresh copy"),
    "grader_error": ("ungraded", "grading itself failed"),
    "not_gradable": ("ungraded", "the task can't be graded on this machine"),
}


def outcome(ended_by: EndedBy, verdict: Verdict) -> Outcome:
    """One word for a run. A run that was stopped may still be resolved; one that the machine spoilt is invalid."""
    if not ENDINGS[ended_by].counts:
        return "invalid"
    return VERDICTS[verdict][0]


def all_outcomes() -> list[tuple[EndedBy, Verdict, Outcome]]:
    """Every pair with its outcome, for the database."""
    return [(e, v, outcome(e, v)) for e in get_args(EndedBy) for v in get_args(Verdict)]
