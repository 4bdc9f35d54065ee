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
        """A request came: the step whose outcome it tells, and the alarms since the last one."""
        step = self._rebuild.asked(messages, workdir)
        if step is not None:
            self.detector.feed(step)
        return step, self.detector.alarms()

    def answered(self, call: int, status: str, text: str, tool_calls: Sequence[Mapping[str, Any]], cut: bool) -> None:
        self.detector.hear(self._rebuild.answered(call, status, text, tool_calls, cut))

    def ended(self) -> list[Step]:
        """The steps of which nothing came back."""
        steps = self._rebuild.ended()
        self.detector.feed_last(steps)
        return steps


@dataclass(frozen=True)
class History:
    """A run's steps in the order of their calls, its loops by onset, and the calls that got it any further."""

    steps: list[Step]
    loops: list[Loop]
    useful: list[int]


def history_of(calls: Iterable[Call], settings: Settings | None = None) -> History:
    """What there is to know of a run from its calls."""
    watch = Watch(settings)
    steps = []
    for call in calls:
        if call.is_request:
            step, _ = watch.asked(call.messages, call.workdir)
            if step is not None:
                steps.append(step)
        if call.is_step:
            watch.answered(call.index, call.status, call.text, call.tool_calls, call.cut)
    steps += watch.ended()
    steps.sort(key=lambda step: step.call)
    return History(steps, watch.detector.loops(), sorted(watch.detector.useful))
