"""A port of this machine that leads to a Unix socket, as a tunnel to another machine's Docker does; by TLS or not."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def tunnel(path: str, certificate: Path | None = None) -> Iterator[int]:
    """The port. With a folder of cert.pem and key.pem a client has to prove that it has the same."""
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
        context.load_verify_locations(certificate / "cert.pem")
        context.verify_mode = ssl.CERT_REQUIRED
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_listen, args=(listener, path, context), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def _listen(listener: socket.socket, path: str, context: ssl.SSLContext | None) -> None:
    with contextlib.suppress(OSError):
        while True:
            threading.Thread(target=_lead, args=(listener.accept()[0], path, context), daemon=True).start()


def _lead(client: socket.socket, path: str, context: ssl.SSLContext | None) -> None:
    with contextlib.suppress(OSError), client, socket.socket(socket.AF_UNIX) as docker:
        docker.connect(path)
        near, far = client, docker
        if context is not None:
            near = context.wrap_socket(client, server_side=True)
        near.setblocking(False)
        far.setblocking(False)
        _pump(near, far)


def _pump(near: socket.socket, far: socket.socket) -> None:
    """In one thread: TLS is not read and written by two at once."""
    import select

    while True:
        if not (isinstance(near, ssl.SSLSocket) and near.pending()):
            select.select([near, far], [], [])
        for source, target in ((near, far), (far, near)):
            try:
                data = source.recv(1 << 16)
            except (BlockingIOError, ssl.SSLWantReadError):
                continue
            if not data:
                return
            while data:
                try:
                    data = data[target.send(data) :]
                except (BlockingIOError, ssl.SSLWantWriteError):
                    select.select([], [target], [])
