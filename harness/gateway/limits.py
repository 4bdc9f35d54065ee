"""When a run has to end, decided from what its calls came to. Plain counting: no clock, no socket."""

from __future__ import annotations

from dataclasses import dataclass

from harness.gateway.ledger import CallStatus
from harness.gateway.policy import Policy
from harness.outcome import EndedBy

ENGINE_PAUSES_S = (1.0, 4.0)
"""Before each further try of a call that the engine failed: enough for one that is being restarted."""

LONGEST_PAUSE_S = 60.0
"""What an engine that is asked too often may ask for instead."""

ENGINE_FAILURES = 1 + len(ENGINE_PAUSES_S)
"""Tries in a row that the engine failed, or calls that timed out."""

ANSWER_BYTES = 64 << 20
"""In memory, of one answer: an engine that does not heed `num_predict` may go on for as long as a run may."""

BAD_REQUESTS = 2
"""Calls in a row that the engine refused: a framework sends the same history again, a third is no better. The
ending is `crashed`, not the machine's fault: what it refuses is what the framework sent."""

OVERFLOWS = 2
"""Calls in a row that did not fit the window. After the first a framework may shorten its history."""

REFUSALS = 20
"""Requests of a run that the gateway refused (wrong key, malformed, tools in text mode). More is a framework
that can't work with the endpoint and does not notice: the run ends as `crashed`, the agent's own fault.
`format_failure` is not it: that says the agent could not read the *model's* answers."""

GIVEN_UP = 1_000
"""Calls of a run whose clients left while they waited for their turn. Each is on record and costs no budget."""

IDLE_REQUESTS = 10_000
"""Requests of a run that ask nothing of the model (which models there are, whether a server is there) or that their
client broke off. They are not on record, and work for the gateway all the same."""


@dataclass(frozen=True)
class Stop:
    """Why a run has to end, with one sentence."""

    reason: EndedBy
    detail: str


class Limits:
    """The counters of one run."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.calls = 0
        self.tokens = 0
        self._failures = 0
        self._bad_requests = 0
        self._overflows = 0
        self._refusals = 0
        self._given_up = 0
        self._idle = 0

    def before(self) -> Stop | None:
        """Whether another call may begin. The call that reaches a limit is answered; the next one is not."""
        policy = self._policy
        if policy.max_calls is not None and self.calls >= policy.max_calls:
            return Stop("budget_calls", f"the limit of {policy.max_calls} calls was reached")
        if policy.max_tokens is not None and self.tokens >= policy.max_tokens:
            return Stop(
                "budget_tokens",
                f"the limit of {policy.max_tokens} tokens was reached ({self.tokens} were used)",
            )
        return None

    def after(self, status: CallStatus, tokens: int, error: str | None) -> Stop | None:
        """Count a call that the engine was asked for; `tokens` is what is known of its use.

        A call that the engine failed is not charged to the run's budget of calls, every other one is, the
        aborted and the timed out among them: they cost the machine the same.
        """
        self.tokens += tokens
        if status != "engine_error":
            self.calls += 1
        if status == "aborted":  # says nothing about the engine
            return None
        self._failures = self._failures + 1 if status in ("engine_error", "timeout") else 0
        self._bad_requests = self._bad_requests + 1 if status == "bad_request" else 0
        self._overflows = self._overflows + 1 if status == "context_overflow" else 0
        if self._failures >= ENGINE_FAILURES:
            return Stop("model_error", f"the engine failed {self._failures} calls in a row, the last: {error}")
        if self._bad_requests >= BAD_REQUESTS:
            return Stop("crashed", f"the engine refused {self._bad_requests} calls in a row, the last: {error}")
        if self._overflows >= OVERFLOWS:
            return Stop(
                "context_overflow",
                f"{self._overflows} calls in a row did not fit the window of {self._policy.num_ctx} tokens",
            )
        return None

    def refused(self, error: str) -> Stop | None:
        """Count a request that the gateway itself refused."""
        self._refusals += 1
        if self._refusals > REFUSALS:
            return Stop("crashed", f"the gateway refused {self._refusals} requests, the last: {error}")
        return None

    def given_up(self) -> Stop | None:
        """Count a call whose client left while it waited."""
        self._given_up += 1
        if self._given_up > GIVEN_UP:
            return Stop("crashed", f"{self._given_up} calls were given up while they waited for their turn")
        return None

    def idle(self) -> Stop | None:
        """Count a request that asks nothing of the model."""
        self._idle += 1
        if self._idle > IDLE_REQUESTS:
            return Stop("crashed", f"{self._idle} requests asked nothing of the model")
        return None
