"""What both dialects reduce to: a request, an answer, a failure, and a writer of replies."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from harness.engines.base import Delta, Finish
from harness.gateway.ledger import CallStatus

Dialect = Literal["openai", "ollama"]

MAX_DEPTH = 64
"""Of objects and lists within each other. What is much deeper can be read and no longer written."""

MAX_VALUES = 200_000
"""In all objects and lists of a request. Once read, small ones take up to thirty times their bytes."""

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)

PIECE_BYTES = 64  # a piece of an answer takes in memory, beside its characters

SAID_CHARACTERS = 2_000  # of a sentence about a request, which may quote it


@dataclass(frozen=True)
class Ask:
    """One request of a framework, in OpenAI's shape of messages and tools, before the policy is applied."""

    dialect: Dialect
    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]]
    tool_choice: Any
    stop: tuple[str, ...]
    response_format: Mapping[str, Any] | None
    stream: bool
    asked: Mapping[str, Any]


@dataclass
class Answer:
    """An answer as it grows. `finish` is None until the engine's last word, `size_bytes` about what it takes."""

    text: list[str] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)
    tool_calls: list[Mapping[str, Any]] = field(default_factory=list)
    finish: Finish | None = None
    size_bytes: int = 0

    def add(self, delta: Delta) -> None:
        called = sum(len(call["function"]["arguments"]) for call in delta.tool_calls)
        self.size_bytes += PIECE_BYTES + len(delta.text) + len(delta.thinking) + called
        if delta.text:
            self.text.append(delta.text)
        if delta.thinking:
            self.thinking.append(delta.thinking)
        self.tool_calls.extend(delta.tool_calls)


@dataclass(frozen=True)
class Failure:
    """An error as a client gets it.

    Statuses that client libraries retry (408, 409, 429, 5xx) are kept for what a retry can heal.
    """

    status: CallStatus
    http_status: int
    code: str
    message: str


class Refusal(Exception):
    """A request that the gateway does not pass on."""

    def __init__(self, http_status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.failure = Failure("refused", http_status, code, short(message))


class Reply(Protocol):
    """Writes one answer in a dialect."""

    stream_type: str  # content type of a streamed answer

    def whole(self, answer: Answer, finish: Finish) -> bytes:
        """The body of an answer that is not streamed."""
        ...

    def piece(self, delta: Delta) -> bytes:
        """A piece of a streamed answer."""
        ...

    def closing(self, answer: Answer, finish: Finish) -> bytes:
        """The end of a streamed answer."""
        ...

    def broken(self, failure: Failure) -> bytes:
        """The end of a stream that had begun when the call failed."""
        ...


def encode(value: object) -> bytes:
    """Compact JSON in ASCII: a lone surrogate in a model's answer must not break the reply."""
    return json.dumps(value, separators=(",", ":")).encode()


def short(text: str) -> str:
    """A sentence, cut where it quotes at length."""
    return text if len(text) <= SAID_CHARACTERS else f"{text[: SAID_CHARACTERS - 1]}…"


def decode_object(body: bytes | bytearray) -> dict[str, Any]:
    """A request's body. Raises Refusal when it isn't a JSON object, or too deep or of too many values."""
    if _values(body) > MAX_VALUES and _values(_STRING.sub(b"", body)) > MAX_VALUES:
        raise Refusal(413, "too_large", f"the request has more than {MAX_VALUES} values")
    try:
        text = body.decode()
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "invalid_json", f"the request's body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise Refusal(400, "invalid_json", f"the request's body must be a JSON object, not {_kind(value)}")
    _check_depth(value)
    if "\\ud" in text or "\\uD" in text:
        whole: dict[str, Any] = json.loads(_whole_characters(json.dumps(value, ensure_ascii=False)))
        return whole
    return value


def _values(text: bytes | bytearray) -> int:
    """At most so many values are in a text of JSON; what stands in its strings is counted too."""
    return sum(map(text.count, (b",", b"[", b"{")))


def _check_depth(value: dict[str, Any]) -> None:
    level: list[dict[str, Any] | list[Any]] = [value]
    for _ in range(MAX_DEPTH):
        inside = itertools.chain.from_iterable(each.values() if isinstance(each, dict) else each for each in level)
        level = [each for each in inside if isinstance(each, dict | list)]
        if not level:
            return
    raise Refusal(400, "invalid_request", f"the request is nested more than {MAX_DEPTH} levels deep")


def objects(value: object, where: str) -> list[dict[str, Any]]:
    """`value` as a list of JSON objects; None is an empty one. Raises Refusal."""
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise Refusal(400, "invalid_request", f"{where} must be a list of objects")
    return value


def messages_of(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The messages of a request, each with a role, of the types that engines and guards rely on. Raises Refusal."""
    messages = objects(body.get("messages"), "messages")
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        if not isinstance(message.get("role"), str):
            raise Refusal(400, "invalid_request", f"{where}.role must be a string")
        if not isinstance(message.get("content"), str | list | None):
            raise Refusal(400, "invalid_request", f"{where}.content must be a string or a list of parts")
        if isinstance(parts := message.get("content"), list):
            _check_parts(parts, f"{where}.content")
        _check_strings(message, ("name", "tool_call_id", "reasoning_content", "thinking"), where)
        for place, call in enumerate(objects(message.get("tool_calls"), f"{where}.tool_calls")):
            _check_call(call, f"{where}.tool_calls[{place}]")
    return messages


def tools_of(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tools of a request, each a function with a name. Raises Refusal."""
    tools = objects(body.get("tools"), "tools")
    for number, tool in enumerate(tools):
        function = tool.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise Refusal(400, "invalid_request", f"tools[{number}] must have a function with a name")
    return tools


def _check_parts(parts: Sequence[object], where: str) -> None:
    """Text alone. An image, a sound or a file may be an address, and engines and providers go there and fetch it: a way
    out to the internet and to the host's own services."""
    for number, part in enumerate(parts):
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise Refusal(400, "unsupported_parameter", f"{where}[{number}] must be a part of the type text")


def _check_call(call: Mapping[str, Any], where: str) -> None:
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise Refusal(400, "invalid_request", f"{where} must have a function with a name")
    if not isinstance(function.get("arguments"), str | dict | None):
        raise Refusal(400, "invalid_request", f"{where}.function.arguments must be a string or an object")
    _check_strings(call, ("id",), where)


def _check_strings(value: Mapping[str, Any], names: Sequence[str], where: str) -> None:
    for name in names:
        if not isinstance(value.get(name), str | None):
            raise Refusal(400, "invalid_request", f"{where}.{name} must be a string")


def stop_words(value: object) -> tuple[str, ...]:
    """`stop` as a tuple; a single string stands for a list of one. Raises Refusal."""
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return tuple(value)
    raise Refusal(400, "invalid_request", "stop must be a string or a list of strings")


def flag(body: Mapping[str, Any], name: str, default: bool) -> bool:
    """A true or false of the body; null is the default. Raises Refusal."""
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise Refusal(400, "invalid_request", f"{name} must be true or false, not {_kind(value)}")
    return value


def _kind(value: object) -> str:
    names = {list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null" if value is None else "an object")


def _whole_characters(text: str) -> str:
    """Half a surrogate pair becomes U+FFFD, as a server's decoder makes it: UTF-8 can't carry it upstream.

    Frameworks send them when they cut a command's output in the middle of an emoji.
    """
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):  # it could not be passed on
        raise ValueError(f"{short(digits)} is out of range")
    return number
