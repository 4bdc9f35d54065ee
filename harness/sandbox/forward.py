"""The sandbox's end of the door: forwards 127.0.0.1:11434 in the container to the gateway's Unix socket.

Copied into the container and started there with the bundle's Python, so it uses the standard library alone.
Prints "ready" and the port once it listens. It is one thread: an agent that uses up the container's process
limit must not lose its way to the model.
"""

from __future__ import annotations

import asyncio
import sys

PORT = 11434
SOCKET = "/run/harness/gateway.sock"


async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Pass on what comes, as it comes, then the end of it."""
    while data := await source.read(65536):
        target.write(data)
        await target.drain()
    target.write_eof()


async def forward(client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter, socket: str) -> None:
    """Serve one connection. Each direction ends by itself; when one breaks, both are cut, so that the gateway
    sees at once that its client is gone."""
    writers = [client_out]
    try:
        gateway_in, gateway_out = await asyncio.open_unix_connection(socket)
        writers.append(gateway_out)
        await asyncio.gather(copy(client_in, gateway_out), copy(gateway_in, client_out))
    except OSError as error:
        print(f"connection ended: {error}", file=sys.stderr, flush=True)
        for writer in writers:
            writer.transport.abort()
    finally:
        for writer in writers:
            writer.close()


async def serve(port: int, socket: str) -> None:
    async def connected(client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter) -> None:
        await forward(client_in, client_out, socket)

    server = await asyncio.start_server(connected, "127.0.0.1", port)
    print("ready", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def main() -> None:
    # A socket that the sandbox may not use (SELinux, a remote Docker) is the machine's fault: without this every
    # agent would seem to crash.
    try:
        _, probe = await asyncio.open_unix_connection(SOCKET)
    except OSError as error:
        sys.exit(f"{SOCKET}: {error}")
    probe.close()
    await serve(PORT, SOCKET)


if __name__ == "__main__":
    asyncio.run(main())
