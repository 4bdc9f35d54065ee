"""A run's journal, read back: `calls.jsonl` and `messages.jsonl` as the gateway wrote them."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

NO_STEPS = frozenset({"refused", "limit"})
"""Calls that the engine was not asked for."""


class Unanalysable(Exception):
    """A journal that can't be read. The message names file and line."""


@dataclass(frozen=True, slots=True)
class Call:
    """What of a call the search for loops needs."""

    index: int
    status: str
    http_status: int | None
    cut: bool
    workdir: str | None
    messages: list[Mapping[str, Any]]
    text: str
    tool_calls: list[Mapping[str, Any]]
    tried: bool = False
    """The gateway itself had asked for the same before, in a call that the engine failed."""

    @property
    def is_request(self) -> bool:
        """Whether its messages are new, and so tell what came of an earlier step: also those of the request that met a
        limit, and of the first of several tries."""
        return not self.tried and self.status != "refused"

    @property
    def is_step(self) -> bool:
        """False for what the engine was not asked for, and for what the gateway itself tried again."""
        return self.status not in NO_STEPS and not (self.status == "engine_error" and self.http_status is None)


def said_in(text: str, thinking: str) -> str:
    """The words of an answer by which it is judged: its thinking only where it has no others."""
    return text or thinking


def read_calls(calls: Iterable[str], messages: Iterable[str]) -> list[Call]:
    """The calls in their order, from the lines of both files. Raises Unanalysable."""
    said: dict[str, Mapping[str, Any]] = {}
    for number, content in _objects(messages, "messages.jsonl"):
        if not isinstance(content.get("sha256"), str):
            raise Unanalysable(f"messages.jsonl, line {number}: no sha256")
        if isinstance(message := content.get("message"), dict):
            said[content["sha256"]] = message
    found: dict[int, Call] = {}
    failed: set[object] = set()  # seeds of calls that the gateway tried again
    for number, content in _objects(calls, "calls.jsonl"):
        where = f"calls.jsonl, line {number}"
        try:
            answer = content["answer"]
            seed = content.get("seed")
            call = Call(
                index=int(content["index"]),
                status=str(content["status"]),
                http_status=content["http_status"],
                cut=content["finish_reason"] == "length",
                workdir=content.get("workdir"),
                messages=[said[sha256] for sha256 in content["messages"]],
                text=said_in(answer["text"], answer["thinking"]),
                tool_calls=[call for call in answer["tool_calls"] if isinstance(call, dict)],
                tried=seed is not None and seed in failed,
            )
            if not isinstance(call.text, str) or not isinstance(call.workdir, str | None):
                raise TypeError("its text or its work directory is no text")
            if call.status == "engine_error" and call.http_status is None:
                failed.add(seed)
        except KeyError as error:
            missing = str(error.args[0])
            what = (
                f"a message that is not in messages.jsonl ({missing[:12]})" if len(missing) == 64 else f"no {missing}"
            )
            raise Unanalysable(f"{where}: {what}") from None
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            raise Unanalysable(f"{where}: not a call of the gateway ({error})") from None
        if call.index in found:
            raise Unanalysable(f"{where}: call {call.index} stands there twice")
        found[call.index] = call
    if not found:
        raise Unanalysable("calls.jsonl: it is empty")
    return [found[index] for index in sorted(found)]


def _objects(lines: Iterable[str], name: str) -> Iterable[tuple[int, dict[str, Any]]]:
    number = 0
    try:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            content = json.loads(line)
            if not isinstance(content, dict):
                raise Unanalysable(f"{name}, line {number}: not an object")
            yield number, content
    except (ValueError, RecursionError, EOFError, OSError, zlib.error) as error:  # the last three: of a compressed file
        raise Unanalysable(f"{name}, line {number or 1}: {error}") from None
