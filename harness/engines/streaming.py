"""What the engines that are reached over HTTP have in common: a client for each event loop, the translation
of transport failures, and the putting together of streamed tool calls."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from harness.engines.base import EngineError

MAX_LINE_BYTES = 16 << 20
MAX_REFUSAL_BYTES = 64 << 10


class LoopClient:
    """One client for the event loop that calls; its connections die with that loop. `keep` is how many idle
    connections stay open for the next call.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def get(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            self._loop = loop
            # No read timeout: a prefill on a small machine takes minutes, and the caller owns the deadline.
            # The environment's proxies are for the internet, not for the engine.
            self._client = httpx.AsyncClient(
                timeout=httpx.Timeout(None, connect=5.0),
                limits=httpx.Limits(max_keepalive_connections=self._keep),
                trust_env=False,
            )
        return self._client


@contextmanager
def transport_errors(engine: str, why: Callable[[], str] = str) -> Iterator[None]:
    """Turns what httpx raises when the other side is not there, or goes away, into EngineError, and what reading an
    answer raises that is none. `why` may add what is known about the cause; it is asked only then.
    """
    try:
        yield
    except httpx.TimeoutException as error:
        raise EngineError("timeout", f"{engine} did not answer in time ({type(error).__name__}){why()}") from error
    except httpx.TransportError as error:
        detail = str(error) or type(error).__name__
        raise EngineError("unavailable", f"{engine} broke off: {detail}{why()}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        detail = f"{type(error).__name__}: {error}"
        raise EngineError("unavailable", f"{engine} sent something that is no answer ({detail}){why()}") from error


async def lines(response: httpx.Response) -> AsyncIterator[str]:
    """The lines of a streamed body that say something. Raises ValueError for one without an end, which httpx's own
    would keep in memory."""
    rest = bytearray()
    async for data in response.aiter_bytes():
        rest += data
        if b"\n" in data:
            *whole, rest = rest.split(b"\n")
            for line in whole:
                if line.strip():
                    yield line.decode("utf-8", "replace").rstrip("\r")
        if len(rest) > MAX_LINE_BYTES:
            raise ValueError(f"a line of more than {MAX_LINE_BYTES >> 20} MB")
    if rest.strip():
        yield rest.decode("utf-8", "replace")


async def beginning(response: httpx.Response) -> bytes:
    """Of the body of a refusal what a sentence can be made of."""
    body = bytearray()
    async for data in response.aiter_bytes():
        body += data
        if len(body) > MAX_REFUSAL_BYTES:
            break
    return bytes(body[:MAX_REFUSAL_BYTES])


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """What a server that is asked too often says, where it says seconds."""
    told = headers.get("retry-after", "")
    return float(told) if told.isascii() and told.isdigit() else None


def text_in(value: Any) -> str:
    """A piece of an answer; None is none. Raises TypeError for what is no text."""
    if not isinstance(value, str | None):
        raise TypeError(f"{type(value).__name__} where a text should be")
    return value or ""


def count_in(value: Any) -> int | None:
    """A count or a number of nanoseconds; None is unknown. Raises TypeError for what is none."""
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise TypeError(f"{value!r:.40} where a count should be")
    return value


def call_id(seed: int, index: int, name: str, arguments: str) -> str:
    """An id for a tool call: the same in every repetition, distinct within a run, whose calls differ in seed.

    Nine letters and digits, because Mistral's chat templates refuse anything else.
    """
    return hashlib.sha256(f"{seed}:{index}:{name}:{arguments}".encode()).hexdigest()[:9]


@dataclass
class _Call:
    identity: str = ""
    name: str = ""
    arguments: str = ""


class CallPieces:
    """Tool calls that arrive in OpenAI's pieces, told apart by their index."""

    def __init__(self) -> None:
        self._calls: dict[int, _Call] = {}

    def __bool__(self) -> bool:
        return bool(self._calls)

    def add(self, index: int, name: str, arguments: str, identity: str = "") -> None:
        call = self._calls.setdefault(index, _Call())
        call.identity = call.identity or identity
        call.name += name
        call.arguments += arguments

    def whole(self, seed: int, cut: bool) -> tuple[dict[str, Any], ...]:
        """The calls in OpenAI's shape; one that came without an identity gets `call_id`. Of an answer that was
        cut, a call whose arguments are no JSON yet is left out: it was never made.
        """
        return tuple(
            openai_call(call.identity, index, call.name, call.arguments or "{}", seed)
            for index, call in sorted(self._calls.items())
            if not cut or _is_json(call.arguments)
        )


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def openai_call(identity: str, index: int, name: str, arguments: str, seed: int) -> dict[str, Any]:
    return {
        "id": identity or call_id(seed, index, name, arguments),
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def finish_reason(told: str | None, called: bool) -> Literal["stop", "length", "tool_calls"]:
    """An answer that was cut stays "length", whatever it holds."""
    if told == "length":
        return "length"
    return "tool_calls" if called else "stop"
