"""A server that speaks as much of Ollama's dialect as the harness needs, and breaks as it is told.

    with StandIn() as ollama:
        ollama.faults = ["refuse", None]    # by run, in their order; None and what comes after them are well
        harness.env["OLLAMA_HOST"] = ollama.address

A run begins with `prepare`, which is known by its prompt of one token. A fault is what each call of its run meets:
"refuse" (a reset), "hang" (not a byte), "nothing" (blank lines for ever), "http_400", "http_500", "busy" (429 with
Retry-After, to the first call alone), "half_json", "no_answer" (JSON, of other shapes), "endless", "long_line" (1 GB
without an end), "wrong_model", "smaller_window" (loaded anew with another one in the middle), "slow" (not a byte, but
to who asks for a single token), "mute" (from then on nothing is answered at all).
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "stand-in:1b"
WINDOW = 16384
DIGEST = "a" * 64
RETRY_AFTER_S = 2
LONG_BYTES = 1 << 30


class StandIn:
    """`calls` are the bodies that /api/chat got, with the moment; `decoding` how many it is answering now, and
    `overlaps` how often a run began while one of the run before was being answered."""

    def __init__(self) -> None:
        self.faults: Sequence[str | None] = ()
        self.digest = DIGEST
        self.calls: list[tuple[float, dict[str, Any]]] = []
        self.runs = 0
        self.decoding = 0
        self.overlaps = 0
        self.loaded: int | None = None
        self.largest = WINDOW
        self.mute = False
        self.connections: set[socket.socket] = set()
        self._port = 0
        self._server: ThreadingHTTPServer | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> StandIn:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen, on the port that it had before."""
        stand_in = self

        class Handler(_Handler):
            engine = stand_in

        ThreadingHTTPServer.allow_reuse_address = True
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._server.daemon_threads = True
        self._port = self._server.server_address[1]
        self.loaded = None
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Nobody listens any more, as while a server is updated."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @property
    def fault(self) -> str | None:
        run = self.runs - 1
        return self.faults[run] if 0 <= run < len(self.faults) else None


class _Handler(BaseHTTPRequestHandler):
    engine: StandIn

    def setup(self) -> None:
        super().setup()
        self.engine.connections.add(self.connection)

    def finish(self) -> None:
        self.engine.connections.discard(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # the client left
            super().handle()

    def do_GET(self) -> None:
        self._hang_if_told()
        models: list[dict[str, Any]] = [{"name": MODEL, "model": MODEL, "size": 1, "digest": self.engine.digest}]
        if self.path == "/api/ps":
            for model in models:
                model["context_length"] = self.engine.loaded
            self._json(200, {"models": models if self.engine.loaded else []})
        elif self.path == "/api/tags":
            self._json(200, {"models": models})
        else:
            self._json(200, {"version": "0.0.0-stand-in"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self._hang_if_told()
        if self.path == "/api/show":
            info = {"general.architecture": "stand-in", "stand-in.context_length": WINDOW}
            self._json(200, {"capabilities": ["completion"], "model_info": info, "details": {}})
        elif self.path == "/api/generate":
            if body.get("keep_alive") == 0:
                self.engine.loaded = None
            else:
                self.engine.loaded = min(body["options"]["num_ctx"], self.engine.largest)
            if body.get("raw"):
                self.engine.runs += 1
                self.engine.overlaps += self.engine.decoding > 0
            self._json(200, {"model": body["model"], "done": True, "response": ""})
        else:
            self.engine.calls.append((time.monotonic(), body))
            self.engine.decoding += 1
            try:
                self._chat(body)
            finally:
                self.engine.decoding -= 1

    def _chat(self, body: dict[str, Any]) -> None:
        fault = self.engine.fault
        if fault == "refuse":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        elif fault in ("hang", "mute") or (fault == "slow" and body["options"]["num_predict"] > 1):
            self.engine.mute = fault == "mute"
            self._wait_for_end()
        elif fault and fault.startswith("http_"):
            self._json(int(fault.removeprefix("http_")), {"error": "a fault"})
        elif fault == "busy" and len(self.engine.calls) < 2:
            self._json(429, {"error": "busy"}, ("retry-after", str(RETRY_AFTER_S)))
        else:
            self.send_response(200)
            self.end_headers()
            for piece in _pieces(fault, body["model"]):
                self.wfile.write(piece)
            if fault == "smaller_window":
                self.engine.loaded = 4096

    def _hang_if_told(self) -> None:
        if self.engine.mute:
            self._wait_for_end()

    def _wait_for_end(self) -> None:
        """Of the connection, which its client has to close."""
        with contextlib.suppress(OSError):
            while self.connection.recv(1 << 16):
                pass
        raise ConnectionResetError

    def _json(self, status: int, content: object, *headers: tuple[str, str]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _pieces(fault: str | None, model: str) -> Iterator[bytes]:
    named = "another:70b" if fault == "wrong_model" else model
    if fault == "no_answer":
        yield b'["no", "object"]\n'
    while fault == "nothing":
        time.sleep(0.001)
        yield b"\n" * 1000
    for word in ("I ", "do ", "one ", "thing. "):
        yield _line({"model": named, "message": {"role": "assistant", "content": word}, "done": False})
    while fault == "endless":
        yield _line({"model": named, "message": {"role": "assistant", "content": "again " * 10_000}, "done": False})
    if fault == "long_line":
        for _ in range(LONG_BYTES >> 20):
            yield b"x" * (1 << 20)
    if fault == "half_json":
        yield b'{"model": "stand'
        return
    counts = {"prompt_eval_count": 10, "eval_count": 4, "prompt_eval_duration": 1000, "eval_duration": 1000}
    last = {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop", "load_duration": 0}
    yield _line({"model": named, **last, **counts})


def _line(content: object) -> bytes:
    return json.dumps(content).encode() + b"\n"
