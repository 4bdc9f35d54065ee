"""The door `relay` without Docker: the forwarder as a process of its own, its outputs framed as Docker frames them, and
the harness's own end of it."""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from harness import paths
from harness.guest import READY
from harness.sandbox.multiplex import LEFT
from harness.sandbox.relay import Relay

FORWARDER = paths.PACKAGE / "sandbox" / "forward.py"
START = """
import asyncio, os, sys
sys.path.insert(0, os.path.dirname(sys.argv[1]))
import forward
asyncio.run(getattr(forward, sys.argv[2])(0, *sys.argv[3:]))
"""


def start_forwarder(how: str, *arguments: str) -> subprocess.Popen[bytes]:
    """`by_socket` or `by_relay`, on any port. -I -S: with nothing but the standard library, as in a sandbox."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", START, str(FORWARDER), how, *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
    )  # fmt: skip


@dataclass
class Attached:
    """What Docker gives of a command that is spoken with."""

    process: subprocess.Popen[bytes]
    socket: socket.socket
    dockers: socket.socket

    def __post_init__(self) -> None:
        self.socket.setblocking(False)
        assert self.process.stdout
        assert self.process.stderr
        lock = threading.Lock()
        outputs = [
            threading.Thread(target=self._out, args=(number, pipe, lock), daemon=True)
            for number, pipe in ((1, self.process.stdout), (2, self.process.stderr))
        ]
        for thread in (*outputs, threading.Thread(target=self._in, daemon=True)):
            thread.start()
        threading.Thread(target=self._end, args=(outputs,), daemon=True).start()

    def own_end(self) -> bool:
        return self.process.wait(5) != LEFT

    def close(self) -> None:
        self.socket.close()

    def _out(self, number: int, pipe: IO[bytes], lock: threading.Lock) -> None:
        with contextlib.suppress(OSError, ValueError), pipe:
            while data := pipe.read(32 << 10):
                with lock:
                    self.dockers.sendall(struct.pack(">BxxxL", number, len(data)) + data)

    def _in(self) -> None:
        assert self.process.stdin
        with contextlib.suppress(OSError, ValueError):
            while data := self.dockers.recv(32 << 10):
                while data:
                    data = data[self.process.stdin.write(data) or 0 :]
        with contextlib.suppress(OSError):
            self.process.stdin.close()

    def _end(self, outputs: list[threading.Thread]) -> None:
        for thread in outputs:
            thread.join()
        with contextlib.suppress(OSError):
            self.dockers.shutdown(socket.SHUT_WR)


@dataclass
class Relayed:
    port: int
    relay: Relay
    process: subprocess.Popen[bytes]
    faults: list[str]
    over: threading.Event


@contextlib.contextmanager
def relayed(socket_path: Path, workdir: Path) -> Iterator[Relayed]:
    """A port on the loopback that leads through the relay to a socket."""
    process = start_forwarder("by_relay", str(workdir))
    mine, dockers = socket.socketpair()
    said, ready, over, faults = bytearray(), threading.Event(), threading.Event(), list[str]()

    def hear(chunk: bytes) -> None:
        said.extend(chunk)
        if READY.search(said):
            ready.set()

    relay = Relay(Attached(process, mine, dockers), socket_path, hear, faults.append, over.set)  # type: ignore[arg-type]
    try:
        assert ready.wait(10), said
        yield Relayed(int(said.split()[1]), relay, process, faults, over)
    finally:
        relay.close()
        process.kill()
        process.wait()
        with contextlib.suppress(OSError):
            dockers.shutdown(socket.SHUT_RDWR)  # by which those who wait for it see its end
        dockers.close()
