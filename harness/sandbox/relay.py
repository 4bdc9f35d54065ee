"""The harness's end of the door `relay`: connections out of a sandbox that shares neither socket nor network with us.

The forwarder in the sandbox sends them over its own standard output and hears from its input, which is a stream of the
Docker API; here each is led to the door's Unix socket, in a folder that is mounted nowhere. What the stream holds was
written by whoever controls the sandbox. Anything in it that breaks the rules (multiplex.py) ends the relay.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.sandbox.command import SandboxError, close_stream
from harness.sandbox.container import Container
from harness.sandbox.daemon import DockerFault
from harness.sandbox.multiplex import CONNECTIONS, LEFT, Channel, End, Malformed, Multiplex, Wire, exchange

log = logging.getLogger(__name__)

DOCKERS_HEADER = struct.Struct(">BxxxL")
STDOUT, STDERR = 1, 2
CLOSE_S = 5.0
LOOK_S = 1.0


@dataclass(frozen=True)
class Attached:
    """A command under way in a container that can be spoken with, through a socket that does not block. What comes out
    of it is in Docker's frames, both of its outputs in one."""

    container: Container
    command: str
    socket: socket.socket
    held: Any  # which keeps the connection open

    def own_end(self) -> bool:
        """Whether it is over by itself, or with its container; else its stream was lost first."""
        deadline = time.monotonic() + LOOK_S  # Docker knows a moment later
        with contextlib.suppress(*DockerFault):
            while time.monotonic() < deadline:
                found = self.container.client.api.exec_inspect(self.command)
                if not found["Running"]:
                    return bool(found["ExitCode"] != LEFT)
                time.sleep(0.05)
        return self.container.killed or self.container.state().word == "ended"

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.close()
        close_stream(self.held)


def attach(container: Container, argv: Sequence[str]) -> Attached:
    """Start a command to speak with. Raises SandboxError."""
    api = container.client.api
    try:
        command = str(api.exec_create(container.id, list(argv), stdin=True)["Id"])
        held = api.exec_start(command, socket=True)
    except DockerFault as error:
        raise SandboxError(f"{argv[0]!r} can't be run in the sandbox: {error}") from error
    # TLS is read and written through Docker's own object; else by a descriptor of our own, both ways.
    speaking = held if isinstance(held, ssl.SSLSocket) else socket.socket(fileno=os.dup(held.fileno()))
    speaking.setblocking(False)
    return Attached(container, command, speaking, held)


class Relay:
    """From its making to `close`, in a thread of its own."""

    def __init__(
        self,
        forwarder: Attached,
        socket_path: Path,
        hear: Callable[[bytes], None],
        fault: Callable[[str], None],
        over: Callable[[], None],
    ) -> None:
        """`hear` gets what the forwarder prints for people. `fault` is told what Docker did to the stream, if it is not
        the sandbox's own doing. `over` is called at the end, whatever it is."""
        self.ended: str | None = None  # why, when the sandbox ended it
        self._forwarder = forwarder
        self._socket_path = socket_path
        self._hear = hear
        self._fault = fault
        self._over = over
        self._buffer = bytearray()
        self._frame: tuple[int, int] = (0, 0)  # of Docker's: which output, and how much of it is to come
        self._serving: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it. Every connection is cut."""
        self._closing = True
        with contextlib.suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(lambda: self._task and self._task.cancel())
        self._thread.join(CLOSE_S)
        self._forwarder.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._task = self._loop.create_task(self._relay())
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            pass
        finally:
            self._loop.close()
            self._forwarder.close()
            self._over()

    async def _relay(self) -> None:
        number = self._forwarder.socket.fileno()
        self._wire = Wire(number, number, self._receive, self._send)
        self._room = asyncio.Semaphore(CONNECTIONS)
        self._wire.write(b"\n")  # from here on everything is heard that the forwarder says
        trouble, lost = "its stream ended", False
        try:
            await Multiplex(self._wire, self._output, self._opened).run()
        except Malformed as error:
            self.ended = f"the sandbox broke the rules of the relay: {error}"
        except OSError as error:  # no sandbox can do that to a stream of Docker's
            trouble, lost = str(error), True
        except Exception as error:
            log.exception("the relay failed")
            trouble = f"{type(error).__name__}: {error}"
        finally:
            self._wire.close()
            for task in self._serving:
                task.cancel()
            if self._serving:
                await asyncio.wait(self._serving)
        if self.ended is None and not self._closing:
            if not lost and await asyncio.to_thread(self._forwarder.own_end):
                self.ended = "the forwarder in the sandbox was ended"
            elif not self._closing:
                self._fault(f"the relay to the sandbox broke: {trouble}")

    async def _opened(self, channel: Channel) -> None:
        """Lead a connection to the door. Waits while as many are under way as there may be: those that were cut need a
        moment to go."""
        await self._room.acquire()
        task = asyncio.create_task(self._lead(channel))
        self._serving.add(task)
        task.add_done_callback(self._gone)

    def _gone(self, task: asyncio.Task[None]) -> None:
        self._serving.discard(task)
        self._room.release()

    async def _lead(self, channel: Channel) -> None:
        try:
            door = End.of_streams(*await asyncio.open_unix_connection(self._socket_path))
        except OSError:  # the door is closed
            channel.abort()
            return
        await exchange(End.of_channel(channel), door)

    async def _output(self) -> bytes:
        """The next piece of the forwarder's standard output; empty at its end. Raises OSError."""
        while True:
            which, left = self._frame
            if left and self._buffer:
                piece = bytes(self._buffer[:left])
                del self._buffer[: len(piece)]
                self._frame = which, left - len(piece)
                if which == STDOUT:
                    return piece
                self._hear(piece)
            elif not left and len(self._buffer) >= DOCKERS_HEADER.size:
                self._frame = DOCKERS_HEADER.unpack_from(self._buffer)
                del self._buffer[: DOCKERS_HEADER.size]
                if self._frame[0] not in (STDOUT, STDERR):
                    raise OSError("Docker does not say which output a piece is of")
            elif data := await self._wire.read():
                self._buffer += data
            else:
                return b""

    def _receive(self, most: int) -> bytes:
        try:
            return self._forwarder.socket.recv(most)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def _send(self, data: bytes) -> int:
        try:
            return self._forwarder.socket.send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None
