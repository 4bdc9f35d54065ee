"""A Docker that takes its time: every request to it waits before it is passed on."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

CHUNK = 65536


@contextlib.contextmanager
def slow_docker(address: str, delay_s: float, only: bytes = b"") -> Iterator[str]:
    """An address that leads to the daemon at `address` (a Unix socket's), each request with `only` in its first line
    `delay_s` later."""
    target = address.removeprefix("unix://")

    class Door(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.socket(socket.AF_UNIX) as there:
                there.connect(target)
                answers = threading.Thread(target=_pass_on, args=(there, self.request))
                answers.start()
                while data := _received(self.request):
                    # What a client sends on a connection that is no HTTP any more has no first line.
                    line = data.split(b"\r\n", 1)[0]
                    if only in line and line.split(b" ", 1)[0] in (b"GET", b"POST", b"PUT", b"DELETE", b"HEAD"):
                        time.sleep(delay_s)
                    there.sendall(data)
                with contextlib.suppress(OSError):
                    there.shutdown(socket.SHUT_WR)
                answers.join()

    with tempfile.TemporaryDirectory(prefix="slow-docker-") as folder:
        path = str(Path(folder, "docker.sock"))
        with socketserver.ThreadingUnixStreamServer(path, Door) as server:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"unix://{path}"
            server.shutdown()


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(CHUNK)
    except OSError:
        return b""


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := _received(source):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
