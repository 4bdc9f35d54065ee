"""What the machine was doing in the agent stage: the stage cut into phases that leave nothing out and never overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

PhaseName = Literal["load", "prefill", "decode", "between_calls", "tail"]
PHASES: tuple[PhaseName, ...] = ("load", "prefill", "decode", "between_calls", "tail")


class TimedCall(Protocol):
    """What is needed of a call: see harness.gateway.ledger.CallRecord."""

    @property
    def index(self) -> int: ...
    @property
    def sent(self) -> bool: ...
    @property
    def offset_s(self) -> float: ...
    @property
    def duration_s(self) -> float: ...
    @property
    def first_token_s(self) -> float | None: ...
    @property
    def load_s(self) -> float | None: ...


@dataclass(frozen=True)
class Phase:
    """A stretch of the stage, in seconds of the monotonic clock. `call` is the index of the call that it is part of."""

    name: PhaseName
    begin_s: float
    end_s: float
    call: int | None = None

    @property
    def duration_s(self) -> float:
        return self.end_s - self.begin_s


def cut(begin_s: float, end_s: float, opened_s: float, calls: Sequence[TimedCall]) -> list[Phase]:
    """The stage from `begin_s` to `end_s` as phases, in order. `opened_s` is the moment that the calls' offsets count
    from.

    Of a call, `load` is what the engine says that loading took, `decode` begins with the first piece of the answer, and
    what lies between is `prefill`. What lies between two calls, or before the first, is `between_calls`; what comes
    after the last one is `tail`. Calls that never reached the engine are part of what is around them.
    """
    found: list[Phase] = []
    now = begin_s

    def until(moment_s: float, name: PhaseName, call: int | None = None) -> None:
        nonlocal now
        moment_s = min(max(moment_s, now), end_s)
        if moment_s > now:
            found.append(Phase(name, now, moment_s, call))
            now = moment_s

    for call in sorted((call for call in calls if call.sent), key=lambda call: call.offset_s):
        began = opened_s + call.offset_s
        ended = began + call.duration_s
        first = ended if call.first_token_s is None else min(began + call.first_token_s, ended)
        until(began, "between_calls")
        until(min(began + (call.load_s or 0.0), first), "load", call.index)
        until(first, "prefill", call.index)
        until(ended, "decode", call.index)
    until(end_s, "tail" if any(phase.call is not None for phase in found) else "between_calls")
    return found
