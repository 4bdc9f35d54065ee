"""A model's stand-in: an OpenAI-compatible server on a Unix socket that plays a list of answers."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any


def say(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def call_bash(command: str) -> dict[str, Any]:
    function = {"name": "bash", "arguments": json.dumps({"command": command})}
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "c1", "type": "function", "function": function}],
    }


@contextmanager
def serve(socket: Path, answers: Sequence[dict[str, Any] | int]) -> Iterator[list[dict[str, Any]]]:
    """Yields the list that the requests are appended to. An answer that is a number is an HTTP error."""
    requests: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            requests.append(json.loads(body) | {"_path": self.path, "_key": self.headers["Authorization"]})
            answer = answers[min(len(requests), len(answers)) - 1]
            if isinstance(answer, int):
                self._reply(answer, {"error": {"message": "no more calls", "type": "limit", "code": "limit"}})
                return
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            choice = {
                "index": 0,
                "message": answer,
                "finish_reason": "tool_calls" if "tool_calls" in answer else "stop",
            }
            self._reply(
                200,
                {
                    "id": "1",
                    "object": "chat.completion",
                    "created": 1,
                    "model": "m",
                    "choices": [choice],
                    "usage": usage,
                },
            )

        def _reply(self, status: int, body: dict[str, Any]) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def address_string(self) -> str:  # a Unix socket's client has no address
            return "client"

        def log_message(self, *args: object) -> None:
            pass

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True

    with Server(str(socket), Handler) as server:
        socket.chmod(0o666)  # the container's root has no capability to override the mode
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield requests
        finally:
            server.shutdown()
            thread.join()
