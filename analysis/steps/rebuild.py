"""Calls into steps, one at a time: while a run goes on in the gateway, and afterwards from its journal.

A call's answer is the beginning of a step; what came of it stands in the next request of the same conversation. One
run may hold several conversations (threads): frameworks ask a second model of themselves, start anew, or cut theirs
down. A request belongs to the thread whose last request it continues, word for word; failing that, to one that began
with the same two messages; else it begins a thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from harness.analysis.steps.actions import Action, actions_of, is_clear
from harness.analysis.steps.observations import compared, error_of, is_complaint, is_failure, lines_of, observation_of
from harness.analysis.steps.wording import Repetition, repetition

Message = Mapping[str, Any]
Request = Literal["first", "next", "again", "cut_down"]
MOST_THREADS = 64  # that began with the same message and are looked at


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of the model (or a call that failed) and what it asks for: a step that has only begun."""

    call: int  # index of the call
    thread: int
    request: Request  # again: word for word the one before; cut_down: less than the one before
    status: str  # of the call; without "ok" there is no answer
    text: str
    actions: tuple[Action, ...]
    action: str  # their keys; empty for talk alone
    clear: bool  # they are asked for in a way that hardly any framework would refuse
    repetition: Repetition  # of its words
    cut: bool  # by the longest answer
    before: str | None  # fingerprint of the work directory when the request came; None: not known


@dataclass(frozen=True, slots=True)
class Step:
    """An answer and what came of it."""

    said: Answer
    observation: str | None  # None: nothing came back
    discarded: bool  # nothing came back, and the same was asked again
    outcome: str | None  # the observation, as it is compared
    lines: tuple[int, ...]  # of the outcome, a number each, those that are worth having read
    unreadable: bool  # the framework says that it could not read the answer
    failed: bool  # the outcome reads as an error
    error: str | None  # what it says then, without folders
    after: str | None  # fingerprint of the work directory when the outcome came; None: not known

    @property
    def call(self) -> int:
        return self.said.call

    @property
    def thread(self) -> int:
        return self.said.thread


@dataclass(slots=True)
class _Thread:
    number: int
    messages: Sequence[Message]
    open: Answer | None = None


@dataclass
class Rebuild:
    """Feed it `asked` and `answered` for each call in order, then `ended` once."""

    _threads: dict[str, list[_Thread]] = field(default_factory=dict)
    _number: int = 0
    _asking: tuple[_Thread, Request] | None = None
    _before: str | None = None
    _dropped: list[Answer] = field(default_factory=list)

    @property
    def asking(self) -> int:
        """The conversation of the request that was asked last."""
        assert self._asking is not None
        return self._asking[0].number

    def asked(self, messages: Sequence[Message], workdir: str | None) -> Step | None:
        """A request came. Returns the step that it completes: the one whose outcome it tells."""
        self._before = workdir
        head = str(messages[0]) if messages else ""
        candidates = self._threads.setdefault(head, [])
        thread, request = self._find(candidates, messages)
        if thread is None:
            thread = _Thread(self._number, messages)
            self._number += 1
            candidates.append(thread)
            self._dropped += [old.open for old in candidates[:-MOST_THREADS] if old.open is not None]
            del candidates[:-MOST_THREADS]
            self._asking = thread, "first"
            return None
        again = request == "again"
        step = _step(thread.open, () if again else new_messages(thread.messages, messages), again, workdir)
        thread.messages, thread.open = messages, None
        self._asking = thread, request
        return step

    def answered(self, call: int, status: str, text: str, tool_calls: Sequence[Mapping[str, Any]], cut: bool) -> Answer:
        """What became of the request that was asked last."""
        assert self._asking is not None
        thread, request = self._asking
        actions = actions_of(text, tool_calls)
        said = "\n".join([text, *(action.text for action in actions)]) if tool_calls else text
        thread.open = Answer(
            call=call,
            thread=thread.number,
            request=request,
            status=status,
            text=text,
            actions=actions,
            action="\n".join(action.key for action in actions),
            clear=is_clear(text, tool_calls),
            repetition=repetition(said),
            cut=cut,
            before=self._before,
        )
        return thread.open

    def ended(self) -> list[Step]:
        """The run is over: the steps of which nothing came back, in the order of their calls."""
        opened = [thread.open for group in self._threads.values() for thread in group]
        steps = [step for said in (*self._dropped, *opened) if (step := _step(said, (), False, None)) is not None]
        return sorted(steps, key=lambda step: step.call)

    def _find(self, candidates: Sequence[_Thread], messages: Sequence[Message]) -> tuple[_Thread | None, Request]:
        for thread in reversed(candidates):
            length = len(thread.messages)
            if len(messages) >= length and list(messages[:length]) == list(thread.messages):
                return thread, "again" if len(messages) == length else "next"
        for thread in reversed(candidates):
            if len(messages) > 1 and len(thread.messages) > 1 and messages[1] == thread.messages[1]:
                return thread, "cut_down" if len(messages) < len(thread.messages) else "next"
        return None, "first"


def new_messages(known: Sequence[Message], messages: Sequence[Message]) -> Sequence[Message]:
    """The messages that came after the last answer."""
    if list(messages[: len(known)]) == list(known):
        return messages[len(known) :]
    last = max((number for number, message in enumerate(messages) if message.get("role") == "assistant"), default=-1)
    return messages[last + 1 :] if last >= 0 else messages[2:]


def _step(said: Answer | None, came: Sequence[Message], again: bool, after: str | None) -> Step | None:
    if said is None:
        return None
    observation = observation_of(came) if came else None
    outcome = compared(observation) if observation is not None else None
    failed = observation is not None and is_failure(observation)
    return Step(
        said=said,
        observation=observation,
        discarded=again,
        outcome=outcome,
        lines=lines_of(outcome, "\n".join(action.text for action in said.actions)) if outcome else (),
        unreadable=observation is not None and is_complaint(observation),
        failed=failed,
        error=error_of(outcome) if failed and outcome else None,
        after=after,
    )
