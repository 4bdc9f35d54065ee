"""What is done about loops while a run goes on: nothing but a mark, a word to the model, or the end of the run.

The search for loops is the one of `harness.analysis.loops`, on the same requests and answers as the journal has: a
replay of the journal gives the same interventions. The journal keeps what the framework said; what a guard added to
that is an Intervention.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.analysis.loops.detector import Loop
from harness.analysis.loops.kinds import KindName
from harness.analysis.loops.watch import Watch
from harness.analysis.steps.journal import said_in
from harness.analysis.steps.rebuild import Step
from harness.gateway.limits import Stop

Mode = Literal["observe", "nudge", "stop"]
Message = Mapping[str, Any]

MOST_NUDGES = 3
"""In one run. Whom three words do not turn a fourth will not, and each makes all later prompts longer."""

NUDGE_AGAIN = 5
"""Steps for which a loop has to go on before there is another word on it."""

SHOWN = 160  # characters of an action or an outcome in a nudge

NUDGES: dict[KindName, str] = {
    "repeated_error": "the last {times} steps ended in the same error ({outcome}). Do not run {action} again.",
    "repeated_action": "{action} was run {times} times with the same outcome ({outcome}). Do not run it again.",
    "edit_revert": "the last {times} steps made the same changes and took them back. Decide for one of the states.",
    "cycle": "the last {times} steps went round in a circle, each with the same outcome as before.",
    "re_reading": "the last {times} steps read again what you had read, and nothing has changed since.",
    "no_progress": "the last {times} steps changed no file and brought nothing new. Make the needed change now.",
    "format_errors": "your last {times} answers could not be read. Answer in exactly the form that is asked for, with "
    "one action and few words.",
    "monologue": "your last {times} answers asked for nothing. Take an action.",
    "degenerate": "your last {times} answers say the same words over and over. Answer briefly.",
    "retry_storm": "your last {times} answers to this were thrown away. Answer in exactly the form that is asked for.",
    "context_thrash": "the conversation was cut down {times} times, and the work began anew. Make the change now.",
}
COUNTED_FROM_THE_SECOND = frozenset(
    {"repeated_error", "repeated_action", "format_errors", "monologue", "retry_storm", "context_thrash"}
)
"""Their first step is no part of the loop, and yet one of the times."""
NOTICE = "[Notice: {} Try something else than before.]"


@dataclass(frozen=True)
class Intervention:
    """What a guard did when a call came. `onset` and `steps` are the loop's at that moment."""

    call_index: int
    action: Literal["observed", "nudged", "stopped"]
    kind: KindName
    conversation: int
    onset: int
    steps: int
    text: str | None  # of a nudge


@dataclass(frozen=True)
class _Placed:
    """A nudge, and the conversation up to the message that it stands in."""

    until: Sequence[Message]
    text: str


class Guard:
    """Of one run. `before` each request that may reach the engine, `after` each answer."""

    def __init__(self, mode: Mode, patience: int) -> None:
        self.interventions: list[Intervention] = []
        self._mode = mode
        self._patience = patience
        self._watch = Watch()
        self._placed: list[_Placed] = []
        self._last_word: dict[int, int] = {}  # by loop: its steps when it was marked or the model was told
        self._waiting: dict[int, Loop] = {}  # for a request of their conversation, to be told there

    def before(
        self, call_index: int, messages: Sequence[Message], workdir: str | None
    ) -> tuple[Sequence[Message], Stop | None]:
        """The messages for the engine, or why the run has to end."""
        step, grown = self._watch.asked(messages, workdir)
        asking = self._watch.asking
        told = False
        for loop in sorted([*self._waiting_in(asking), *grown], key=lambda loop: -loop.steps):
            said = self._last_word.get(id(loop))
            if self._mode == "stop" and loop.steps >= self._patience:
                self._note(call_index, "stopped", loop)
                return messages, Stop(
                    "stopped_by_guard",
                    f"{loop.kind} from call {loop.onset} on, {loop.steps} steps (--guard-patience {self._patience})",
                )
            if self._mode == "nudge" and len(self._placed) < MOST_NUDGES and messages:
                if said is not None and loop.steps < said + NUDGE_AGAIN:
                    continue
                if told or loop.thread != asking:  # one word at a time, and each where it belongs
                    self._waiting[id(loop)] = loop
                    continue
                text, told = nudge(loop, step), True
                self._placed.append(_Placed(messages, text))
                self._note(call_index, "nudged", loop, text)
            elif said is None:
                self._note(call_index, "observed", loop)
        return self._with_nudges(messages), None

    def after(
        self, call_index: int, status: str, text: str, thinking: str, tool_calls: Sequence[Message], cut: bool
    ) -> None:
        """What became of the request."""
        self._watch.answered(call_index, status, said_in(text, thinking), tool_calls, cut)

    def _note(
        self, call_index: int, action: Literal["observed", "nudged", "stopped"], loop: Loop, text: str | None = None
    ) -> None:
        self._last_word[id(loop)] = loop.steps
        self.interventions.append(
            Intervention(call_index, action, loop.kind, loop.thread, loop.onset, loop.steps, text)
        )  # fmt: skip

    def _waiting_in(self, conversation: int) -> list[Loop]:
        """The loops of a conversation that its next request is to be told of."""
        found = [loop for loop in self._waiting.values() if loop.thread == conversation]
        for loop in found:
            del self._waiting[id(loop)]
        return found

    def _with_nudges(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Each nudge where it was said, as long as the framework keeps the conversation up to there."""
        told = list(messages)
        for placed in self._placed:
            length = len(placed.until)
            if len(messages) >= length and list(messages[:length]) == list(placed.until):
                told[length - 1] = with_text(told[length - 1], placed.text)
        return told


def nudge(loop: Loop, step: Step | None) -> str:
    """A word to the model: what was repeated, what came of it, and to try something else."""
    action = step.said.actions[0].text if step is not None and step.said.actions else ""
    outcome = step.observation if step is not None else None
    sentence = NUDGES[loop.kind].format(
        times=loop.steps + 1 if loop.kind in COUNTED_FROM_THE_SECOND else loop.steps,
        action=f"`{_short(action)}`" if action else "the same",
        outcome=_short(outcome) if outcome and outcome.strip() else "no output",
    )
    return NOTICE.format(sentence[0].upper() + sentence[1:])


def with_text(message: Message, text: str) -> Message:
    """A message with a text below what it says. It stays one message: some models' templates take no two of one role
    in a row."""
    content = message.get("content")
    if isinstance(content, list):
        return {**message, "content": [*content, {"type": "text", "text": text}]}
    return {**message, "content": f"{content}\n\n{text}" if content else text}


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 1]}…"
