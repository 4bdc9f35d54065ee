"""The file behind `scripted/<file>`: a list of answers, played in order. A test tool.

A TOML file:

    context_tokens = 8192            # window of the model; a longer prompt is refused as a context overflow
    capabilities = ["tools", "thinking"]
    when_exhausted = "error"         # or "repeat" (the last answer), "loop" (from the start)

    [[answers]]
    text = "I look around.\\n\\n```mswea_bash_command\\nls\\n```"
    thinking = "Where am I?"         # played when the request asks to think
    tool_calls = [{ name = "bash", arguments = { command = "ls" } }]    # arguments = '{"command' are broken JSON
    finish = "length"                # else "stop", or "length" when the request's limit cuts the answer
    first_token_delay_s = 0.2        # before the first byte, as a prefill
    delay_s = 0.01                   # between two chunks
    chunk_words = 4                  # words in a chunk; 0 is the whole text at once

    [[answers]]
    fault = "reset"                  # see `Fault`

Every request takes the next answer, a faulty one too. Tokens are words between white space.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.engines.base import Capability
from harness.errors import UserError

Fault = Literal[
    "http_400",
    "http_429",
    "http_500",
    "http_503",
    "context_overflow",  # the error of a prompt that is too long
    "refuse",  # the connection is reset without an answer
    "reset",  # half an answer, then the connection is reset
    "cut",  # half an answer, then an orderly end without a last word
    "invalid_json",  # half an answer, then something that isn't JSON
    "endless",  # the text again and again until the client leaves (a plain answer never comes)
    "hang",  # not a byte
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ToolCall(_Strict):
    name: str
    arguments: dict[str, Any] | str = {}
    """A string is sent as it is: what a model wrote that can't write JSON."""


class Entry(_Strict):
    """One answer."""

    text: str = ""
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish: Literal["stop", "length"] = "stop"
    first_token_delay_s: Annotated[float, Field(ge=0)] = 0.0
    delay_s: Annotated[float, Field(ge=0)] = 0.0
    chunk_words: Annotated[int, Field(ge=0)] = 4
    fault: Fault | None = None


class Play(_Strict):
    """A whole file."""

    context_tokens: int | None = Field(None, gt=0)
    capabilities: frozenset[Capability] = frozenset()
    when_exhausted: Literal["error", "repeat", "loop"] = "error"
    answers: tuple[Entry, ...] = Field(min_length=1)

    def entry(self, position: int) -> Entry | None:
        """The answer at a position from 0; None behind the end when that is an error."""
        if position < len(self.answers):
            return self.answers[position]
        if self.when_exhausted == "repeat":
            return self.answers[-1]
        if self.when_exhausted == "loop":
            return self.answers[position % len(self.answers)]
        return None


def read_play(path: Path) -> Play:
    """Raises UserError that names the file and the field."""
    try:
        return Play.model_validate(tomllib.loads(path.read_text()))
    except OSError as error:
        raise UserError(f"the script {path} can't be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"the script {path} is not TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UserError(f"the script {path}: {field}: {first['msg']}") from error


def tokens(text: str) -> list[str]:
    """The tokens of a text: words, each with the white space in front of it; "".join gives the text back."""
    pieces: list[str] = []
    rest = text
    for word in text.split():
        end = rest.index(word) + len(word)
        pieces.append(rest[:end])
        rest = rest[end:]
    if rest and pieces:
        pieces[-1] += rest
    return pieces
