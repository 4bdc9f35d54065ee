"""The HTTP server behind `scripted/<file>`: plays a list of answers in OpenAI's and in Ollama's dialect.

A test tool. It speaks HTTP with h11 on bare asyncio streams, since a web framework can't refuse a connection,
reset it in the middle of an answer, or never answer. Token counts are counts of words between white space.

Besides the two dialects it has `POST /scripted/reset {"model"}` (back to the first answer) and
`GET /scripted/log`: `{"active": requests being answered, "requests": [{"path", "body", "ended"}]}`, where
`ended` is "answered", "client_gone" or null, and `ended_after_s` the seconds it took.

    python -m harness.engines.scripted_server      prints the address and serves until it is killed
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import h11

from harness.engines.base import Delta
from harness.engines.scripted_play import Entry, Play, read_play
from harness.engines.scripted_voice import PATHS, Voice, deltas, error_body, joined, prompt_tokens, voice
from harness.errors import UserError

_MAX_BODY = 64 * 2**20


LOGGED = 200  # requests, of which the last are kept


@dataclass
class _Logged:
    path: str
    body: dict[str, Any]
    started: float
    ended: Literal["answered", "client_gone"] | None = None
    ended_after_s: float | None = None

    def end(self, how: Literal["answered", "client_gone"]) -> None:
        self.ended, self.ended_after_s = how, time.monotonic() - self.started


@dataclass
class _Loaded:
    """A play and where it stands."""

    play: Play
    position: int = 0
    last_prompt: list[str] = field(default_factory=list)
    num_ctx: int | None = None


class _Gone(Exception):
    """The client has closed its connection."""


class PlayServer:
    """Start with `await start()`, on the loop that shall serve."""

    def __init__(self) -> None:
        self.address = ""
        self._plays: dict[str, _Loaded] = {}
        # With several runs at a time it is never emptied, and a sweep may ask for days.
        self._log: deque[_Logged] = deque(maxlen=LOGGED)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self) -> str:
        """Listen on a free port of the loopback. Returns the address."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=2**20)
        host, port = self._server.sockets[0].getsockname()[:2]
        self.address = f"http://{host}:{port}"
        return self.address

    async def stop(self) -> None:
        """Close the port and every connection."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        connection = _Connection(reader, writer)
        try:
            while (request := await connection.next_request()) is not None:
                await self._answer(connection, *request)
                if not connection.reusable():
                    break
        except (_Gone, ConnectionError, h11.ProtocolError, asyncio.CancelledError):
            pass  # nobody is left to tell
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, connection: _Connection, method: str, path: str, body: bytes) -> None:
        try:
            content = json.loads(body) if body else {}
        except ValueError:
            await connection.json(400, {"error": "the body is not JSON"})
            return
        path = path.partition("?")[0]
        if path == "/scripted/log":
            requests = [vars(entry) for entry in self._log]
            active = sum(entry.ended is None for entry in self._log)
            await connection.json(200, {"active": active, "requests": requests})
            return
        try:
            if path in PATHS:
                await self._play(connection, path, content)
            else:
                await connection.json(200, self._describe(method, path, content))
        except UserError as error:
            await connection.json(404, error_body(path, str(error)))

    def _describe(self, method: str, path: str, content: Mapping[str, Any]) -> object:
        names = list(self._plays)
        if path == "/scripted/reset":
            self._plays.pop(content["model"], None)
            self._log.clear()
            self._loaded(content["model"])
            return {}
        if path == "/api/version":
            return {"version": "scripted"}
        if path == "/api/tags":
            return {"models": [{"name": n, "model": n, "size": 0, "digest": "", "details": {}} for n in names]}
        if path == "/api/ps":
            return {"models": [{"name": n, "model": n, "context_length": p.num_ctx} for n, p in self._plays.items()]}
        if path == "/api/show":
            play = self._loaded(content.get("model") or content.get("name") or "").play
            return {
                "capabilities": ["completion", *sorted(play.capabilities)],
                "model_info": {
                    "general.architecture": "scripted",
                    "scripted.context_length": play.context_tokens,
                },
                "details": {},
                "template": "",
                "parameters": "",
            }
        if path == "/v1/models":
            return {"object": "list", "data": [{"id": name, "object": "model"} for name in names]}
        raise UserError(f"{method} {path} is not served")

    def _loaded(self, model: str) -> _Loaded:
        if model not in self._plays:
            self._plays[model] = _Loaded(read_play(Path(model)))
        return self._plays[model]

    async def _play(self, connection: _Connection, path: str, body: dict[str, Any]) -> None:
        logged = _Logged(path, body, time.monotonic())
        self._log.append(logged)
        answer = asyncio.create_task(self._play_entry(connection, path, body))
        gone = asyncio.create_task(connection.wait_gone())
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise _Gone
            answer.result()
            logged.end("answered")
        finally:
            if logged.ended is None:
                logged.end("client_gone")
            for task in (answer, gone):
                task.cancel()
            await asyncio.wait({answer, gone})

    async def _play_entry(self, connection: _Connection, path: str, body: dict[str, Any]) -> None:
        loaded = self._loaded(body.get("model", ""))
        play = loaded.play
        entry = play.entry(loaded.position)
        loaded.position += 1
        if entry is None:
            await connection.json(500, error_body(path, "the list of answers is exhausted"))
            return
        if entry.fault == "refuse":
            connection.abort()
            return
        if entry.fault == "hang":
            await asyncio.Event().wait()
        prompt = prompt_tokens(body)
        options = body.get("options") or {}
        num_ctx = options.get("num_ctx") or play.context_tokens
        loaded.num_ctx = num_ctx
        if body.get("tools") and "tools" not in play.capabilities:
            await connection.json(400, error_body(path, f"{body['model']} does not support tools"))
            return
        if entry.fault == "context_overflow" or (num_ctx and len(prompt) > num_ctx):
            text = f"the input length ({len(prompt)} tokens) exceeds the context length ({num_ctx})"
            await connection.json(400, error_body(path, text))
            return
        if entry.fault is not None and entry.fault.startswith("http_"):
            status = int(entry.fault.removeprefix("http_"))
            await connection.json(status, error_body(path, f"scripted HTTP {status}"))
            return
        cached = _common(prompt, loaded.last_prompt)
        loaded.last_prompt = prompt
        await _speak(connection, path, body, entry, len(prompt), cached)


async def _speak(
    connection: _Connection, path: str, body: dict[str, Any], entry: Entry, prompt: int, cached: int
) -> None:
    """Say an entry, faults in the middle of it included."""
    began = time.monotonic_ns()
    await asyncio.sleep(entry.first_token_delay_s)
    first = time.monotonic_ns()
    tongue = voice(path, body)
    chunks, thinking, output, cut = deltas(path, body, entry)
    faulty = entry.fault in ("reset", "cut", "invalid_json")
    if faulty:
        chunks = chunks[: max(1, len(chunks) // 2)]
    if tongue.streamed:
        connection.begin(200, tongue.content_type)
        for number, chunk in enumerate(chunks):
            if number:
                await asyncio.sleep(entry.delay_s)
            await connection.send(tongue.chunk(chunk))
    else:
        await asyncio.sleep(entry.delay_s * max(0, len(chunks) - 1))
    if entry.fault == "endless":
        await _endless(connection, tongue, entry)
    counts = {
        "reason": "length" if cut or entry.finish == "length" else "tool_calls" if entry.tool_calls else "stop",
        "input_tokens": prompt,
        "cached_tokens": cached,
        "thinking_tokens": thinking,
        "output_tokens": output,
        "prefill_ns": first - began,
        "decode_ns": time.monotonic_ns() - first,
    }
    if tongue.streamed:
        not_json = b"data: {not JSON\n\n" if path.startswith("/v1/") else b"{not JSON\n"
        last = not_json if entry.fault == "invalid_json" else b"" if faulty else tongue.last(counts)
    else:
        whole = tongue.whole(joined(chunks), counts)
        last = whole[: len(whole) // 2] if faulty else whole
        connection.begin(200, "application/json", length=len(whole if entry.fault == "reset" else last))
    if entry.fault == "reset":
        if last:
            await connection.send(last)
        await asyncio.sleep(0.02)  # a reset overtakes what was sent just before
        connection.abort()
        return
    await connection.end(last)


async def _endless(connection: _Connection, tongue: Voice, entry: Entry) -> None:
    while True:
        await asyncio.sleep(max(entry.delay_s, 0.005))
        if tongue.streamed:
            await connection.send(tongue.chunk(Delta(text=entry.text or "again ")))


def _common(one: list[str], other: list[str]) -> int:
    """How many words two prompts have in common from the start: what a prompt cache would hold."""
    count = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        count += 1
    return count


class _Connection:
    """One connection of a client, as h11 sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=2**20)
        self._waiting = b""

    async def next_request(self) -> tuple[str, str, bytes] | None:
        request: h11.Request | None = None
        body = bytearray()
        while True:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                self._h11.receive_data(await self._reader.read(2**16))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > _MAX_BODY:
                    raise _Gone
            elif isinstance(event, h11.EndOfMessage):
                assert request is not None
                return request.method.decode(), request.target.decode(), bytes(body)
            else:
                return None

    def reusable(self) -> bool:
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
            return True
        return False

    async def wait_gone(self) -> None:
        """Return when the client has closed its end."""
        while True:
            try:
                data = await self._reader.read(2**16)
            except ConnectionError:
                return
            if not data:
                return
            self._h11.receive_data(data)  # the next request, sent early

    async def json(self, status: int, body: object) -> None:
        encoded = json.dumps(body).encode()
        self.begin(status, "application/json", length=len(encoded))
        await self.end(encoded)

    def begin(self, status: int, content_type: str, length: int | None = None) -> None:
        """The head of a response; it goes out with the first bytes of the body."""
        size = ("transfer-encoding", "chunked") if length is None else ("content-length", str(length))
        head = h11.Response(status_code=status, headers=[("content-type", content_type), size])
        self._waiting = self._h11.send(head) or b""

    async def send(self, data: bytes) -> None:
        await self._write(self._h11.send(h11.Data(data=data)) or b"")

    async def end(self, data: bytes = b"") -> None:
        """The last bytes of a body."""
        last = (self._h11.send(h11.Data(data=data)) or b"") if data else b""
        await self._write(last + (self._h11.send(h11.EndOfMessage()) or b""))

    def abort(self) -> None:
        """Close with a reset, as a server that died does."""
        raw: socket.socket = self._writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def _write(self, data: bytes) -> None:
        self._writer.write(self._waiting + data)
        self._waiting = b""
        await self._writer.drain()


async def _serve() -> None:
    print(await PlayServer().start(), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve())
