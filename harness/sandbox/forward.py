"""The sandbox's end of the door: leads from 127.0.0.1:11434 in the container to the gateway.

Two ways: through the gateway's Unix socket, mounted into the container; or, where that can't be, through its own
standard input and output, which the harness holds the other end of. Copied into the container and started there
with the bundle's Python, so it uses the standard library alone. It prints "ready" and the port on standard error once
it listens, and why it can't watch the work directory, if so. It is one thread: an agent that uses up the container's
process limit must not lose its way to the model.

Into each request it puts a header with the fingerprint of the work directory at that moment.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.sandbox.multiplex import LEFT, End, Multiplex, Wire, exchange
else:  # beside this file: in a sandbox there is no package
    from multiplex import LEFT, End, Multiplex, Wire, exchange

PORT = 11434
SOCKET = "/run/harness/gateway.sock"
REQUEST = re.compile(rb"[A-Z]+ \S+ HTTP/1\.[01]\r\n")  # the first line of one
BEGINNING = re.compile(rb"[A-Z]*( \S{0,8192}( [HTP/1.0]*\r?)?)?")  # of such a line

Fingerprint = Callable[[], str | None]
Connect = Callable[[], Awaitable[End]]


class Exchange:
    """One connection's requests and answers, told apart by whose turn it is: no client sends a request before the
    answer to the one before has begun."""

    def __init__(self, fingerprint: Fingerprint) -> None:
        self._fingerprint = fingerprint
        self._held: bytes | None = b""  # a request's beginning, until its first line is whole; None within a request

    def answered(self) -> None:
        """Something came from the gateway."""
        if self._held is None:
            self._held = b""

    def asked(self, data: bytes) -> bytes:
        """What to pass on of what came from the client."""
        if self._held is None:
            return data
        self._held += data
        if data and BEGINNING.fullmatch(self._held):
            return b""
        whole, self._held = self._held, None
        line = REQUEST.match(whole)
        if line is None or (fingerprint := self._fingerprint()) is None:
            return whole
        return line[0] + b"X-Harness-Workdir: " + fingerprint.encode() + b"\r\n" + whole[line.end() :]


async def forward(client: End, connect: Connect, fingerprint: Fingerprint) -> None:
    """Serve one connection."""
    turns = Exchange(fingerprint)

    def answered(data: bytes) -> bytes:
        turns.answered()
        return data

    try:
        gateway = await connect()
    except OSError as error:
        client.abort()
        trouble: OSError | None = error
    else:
        trouble = await exchange(client, gateway, turns.asked, answered)
    if trouble is not None:
        print(f"connection ended: {trouble}", file=sys.stderr, flush=True)


def watching(workdir: str) -> tuple[Fingerprint, str]:
    """How to get the fingerprint of a folder, and what is wrong if there is none."""
    from watch import Watch  # type: ignore[import-not-found]  # beside this file: in a sandbox there is no package

    try:
        watch = Watch(workdir)
    except OSError as error:
        return lambda: None, f" unwatched: {error.strerror}"
    asyncio.get_running_loop().add_reader(watch.fileno(), watch.hear)

    def fingerprint() -> str | None:
        try:
            found: str = watch.fingerprint()
        except OSError:
            return None
        return found

    return fingerprint, ""


async def serve(port: int, connect: Connect, workdir: str) -> None:
    """Listen until something ends it."""
    fingerprint, trouble = watching(workdir)

    async def connected(client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter) -> None:
        await forward(End.of_streams(client_in, client_out), connect, fingerprint)

    server = await asyncio.start_server(connected, "127.0.0.1", port)
    print(f"ready {server.sockets[0].getsockname()[1]}{trouble}", file=sys.stderr, flush=True)
    await server.serve_forever()


async def by_socket(port: int, socket: str, workdir: str) -> None:
    async def connect() -> End:
        return End.of_streams(*await asyncio.open_unix_connection(socket))

    # A socket that the sandbox may not use (SELinux, a remote Docker) is the machine's fault: without this every
    # agent would seem to crash.
    try:
        probe = await connect()
    except OSError as error:
        sys.exit(f"{socket}: {error}")
    probe.writer.close()
    await serve(port, connect, workdir)


async def by_relay(port: int, workdir: str) -> None:
    """Until the harness leaves, or does not keep to the rules."""
    os.read(0, 1)  # it speaks when it is spoken to: what comes before the harness listens is lost to it
    for descriptor in (0, 1):
        os.set_blocking(descriptor, False)
    wire = Wire(0, 1, lambda most: os.read(0, most), lambda data: os.write(1, data))
    multiplex = Multiplex(wire, wire.read)

    async def connect() -> End:
        return End.of_channel(multiplex.open())

    either = [asyncio.ensure_future(each) for each in (serve(port, connect, workdir), multiplex.run())]
    done, _ = await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    sys.exit(LEFT)


if __name__ == "__main__":
    asyncio.run(by_relay(PORT, sys.argv[1]) if sys.argv[2:] == ["relay"] else by_socket(PORT, SOCKET, sys.argv[1]))
