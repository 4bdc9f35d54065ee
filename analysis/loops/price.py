"""What a run spent from one of its calls on: calls, tokens, seconds, joules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from harness.analysis.figures import CLOCK, CONSTANT, NO_ENERGY

NO_PARTS = "the energy was not recorded by phase and call"


@dataclass(frozen=True, slots=True)
class Spent:
    """`tokens` are those of prompts and answers; None where the engine did not count those of some call. `joules` are
    gross; None with the reason in `why`. Their kind is `kind`: estimated where they are a part of the run's."""

    calls: int
    tokens: int | None
    seconds: float
    joules: float | None
    kind: str
    coverage: str | None
    why: str | None = None


@dataclass(frozen=True)
class Spending:
    """A run as rows of the store: its own (of `runs_summary`, with `setup_s`), those of its `calls` that the engine was
    asked for, its gross joules by phase, and by call the joules that were spread over the calls."""

    run: Mapping[str, Any]
    calls: Sequence[Mapping[str, Any]]
    phases: Mapping[str, float | None]
    by_call: Mapping[int, float | None]

    def of_all(self) -> Spent:
        return whole_of(self.run, len(self.calls), tokens_of(self.calls))

    def since(self, call_index: int) -> Spent:
        """From a call's beginning to the end of the agent stage.

        Joules are those of its phases: of the calls as they were spread over them by seconds, of the time between calls
        by the seconds between them, and the tail.
        """
        after = [call for call in self.calls if call["call_index"] >= call_index]
        seconds = float(self.run["agent_s"]) - self._begins_s(after[0]) if after else 0.0
        joules, why = self._joules(after)
        kind, coverage = kind_of_a_part(self.run), self.run["energy_coverage"]
        return Spent(len(after), tokens_of(after), max(seconds, 0.0), joules, kind, coverage, why)

    def _begins_s(self, call: Mapping[str, Any]) -> float:
        """Seconds from the beginning of the agent stage to a call's."""
        stage = datetime.fromisoformat(self.run["started_at"]).timestamp() + self.run["setup_s"]
        return max(0.0, datetime.fromisoformat(call["started_at"]).timestamp() - float(stage))

    def _joules(self, after: Sequence[Mapping[str, Any]]) -> tuple[float | None, str | None]:
        why = missing_joules(self.run)
        if why != NO_PARTS:
            return None, why
        if not after:
            return 0.0, None
        within = [self.by_call.get(call["call_index"]) for call in after]
        between, tail = self.phases.get("between_calls", 0.0), self.phases.get("tail", 0.0)
        if not self.phases or None in within or between is None or tail is None:
            return None, NO_PARTS
        pauses = dict(zip((call["call_index"] for call in self.calls), self._pauses(), strict=True))
        whole_s = sum(pauses.values())
        after_s = sum(pauses[call["call_index"]] for call in after[1:])
        paused_j = between * after_s / whole_s if whole_s > 0 else 0.0
        return sum(joules for joules in within if joules is not None) + paused_j + tail, None

    def _pauses(self) -> list[float]:
        """Seconds before each call in which no other was under way."""
        pauses, ended = [], None
        for call in self.calls:
            pauses.append(self._begins_s(call) if ended is None else max(0.0, call["offset_s"] - ended))
            ended = call["offset_s"] + call["duration_s"]
        return pauses


def whole_of(run: Mapping[str, Any], calls: int, tokens: int | None) -> Spent:
    joules = run["energy_j"]
    why = NO_ENERGY if joules is None else None
    return Spent(calls, tokens, run["agent_s"], joules, run["energy_kind"], run["energy_coverage"], why)


def kind_of_a_part(run: Mapping[str, Any]) -> str:
    """Joules of a part are spread over calls by their seconds: an estimate, however the run's were measured."""
    return "estimated" if run["energy_kind"] == "measured" else str(run["energy_kind"])


def missing_joules(run: Mapping[str, Any]) -> str:
    """Why a part of a run has no joules, where it has none."""
    if run["energy_kind"] == "unavailable" or run["energy_j"] is None:
        return NO_ENERGY
    return CLOCK if run["energy_kind"] == CONSTANT else NO_PARTS


def tokens_of(calls: Sequence[Mapping[str, Any]]) -> int | None:
    """Of prompts (the cached part included) and answers together; None where those of some call are unknown.

    On a prompt that did not fit its window no work was done: that call has none.
    """
    total = 0
    for call in calls:
        if call["status"] == "context_overflow" and call["output_tokens"] is None:
            continue
        if call["input_tokens"] is None or call["output_tokens"] is None:
            return None
        total += call["input_tokens"] + call["output_tokens"]
    return total
