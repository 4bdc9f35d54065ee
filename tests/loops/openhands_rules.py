"""OpenHands' own rules for a stuck agent (SDK 1.57, its defaults), re-stated on the same steps.

An action is equal to another with the same thought, tool and arguments, an observation to another with the same text,
both word for word. The rule for context windows is switched off there, too.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis.loops.detector import Loop
from harness.analysis.loops.kinds import KindName
from harness.analysis.steps.rebuild import Step

ACTION_OBSERVATION = 4
ACTION_ERROR = 3
MONOLOGUE = 3
ALTERNATING = 6


def loops_of(steps: Sequence[Step]) -> list[Loop]:
    """A loop from the second of the steps that made a rule true to the last with which it is."""
    found: list[Loop] = []
    for thread in sorted({step.thread for step in steps}):
        past: list[Step] = []
        last: dict[KindName, Loop] = {}
        for step in (step for step in steps if step.thread == thread and step.observation is not None):
            past.append(step)
            for kind, length in _stuck(past):
                before = last.get(kind)
                if before is not None and before.end == past[-2].call:
                    before.end = step.call
                else:
                    last[kind] = Loop(kind, thread, past[-length + 1].call, step.call, length - 1, step.call)
                    found.append(last[kind])
    return found


def _stuck(past: Sequence[Step]) -> list[tuple[KindName, int]]:
    found: list[tuple[KindName, int]] = []
    acts = [step for step in past[-ALTERNATING:] if step.said.action]
    recent = acts[-ACTION_OBSERVATION:]
    if len(recent) == ACTION_OBSERVATION and len({(_said(step), step.observation) for step in recent}) == 1:
        found.append(("repeated_error" if recent[-1].failed else "repeated_action", ACTION_OBSERVATION))
    errors = acts[-ACTION_ERROR - 1 :]
    if len(errors) > ACTION_ERROR and len({_said(step) for step in errors}) == 1 and all(s.unreadable for s in errors):
        found.append(("repeated_error", ACTION_ERROR + 1))
    talk = past[-MONOLOGUE:]
    if len(talk) == MONOLOGUE and not any(step.said.action or step.unreadable for step in talk):
        found.append(("monologue", MONOLOGUE))
    if len(acts) == ALTERNATING and all(
        (_said(one), one.observation) == (_said(other), other.observation)
        for one, other in zip(acts, acts[2:], strict=False)
    ):
        found.append(("cycle", ALTERNATING))
    return found


def _said(step: Step) -> tuple[str, ...]:
    return (step.said.text, *(action.text for action in step.said.actions))
