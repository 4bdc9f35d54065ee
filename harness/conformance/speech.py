"""How a model speaks to an agent: the agent's `plays/<protocol>.toml`, a play with `{command}` where a command goes.

Scripted answers have to be in the words that a framework understands, so each agent that wants its conformance tried
brings them. The format is the one of `harness.engines.scripted_play`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.engines.base import Capability
from harness.engines.scripted_play import Entry, Play, read_play
from harness.errors import UserError
from harness.manifests import PLAYS, Agent
from harness.plan import Protocol
from harness.toml import toml_value

COMMAND = "{command}"


@dataclass(frozen=True)
class Speech:
    """What a model says to one agent, in one protocol, to do its work and to end it."""

    play: Play

    @property
    def takes_commands(self) -> bool:
        """False for an agent whose model can't have shell commands run; its play then is a solution by itself."""
        return any(COMMAND in entry.model_dump_json() for entry in self.play.answers)

    def answers(self, command: str) -> list[Entry]:
        """The whole play, `command` in its place."""
        return [_with(entry, command) for entry in self.play.answers]

    def act(self, command: str) -> list[Entry]:
        """The part of the play that has a command run, without the end."""
        return [_with(entry, command) for entry in self.play.answers if COMMAND in entry.model_dump_json()]


def find(agent: Agent, protocol: Protocol) -> Speech | None:
    """None where the agent brings no play. Raises UserError for one that is malformed."""
    file = agent.folder / PLAYS / f"{protocol}.toml"
    try:
        return Speech(read_play(file)) if file.is_file() else None
    except (OSError, RecursionError) as error:
        raise UserError(f"{file} can't be read: {error}") from error


def write(
    path: Path, answers: list[Entry], *, repeat: bool, capabilities: frozenset[Capability], context_tokens: int | None
) -> None:
    """Write a play for the scripted engine. With `repeat` its last answer comes for ever."""
    lines = [f"capabilities = {toml_value(sorted(capabilities))}"]
    lines += ['when_exhausted = "repeat"'] if repeat else []
    lines += [f"context_tokens = {context_tokens}"] if context_tokens else []
    for entry in answers:
        fields = entry.model_dump(mode="json", exclude_defaults=True)
        lines += ["[[answers]]", *(f"{name} = {toml_value(value)}" for name, value in fields.items())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _with(entry: Entry, command: str) -> Entry:
    return Entry.model_validate(_filled(entry.model_dump(), command))


def _filled(value: Any, command: str) -> Any:
    if isinstance(value, str):
        return value.replace(COMMAND, command)
    if isinstance(value, dict):
        return {name: _filled(inner, command) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(inner, command) for inner in value]
    return value
