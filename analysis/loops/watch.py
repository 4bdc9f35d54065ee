"""A run as it is looked at: while it goes on, in the gateway, and afterwards, from its journal, by the same code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.analysis.loops.detector import Detector, Loop
from harness.analysis.loops.kinds import Settings
from harness.analysis.steps.journal import Call
from harness.analysis.steps.rebuild import Rebuild, Step


class Watch:
    """For each call in order `asked`, and `answered` where the engine was asked; `ended` once."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.detector = Detector(settings)
        self._rebuild = Rebuild()

    def asked(self, messages: Sequence[Mapping[str, Any]], workdir: str | None) -> tuple[Step | None, list[Loop]]:
        """A request came: the step whose outcome it tells, and the loops that are plain and have grown since the last
        one."""
        step = self._rebuild.asked(messages, workdir)
        if step is not None:
            self.detector.feed(step)
        return step, self.detector.grown()

    @property
    def asking(self) -> int:
        """The conversation of the request that was asked last."""
        return self._rebuild.asking

    def answered(self, call: int, status: str, text: str, tool_calls: Sequence[Mapping[str, Any]], cut: bool) -> None:
        self.detector.hear(self._rebuild.answered(call, status, text, tool_calls, cut))

    def ended(self) -> list[Step]:
        """The steps of which nothing came back."""
        steps = self._rebuild.ended()
        self.detector.feed_last(steps)
        return steps


@dataclass(frozen=True)
class History:
    """A run as its calls tell it."""

    steps: list[Step]
    """In the order of their calls."""
    loops: list[Loop]
    """By onset."""
    useful: list[int]
    """The calls that got it any further."""
    growth: list[tuple[int, int]]
    """What a guard would have seen: when call i came, the longest loop so far had n steps; each (i, n) with a new n.
    The request that met a limit is none of these calls: there was nothing left to refuse."""

    @property
    def dead_end(self) -> Loop | None:
        """The first plain loop from which the run never recovered: after its onset nothing got it any further."""
        return next((loop for loop in self.loops if loop.alarm is not None and not self.recovered(loop)), None)

    def recovered(self, loop: Loop) -> bool:
        return bool(self.useful) and self.useful[-1] >= loop.onset

    def stopped_at(self, patience: int) -> int | None:
        """The first call that a guard would have refused which lets a loop go on for so many steps."""
        return next((call for call, steps in self.growth if steps >= patience), None)


def history_of(calls: Iterable[Call], settings: Settings | None = None) -> History:
    """What there is to know of a run from its calls."""
    watch = Watch(settings)
    steps, growth, longest = [], [], 0
    for call in calls:
        if call.is_request:
            step, grown = watch.asked(call.messages, call.workdir)
            if call.status != "limit" and grown and (steps_now := max(loop.steps for loop in grown)) > longest:
                longest = steps_now
                growth.append((call.index, longest))
            if step is not None:
                steps.append(step)
        if call.is_step:
            watch.answered(call.index, call.status, call.text, call.tool_calls, call.cut)
    steps += watch.ended()
    steps.sort(key=lambda step: step.call)
    return History(steps, watch.detector.loops(), sorted(watch.detector.useful), growth)
