"""The kinds of loops, in one table: the wording by which people tell them, the rule by which the detector does."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Literal

KindName = Literal[
    "repeated_error",
    "repeated_action",
    "edit_revert",
    "cycle",
    "re_reading",
    "no_progress",
    "format_errors",
    "monologue",
    "degenerate",
    "retry_storm",
    "context_thrash",
]


@dataclass(frozen=True)
class Settings:
    """Where a pattern is plain enough to be called a loop. Counts of steps, but for the shares of a text."""

    repeats: int = 3
    """The same action or error, the first time included."""
    rounds: int = 3
    """Of a cycle, the first included."""
    longest_period: int = 10
    """Of a cycle, steps."""
    unreadable: int = 3
    """Answers in a row that the framework could not read."""
    talk: int = 3
    """Answers in a row that ask for nothing."""
    degenerate: int = 3
    """Answers in a row that say the same over and over, before there is an alarm; each is a loop from the first on."""
    stretch: int = 10
    """Steps in a row without progress."""
    rereads: int = 3
    """Steps in a row that only read what was read before."""
    requests: int = 3
    """The same request, the first time included."""
    cuts: int = 3
    """Times that a conversation is cut down and goes on with what was done before."""
    entries: int = 3
    """Times that the same state of the files is entered, the beginning of the run included."""

    four_times: float = 0.5
    """Share of an answer's runs of four words that stand in it four times or more: degenerate, whatever it asks for."""
    thrice: float = 0.2
    """The same for three times, of an answer that was cut off or asks for nothing."""
    twice: float = 0.8
    """The same for two times."""

    def scaled(self, factor: float) -> Settings:
        """The same rules with every count of steps so many times as large, rounded up, and never below 2."""
        counts = {
            field.name: max(2, math.ceil(getattr(self, field.name) * factor))
            for field in fields(self)
            if field.type == "int" and field.name != "longest_period"
        }
        return replace(self, **counts)


@dataclass(frozen=True)
class Kind:
    name: KindName
    when: str
    """In the words of the labelled set."""
    rule: str
    """Of the detector; names in braces are settings."""
    onset: str


KINDS: dict[KindName, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "repeated_error",
            "the same error again and again, from the same action or from actions that hardly differ",
            "{repeats} steps in a row that end in the same error (its lines, without folders and what is volatile), or "
            "the same action with the same failure {repeats} times, unreadable answers between them not counted",
            "the second of them",
        ),
        Kind(
            "repeated_action",
            "the same action again and again, each time with the same outcome",
            "the same action with the same outcome {repeats} times, unreadable answers between them not counted",
            "the second of them",
        ),
        Kind(
            "edit_revert",
            "changes go back and forth: states of the files that were there before come back again and again",
            "a state of the work directory is entered for the {entries}rd time with no new state in between",
            "the second step that brings a state back",
        ),
        Kind(
            "cycle",
            "two or more different actions follow each other in the same order again and again, with the same outcomes",
            "{rounds} rounds of the same 2 to {longest_period} actions with the same outcomes, of which the last need "
            "only have begun (of two actions it is complete)",
            "the first step of the second round",
        ),
        Kind(
            "re_reading",
            "the same parts of the same files are read again and again though nothing has changed them, be it by other "
            "commands",
            "{rereads} steps in a row that print three lines or more, all of which were printed before since the files "
            "last changed, just those of the last one twice or more",
            "the first of them",
        ),
        Kind(
            "no_progress",
            "a long stretch of differing steps of which none changes a file, reads anything new or brings a new result",
            "{stretch} steps in a row without a new state of the files, a new line of 20 characters or more, or "
            "another outcome of an action that was there before; answers that ask for nothing or can't be read are not "
            "counted",
            "the first of them",
        ),
        Kind(
            "format_errors",
            "one answer after the other that the framework can't read as an action, and it says so",
            "{unreadable} answers in a row of which the framework says that it could not read them; a last one that "
            "asks for nothing counts though nothing came back",
            "the second of them",
        ),
        Kind(
            "monologue",
            "one answer after the other that is talk alone: nothing is asked for, and nobody says that the format is "
            "wrong",
            "{talk} answers in a row that ask for nothing, of which only the first may be answered with anything new",
            "the second of them",
        ),
        Kind(
            "degenerate",
            "one answer that says the same words or lines over and over, or runs on without sense until it is cut",
            "runs of four words that stand in the answer four times or more make up {four_times:.0%} of it; or, of an "
            "answer that was cut off or asks for nothing, three times and {thrice:.0%}, or twice and {twice:.0%}; of "
            "20 words or more. It is plain when there are {degenerate} in a row",
            "that answer",
        ),
        Kind(
            "retry_storm",
            "the same request is sent to the model again and again, with nothing new in it",
            "the same messages {requests} times in a row",
            "the second of them",
        ),
        Kind(
            "context_thrash",
            "the conversation outgrows its window or is cut down again and again, and each time the work begins anew",
            "the conversation is cut down, or does not fit its window, {cuts} times, and goes on each time with "
            "an action that was there before",
            "the second of them",
        ),
    )
}
"""In order of precedence: of two that fit the same steps of a conversation, the upper of the first six stands."""

EXCLUSIVE: tuple[KindName, ...] = tuple(KINDS)[:6]


DETECTOR = "1"
"""The rules as a whole: a new number for every change by which a run's loops, or what is told of them, may change."""


def rule_of(kind: Kind, settings: Settings) -> str:
    """A kind's rule with the settings' numbers."""
    return kind.rule.format(**{field.name: getattr(settings, field.name) for field in fields(settings)})
