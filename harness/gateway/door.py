"""One run's way out to its model: a Unix socket with an HTTP server of two dialects behind it.

Keys. Each door has a random key. A request that carries another one is answered 401, whatever its path. In
OpenAI's dialect (`Authorization: Bearer KEY` or `x-api-key: KEY`) the key is required. Ollama's clients often
can't send one, so there a request without a key is accepted: the socket itself belongs to one run and is
mounted into that run's sandbox alone, so who reaches it is that run.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from starlette.types import Receive, Scope, Send

from harness.engines.base import Engine, ModelInfo
from harness.gateway import ollama, openai
from harness.gateway.body import Body, UnderWay
from harness.gateway.calls import Call, Calls
from harness.gateway.failures import run_over
from harness.gateway.guard import Intervention
from harness.gateway.ledger import CallRecord, Journal, JournalFull
from harness.gateway.limits import Stop
from harness.gateway.policy import Policy
from harness.gateway.wire import Dialect, Failure, Refusal, Reply, decode_object, encode, short
from harness.outcome import EndedBy

log = logging.getLogger(__name__)

ABORT_S = 1.0  # within which nothing is left decoding upstream

_FINGERPRINT = re.compile(rb"[0-9a-f]{16}")

_READERS: dict[str, Callable[[Mapping[str, Any], Policy], tuple[Any, Reply] | bytes]] = {
    "/v1/chat/completions": openai.read_chat,
    "/api/chat": ollama.read_chat,
    "/api/generate": ollama.read_generate,
}


class Door:
    """What the sweep holds of a run's gateway. Its methods may be called from any thread."""

    def __init__(
        self,
        engine: Engine,
        policy: Policy,
        model: ModelInfo,
        journal_dir: Path,
        loop: asyncio.AbstractEventLoop,
        stop_listening: Callable[[], None],
        mark: Callable[[], None],
    ) -> None:
        self.key = secrets.token_urlsafe(24)
        self.stopped = threading.Event()
        self.stop_reason: EndedBy | None = None
        self.stop_detail: str | None = None
        self._policy = policy
        self._model = model
        self._loop = loop
        self._stop_listening = stop_listening
        self._lock = threading.Lock()
        self._close_lock = threading.Lock()
        self._closing = False
        self._closed: list[CallRecord] | None = None
        self._answering: set[asyncio.Task[Any]] = set()
        self._under_way = UnderWay()
        self._journal = Journal(journal_dir, self._journal_failed)
        self._calls = Calls(engine, policy, model, self._journal, self._stop_for, self._over, mark)

    @property
    def opened_s(self) -> float:
        """The moment, by the monotonic clock, from which the calls' offsets count."""
        return self._calls.opened_s

    @property
    def interventions(self) -> list[Intervention]:
        """What the run's guard did; to be read when the door is closed."""
        return list(self._calls.guard.interventions) if self._calls.guard else []

    def stop(self, reason: EndedBy, detail: str) -> None:
        """End the run: refuse further requests, abort what is being generated. The first reason stays."""
        with self._lock:
            if self._closing or self.stop_reason is not None:
                return
            self.stop_reason, self.stop_detail = reason, detail
            self.stopped.set()
            # Under the lock: `close` may not end the loop in between.
            self._loop.call_soon_threadsafe(self._calls.abort_all)

    def close(self) -> list[CallRecord]:
        """Stop listening, abort what is in flight within a second, bring the journal to disk.

        Returns all calls in the order in which they began. Safe to call again; not from the gateway's thread.
        """
        with self._close_lock:
            if self._closed is not None:
                return list(self._closed)
            with self._lock:  # not held any longer: a call that ends now may want to stop the run
                self._closing = True
            self._stop_listening()
            asyncio.run_coroutine_threadsafe(self._end_calls(), self._loop).result()
            self._journal.close()
            self._closed = sorted(self._calls.records, key=lambda record: record.index)
            return list(self._closed)

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        path = _path(scope["path"])
        dialect: Dialect = "ollama" if path == "/" or path.startswith("/api/") else "openai"
        out = Response(send, ollama.failure_body if dialect == "ollama" else openai.failure_body)
        body = Body(self._under_way)
        try:
            await self._serve(scope, path, dialect, receive, body, out)
        except Exception as error:
            log.exception("the gateway failed on a request")
            self.stop("sandbox_error", f"the gateway failed on a request: {type(error).__name__}: {error}")
            if out.begun:
                raise
            failure = Failure("refused", 500, "gateway_failed", "the gateway failed on this request")
            self._calls.refuse(failure, dialect, {"path": path}, body.size_bytes)
            await out.fail(failure)
        finally:
            body.free()

    def malformed(self) -> None:
        """Something came that is not HTTP; it is answered below this application."""
        if self._over() is None:
            self._calls.refuse(Failure("refused", 400, "invalid_http", "the request is not HTTP"), "openai", {}, 0)

    async def _serve(
        self, scope: Scope, path: str, dialect: Dialect, receive: Receive, body: Body, out: Response
    ) -> None:
        arrived = time.monotonic()
        if not await body.read(receive):
            self._calls.count_idle()
            return
        if reason := self._over():
            await out.fail(run_over(reason))
            return
        asked: dict[str, Any] = {"path": short(path)}
        try:
            self._authorise(scope, dialect)
            if scope["method"] in ("GET", "HEAD"):
                self._calls.count_idle()
                await self._get(path, out)
                return
            content = decode_object(body.whole())
            asked = openai.asked(content) | asked
            if path == "/api/show":
                self._calls.count_idle()
                await out.whole(encode(ollama.show(self._policy, self._model)))
                return
            reader = _READERS.get(path)
            if reader is None or scope["method"] != "POST":
                raise Refusal(404, "not_found", f"{scope['method']} {path} is not served: use {', '.join(_READERS)}")
            read = reader(content, self._policy)
            if isinstance(read, bytes):  # answered without the engine
                self._calls.count_idle()
                await out.whole(read)
                return
            ask, reply = read
            self._calls.check(ask)
        except Refusal as refusal:
            self._calls.refuse(refusal.failure, dialect, asked, body.size_bytes)
            await out.fail(refusal.failure)
            return
        call = Call(ask, body.size_bytes, arrived, _fingerprint(scope))
        watcher = asyncio.create_task(_watch(receive, call))
        task = asyncio.current_task()
        assert task is not None
        self._answering.add(task)
        try:
            await self._calls.answer(call, reply, out)
        finally:
            self._answering.discard(task)
            watcher.cancel()

    def _authorise(self, scope: Scope, dialect: Dialect) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        given = headers.get(b"x-api-key", b"")
        if authorization := headers.get(b"authorization"):
            given = authorization.partition(b" ")[2].strip()
        if not given and dialect == "ollama":
            return
        if not hmac.compare_digest(given, self.key.encode()):
            raise Refusal(401, "invalid_api_key", "the key is not this run's" if given else "the key is missing")

    async def _get(self, path: str, out: Response) -> None:
        answers: dict[str, object] = {
            "/v1/models": openai.models(self._policy),
            f"/v1/models/{self._policy.model}": openai.model(self._policy),
            "/api/tags": ollama.tags(self._policy, self._model),
            "/api/version": ollama.version(),
            "/": {},  # by which some clients look whether a server is there
        }
        if path in answers:
            await out.whole(encode(answers[path]))
        else:  # not counted as refused: clients look for many things and go on without them
            await out.fail(Failure("refused", 404, "not_found", f"GET {path} is not served"))

    def _over(self) -> str | None:
        """Why no further call may begin."""
        if self._closing:
            return "it was closed"
        return self.stop_detail if self.stop_reason is not None else None

    def _stop_for(self, stop: Stop) -> None:
        self.stop(stop.reason, stop.detail)

    def _journal_failed(self, error: Exception) -> None:
        if isinstance(error, JournalFull):
            self.stop("crashed", str(error))
        else:
            self.stop("sandbox_error", f"the journal of calls could not be written: {error}")

    async def _end_calls(self) -> None:
        self._calls.abort_all()
        if self._answering:
            _, late = await asyncio.wait(self._answering, timeout=ABORT_S)
            for task in late:  # clients that do not read, engines that do not let go
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=ABORT_S)
                self._calls.end_open()


class Response:
    """One HTTP response over ASGI's `send`."""

    def __init__(self, send: Send, failure_body: Callable[[Failure], object]) -> None:
        self.begun = False
        self._send = send
        self._failure_body = failure_body

    async def stream(self, content_type: str, data: bytes, last: bool = False) -> None:
        """Send a piece of a streamed body; the first one sends the headers too."""
        if not self.begun:
            self.begun = True
            headers = [(b"content-type", content_type.encode()), (b"cache-control", b"no-cache")]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": data, "more_body": not last})

    async def whole(self, body: bytes, status: int = 200, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        """Send a JSON body."""
        length = (b"content-length", str(len(body)).encode())
        all_headers = [(b"content-type", b"application/json"), length, *headers]
        await self._send({"type": "http.response.start", "status": status, "headers": all_headers})
        await self._send({"type": "http.response.body", "body": body})

    async def fail(self, failure: Failure) -> None:
        """Send an error in the dialect's shape; OpenAI's clients heed the header on retrying."""
        retry = b"true" if failure.http_status >= 500 else b"false"
        body = encode(self._failure_body(failure))
        await self.whole(body, failure.http_status, ((b"x-should-retry", retry),))


def _path(path: str) -> str:
    """The path as the table has it: without a trailing slash, OpenAI's with its /v1 also where left out."""
    path = path.rstrip("/") or "/"
    return f"/v1{path}" if path in ("/chat/completions", "/models") else path


def _fingerprint(scope: Scope) -> str | None:
    """Of the work directory, as the forwarder put it first; anything else that stands there is nothing."""
    for name, value in scope["headers"]:
        if name == b"x-harness-workdir":
            return value.decode() if _FINGERPRINT.fullmatch(value) else None
    return None


async def _watch(receive: Receive, call: Call) -> None:
    """Give the call up when its client leaves."""
    with contextlib.suppress(asyncio.CancelledError):
        while (await receive())["type"] != "http.disconnect":
            pass
        call.give_up("client")
