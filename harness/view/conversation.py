"""A run as a conversation: for each call what the model was told, what it said, and what came of it."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.analysis.loops.stored import Analysed
from harness.analysis.steps.observations import text_of
from harness.analysis.steps.rebuild import Step


@dataclass(frozen=True)
class Said:
    """A message: who speaks, and its text."""

    role: str
    text: str


@dataclass(frozen=True)
class Asked:
    """One thing that an answer asks for, where its text does not say it already."""

    tool: str
    text: str


@dataclass(frozen=True)
class Joules:
    """Of a call. `spread`: its share by seconds of the run's energy in its phases, an estimate."""

    value: float
    spread: bool


@dataclass
class Turn:
    """One call and its step. `opening` is what a conversation begins with; None: nothing is known of a text."""

    call: Mapping[str, Any]
    step: Step | None = None
    thinking: str = ""
    opening: list[Said] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    joules: Joules | None = None
    loops: list[str] = field(default_factory=list)
    interventions: list[Mapping[str, Any]] = field(default_factory=list)
    useful: bool = False

    @property
    def number(self) -> int:
        return int(self.call["call_index"])

    @property
    def changed(self) -> bool:
        """Whether its step changed a file, as far as that is known."""
        if self.step is None or self.step.said.before is None or self.step.after is None:
            return False
        return self.step.said.before != self.step.after

    @property
    def headline(self) -> str:
        """What it did, in a line."""
        if self.step is None:
            return str(self.call["error"] or self.call["status"])
        if not self.step.said.actions:
            return "talk" if self.step.said.text.strip() else "an empty answer"
        said = " ".join(" ".join(action.text for action in self.step.said.actions).split())
        return said[:160] or "an empty command"


def conversation(
    calls: Sequence[Mapping[str, Any]],
    analysed: Analysed,
    journal: Mapping[str, Path],
    parts: Sequence[Mapping[str, Any]],
    interventions: Sequence[Mapping[str, Any]],
    beside: Mapping[int, list[str]],
) -> list[Turn]:
    """Every call of a run in its order. `parts` are its rows of `call_energy`, `beside` the marks of its loops.

    Where the journal can't be read, the calls stand without words: what can't be read is `analysed.why`.
    """
    turns = {int(call["call_index"]): Turn(call) for call in calls}
    history = analysed.history
    for step in history.steps if history else []:
        if (turn := turns.get(step.call)) is not None:
            turn.step = step
            turn.asked = [
                Asked(action.tool, action.text) for action in step.said.actions if action.text not in step.said.text
            ]
    openings = {turn.number for turn in turns.values() if turn.step and turn.step.said.request == "first"}
    if history:
        for number, thinking, opening in _words(journal, openings):
            if (turn := turns.get(number)) is not None:
                said = turn.step.said.text if turn.step else ""
                turn.thinking = thinking if thinking != said else ""
                turn.opening = opening
    for number, joules in _joules(parts).items():
        if number in turns:
            turns[number].joules = joules
    for done in interventions:
        if (turn := turns.get(done["call_index"])) is not None:
            turn.interventions.append(done)
    useful = set(history.useful) if history else set()
    for number, turn in turns.items():
        turn.loops = beside.get(number, [])
        turn.useful = number in useful
    return [turns[number] for number in sorted(turns)]


def _joules(parts: Sequence[Mapping[str, Any]]) -> dict[int, Joules]:
    """Joules of each call over its phases: their figures where each has one, else their shares."""
    by_call: dict[int, list[Mapping[str, Any]]] = {}
    for part in parts:
        by_call.setdefault(int(part["call_index"]), []).append(part)
    found = {}
    for number, of_call in by_call.items():
        for column in ("joules", "spread_j"):
            values = [part[column] for part in of_call]
            if None not in values:
                found[number] = Joules(sum(values), column == "spread_j")
                break
    return found


def _words(journal: Mapping[str, Path], openings: set[int]) -> Iterator[tuple[int, str, list[Said]]]:
    """Of each call its thinking, and of those that open a conversation the messages, out of a journal that was read
    without a fault before."""
    calls = list(_objects(journal["calls.jsonl"]))
    wanted = {sha256 for call in calls if call["index"] in openings for sha256 in call["messages"]}
    said = {
        line["sha256"]: Said(str(line["message"].get("role")), text_of(line["message"].get("content")))
        for line in _objects(journal["messages.jsonl"])
        if line["sha256"] in wanted and "message" in line
    }
    for call in calls:
        messages = call["messages"] if call["index"] in openings else []
        yield int(call["index"]), str(call["answer"]["thinking"] or ""), [said[sha256] for sha256 in messages]


def _objects(path: Path) -> Iterator[dict[str, Any]]:
    with io.TextIOWrapper(gzip.open(path, "rb"), encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.strip():
                yield json.loads(line)
