"""The sandbox's end of the door: forwards 127.0.0.1:11434 in the container to the gateway's Unix socket.

Copied into the container and started there with the bundle's Python, so it uses the standard library alone.
Prints "ready" and the port once it listens, and why it can't watch the work directory, if so. It is one thread: an
agent that uses up the container's process limit must not lose its way to the model.

Into each request it puts a header with the fingerprint of the work directory at that moment.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable

PORT = 11434
SOCKET = "/run/harness/gateway.sock"
REQUEST = re.compile(rb"[A-Z]+ \S+ HTTP/1\.[01]\r\n")  # the first line of one
BEGINNING = re.compile(rb"[A-Z]*( \S{0,8192}( [HTP/1.0]*\r?)?)?")  # of such a line

Fingerprint = Callable[[], str | None]


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


async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter, passed_on: Callable[[bytes], bytes]) -> None:
    """Pass on what comes, as it comes, then the end of it."""
    while data := await source.read(65536):
        target.write(passed_on(data))
        await target.drain()
    target.write(passed_on(b""))
    target.write_eof()


async def forward(
    client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter, socket: str, fingerprint: Fingerprint
) -> None:
    """Serve one connection. Each direction ends by itself; when one breaks, both are cut, so that the gateway
    sees at once that its client is gone."""
    writers = [client_out]
    exchange = Exchange(fingerprint)

    def answered(data: bytes) -> bytes:
        exchange.answered()
        return data

    try:
        gateway_in, gateway_out = await asyncio.open_unix_connection(socket)
        writers.append(gateway_out)
        await asyncio.gather(copy(client_in, gateway_out, exchange.asked), copy(gateway_in, client_out, answered))
    except OSError as error:
        print(f"connection ended: {error}", file=sys.stderr, flush=True)
        for writer in writers:
            writer.transport.abort()
    finally:
        for writer in writers:
            writer.close()


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


async def serve(port: int, socket: str, workdir: str) -> None:
    fingerprint, trouble = watching(workdir)

    async def connected(client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter) -> None:
        await forward(client_in, client_out, socket, fingerprint)

    server = await asyncio.start_server(connected, "127.0.0.1", port)
    print(f"ready {server.sockets[0].getsockname()[1]}{trouble}", flush=True)
    await server.serve_forever()


async def main(workdir: str) -> None:
    # A socket that the sandbox may not use (SELinux, a remote Docker) is the machine's fault: without this every
    # agent would seem to crash.
    try:
        _, probe = await asyncio.open_unix_connection(SOCKET)
    except OSError as error:
        sys.exit(f"{SOCKET}: {error}")
    probe.close()
    await serve(PORT, SOCKET, workdir)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
