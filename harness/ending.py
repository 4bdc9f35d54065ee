"""How an agent stopped, concluded from what the harness saw when nothing of ours had ended it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.gateway.ledger import CallRecord
from harness.outcome import EndedBy
from harness.sandbox.container import State


@dataclass(frozen=True)
class Evidence:
    """What is known when the runner has ended by itself."""

    exit_code: int | None  # None: it ended with its container
    container: State  # when the runner had ended
    oom_kills: int | None
    claimed: str | None  # the status in the result file; None without one
    calls: Sequence[CallRecord]  # those that the engine was asked for
    max_calls: int
    tmp_full: bool = False  # its /tmp was


def name_the_ending(seen: Evidence) -> tuple[EndedBy, str | None]:
    """The ending and, where there is more to say, one sentence.

    The agent's own word is believed only where nothing the harness saw says otherwise.
    """
    last = seen.calls[-1] if seen.calls else None
    if (seen.oom_kills and seen.exit_code != 0) or seen.container.out_of_memory:
        return "oom", "the kernel killed a process: the sandbox was out of memory"
    if seen.container.word == "gone":
        return "sandbox_error", "the sandbox was ended or removed by somebody else, or Docker does not answer"
    if seen.container.word == "ended":
        # Its first process only sleeps, nobody of ours ended it, and its deadline is far.
        return "crashed", "the agent ended its own sandbox"
    if seen.exit_code is None:
        return "sandbox_error", "Docker did not tell how the runner ended"
    if last and last.status == "context_overflow":
        return "context_overflow", last.error
    if last and last.status in ("engine_error", "timeout"):
        return "model_error", last.error
    if last and last.status == "empty_after_thinking" and (seen.exit_code != 0 or seen.claimed == "error"):
        # There was an answer, and nothing in it to act on. Frameworks take the error for one of the server.
        return "format_failure", last.error
    if seen.exit_code != 0 and seen.tmp_full:
        return "disk_full", f"its /tmp was full, and the runner ended with exit code {seen.exit_code}"
    if seen.exit_code != 0:
        return "crashed", f"the runner ended with exit code {seen.exit_code}"
    if seen.claimed == "gave_up":
        return "gave_up", None
    if seen.claimed == "format_failure":
        return "format_failure", None
    if seen.claimed == "error":
        return "crashed", "the runner reports an error of its framework"
    charged = sum(call.status != "engine_error" for call in seen.calls)
    if seen.claimed == "limit" and charged >= seen.max_calls:
        return "budget_calls", f"the framework stopped at the limit of {seen.max_calls} calls"
    if seen.claimed == "limit":
        return "gave_up", "the framework met a limit of its own"
    if seen.claimed == "submitted":
        return "submitted", None
    return "gave_up", "the runner left no result file" if seen.claimed is None else "its result file can't be read"
