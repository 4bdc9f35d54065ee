"""What an answer asks for, in one form for every framework.

Frameworks ask for tools' calls, for tags (`<function=bash>`), for blocks between backticks, for JSON. An answer may
hold more than its framework would take; what counts is that equal doings have equal keys, whatever is said around them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SHELL_TOOLS = frozenset({"bash", "terminal", "execute_bash", "shell", "sh", "run_shell", "run_command", "cmd"})
SHELL_LANGUAGES = frozenset({"mswea_bash_command", "bash", "sh", "shell", "console", "zsh"})
TALK_TOOLS = frozenset({"think", "thought", "reflect"})
"""Tools that do nothing but hear what the model thinks."""

ABOUT_IT = frozenset({"security_risk", "summary", "thought", "thoughts", "reason", "reasoning", "explanation"})
"""Arguments in which a model says something about its call. OpenHands adds two of them to every tool."""

FUNCTION_TAG = re.compile(r"<function=([^<>\s]{1,100})>(.*?)(?:</function>|\Z)", re.DOTALL)
PARAMETER_TAG = re.compile(r"<parameter=([^<>\s]{1,100})>(.*?)(?:</parameter>|(?=<parameter=)|\Z)", re.DOTALL)
CODE_TAG = re.compile(r"<code>(.*?)(?:</code>|\Z)", re.DOTALL)
FENCE = re.compile(r"[ \t]*```([\w+.-]*)")

# What differs each time though the same is meant: names of temporary files, moments, random tokens.
VOLATILE = re.compile(
    r"(?P<tmp>/tmp/(?:tmp[\w.-]*|[\w-]*\.[A-Za-z0-9]{6,}\b))"
    r"|(?P<moment>\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?)"
    r"|(?P<uuid>\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b)"
    r"|(?P<epoch>\b1[5-9]\d{8}(?:\d{3}|\.\d+)?\b)"
)
WIDE_GAP = re.compile(r"(?<=\S)[ \t]{2,}(?=\S)")


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that an answer asks for."""

    tool: str  # "shell" for commands, else the tool's name, or the language of a block
    text: str  # the command, or the arguments, as they were written
    key: str  # equal for equal doings


def actions_of(text: str, tool_calls: Sequence[Mapping[str, Any]]) -> tuple[Action, ...]:
    """All that an answer asks for: empty where it is talk alone."""
    found = _called(tool_calls) or _tagged(text) or _coded(text) or _written(text)
    return tuple(action for action in found if action.tool not in TALK_TOOLS)


def is_clear(text: str, tool_calls: Sequence[Mapping[str, Any]]) -> bool:
    """Whether an answer asks for one thing in a way that hardly any framework would refuse: what nothing came back of
    may then have been carried out."""
    if tool_calls or "<function=" in text or "<code>" in text:
        return True
    blocks = _blocks(text)
    return len(blocks) == 1 and blocks[0][0] in SHELL_LANGUAGES


def _called(tool_calls: Sequence[Mapping[str, Any]]) -> list[Action]:
    found = []
    for call in tool_calls:
        function = call.get("function")
        if isinstance(function, Mapping):
            arguments = function.get("arguments")
            found.append(
                _tool(str(function.get("name")), arguments if isinstance(arguments, str) else _json(arguments))
            )
    return found


def _tagged(text: str) -> list[Action]:
    if "<function=" not in text:
        return []
    return [
        _tool(name, _json({parameter: value.strip("\n") for parameter, value in PARAMETER_TAG.findall(body)}))
        for name, body in FUNCTION_TAG.findall(text)
    ]


def _coded(text: str) -> list[Action]:
    return [_code("python", code) for code in CODE_TAG.findall(text)] if "<code>" in text else []


def _written(text: str) -> list[Action]:
    """The first block that says it is a command, else the first block, else an answer that is JSON as a whole."""
    blocks = _blocks(text)
    commands = [body for language, body in blocks if language in SHELL_LANGUAGES]
    if commands:
        return [_shell(commands[0])]
    if blocks:
        language, body = blocks[0]
        return [_code(language, body) if language else _shell(body)]
    stripped = text.strip()
    if stripped.startswith("{") and stripped.endswith("}"):
        return [Action("json", stripped, f"json {canonical(stripped)}")]
    return []


def _blocks(text: str) -> list[tuple[str, str]]:
    """Each block between backticks, by its language and what stands in it. One that is not closed is none."""
    if "```" not in text:
        return []
    found: list[tuple[str, str]] = []
    language: str | None = None
    begun: list[str] = []
    for line in text.splitlines(keepends=True):
        fence = FENCE.match(line)
        if language is None:
            if fence:
                language, begun = fence[1].lower(), []
        elif line.strip(" \t\n") == "```":
            found.append((language, "".join(begun)))
            language = None
        else:
            begun.append(line)
    return found


def _tool(name: str, arguments: str) -> Action:
    if name in SHELL_TOOLS:
        content = _loaded(arguments)
        command = content.get("command", content.get("cmd")) if isinstance(content, dict) else None
        others = set(content) - {"command", "cmd"} - ABOUT_IT if isinstance(content, dict) else ()
        if isinstance(command, str) and not others:
            return _shell(command)
    return Action(name, arguments, f"{name} {canonical(arguments)}")


def _shell(command: str) -> Action:
    return Action("shell", command.strip("\n"), f"$ {plain(command)}")


def _code(language: str, code: str) -> Action:
    return Action(language, code.strip("\n"), f"{language} {plain(code)}")


def plain(command: str) -> str:
    """A command without what makes no difference: comments on lines of their own, spaces, what is volatile."""
    lines = [line.rstrip() for line in command.strip().splitlines()]
    kept = [line for line in lines if line and not line.lstrip().startswith("#")] or lines
    return masked("\n".join(WIDE_GAP.sub(" ", line) for line in kept))


def canonical(arguments: str) -> str:
    """Arguments in one order and spacing, without what the model only says about them."""
    content = _loaded(arguments)
    if isinstance(content, dict):
        content = {name: value for name, value in content.items() if name not in ABOUT_IT}
    elif content is None:
        return masked(" ".join(arguments.split()))
    return masked(_json(content))


def masked(text: str) -> str:
    return VOLATILE.sub(lambda match: f"<{match.lastgroup}>", text)


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
