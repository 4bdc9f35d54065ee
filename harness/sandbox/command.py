"""A command under way in a container, and what is said when Docker fails under it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from docker.errors import APIError, NotFound
from docker.utils.socket import frames_iter

from harness.errors import MachineError
from harness.sandbox.daemon import DockerFault

if TYPE_CHECKING:
    from harness.sandbox.container import Container

LOOK_S = 1.0  # between questions to Docker whether a command has ended
DRAIN_S = 0.5  # for the last of its output, once it has


class SandboxError(MachineError):
    """Docker or the container failed under us; it is not the agent's doing."""


@dataclass(frozen=True)
class Exit:
    code: int | None  # None when the container was gone before the process had ended
    duration_s: float


@contextlib.contextmanager
def docker_asked(what: str) -> Iterator[None]:
    """Make a fault of Docker one of the sandbox. Raises SandboxError."""
    try:
        yield
    except DockerFault as error:
        text = getattr(error, "explanation", None) or str(error)
        raise SandboxError(f"{what}: {text}") from error


def close_stream(stream: Any) -> None:
    """Close what Docker was asked for as a socket together with its connection. docker-py holds the two in a circle of
    references, so that each command would keep a file open until the next collection of garbage."""
    for each in (getattr(stream, "_response", None), stream):
        if each is not None:
            with contextlib.suppress(OSError):
                each.close()


class Running:
    """A command under way in a container, followed by a thread of its own.

    The times are those of time.monotonic(). What Docker takes to answer is no part of a command's time: it began
    between `asked_s` and `started_s`, and ended at `ended_s`, or up to `end_lag_s` before that.
    """

    def __init__(self, container: Container, command: str, sink: Callable[[bytes], None]) -> None:
        self._container = container
        self._command = command
        self._sink = sink
        self._ended = threading.Event()
        self._exit: Exit | None = None
        self._failure: Exception | None = None
        self.asked_s = time.monotonic()
        self.started_s: float | None = None
        self.ended_s: float | None = None
        self.end_lag_s = 0.0
        self._next_look = self.asked_s + LOOK_S
        threading.Thread(target=self._follow, name="command", daemon=True).start()

    def ran_s(self) -> float:
        """Seconds for which it has run for certain, so far or to its end."""
        return 0.0 if self.started_s is None else (self.ended_s or time.monotonic()) - self.started_s

    def lag_s(self) -> float:
        """By how much its beginning and its end together may be off."""
        return (self.started_s or time.monotonic()) - self.asked_s + self.end_lag_s

    def wait(self, timeout_s: float) -> bool:
        """Whether the command has ended, after waiting for that at most about `timeout_s`.

        A process that the command left behind may hold its output open: it has ended all the same.
        """
        if self._ended.wait(timeout_s):
            return True
        if time.monotonic() < self._next_look:
            return False
        asked_s = time.monotonic()
        gone = False
        with docker_asked("a command in the sandbox can't be inspected"):
            try:
                code = self._container.client.api.exec_inspect(self._command)["ExitCode"]
            except NotFound:  # Docker forgets the commands of a container that has died
                if self._container.alive():
                    raise
                gone, code = True, None
        answered_s = time.monotonic()
        self._next_look = answered_s + LOOK_S
        if code is None and not gone:
            return False
        if not self._ended.wait(DRAIN_S):
            self.end_lag_s = answered_s - asked_s
            self._end(code, answered_s)
        return True

    def pid(self) -> int | None:
        """The number of its process on the host, as soon as Docker tells it."""
        with contextlib.suppress(*DockerFault):
            return int(self._container.client.api.exec_inspect(self._command)["Pid"]) or None
        return None

    def exit(self) -> Exit:
        """How it ended; for a container that was killed meanwhile an Exit without a code.

        Raises SandboxError, and what its sink raised.
        """
        if self._failure:
            raise self._failure
        return self._exit or Exit(None, time.monotonic() - self.asked_s)

    def _follow(self) -> None:
        container, api, code, ended_s = self._container, self._container.client.api, None, None
        try:
            stream = api.exec_start(self._command, socket=True)
            self.started_s = time.monotonic()
            try:
                for _, chunk in frames_iter(stream, tty=False):
                    if not self._ended.is_set() and not self._taken(chunk):
                        break
                ended_s = time.monotonic()
            finally:
                close_stream(stream)
            code = api.exec_inspect(self._command)["ExitCode"]
        except APIError as error:  # Docker answers, and knows nothing of the command: its container may be no more
            if not container.killed and container.alive():
                self._failure = _lost(error)
        except Exception as error:  # noqa: BLE001 - a connection that breaks has no end of exceptions
            if not container.killed:
                self._failure = self._failure or _lost(error)
        if container.killed or (code == 137 and not container.alive()):
            code = None
        self._end(code, ended_s or time.monotonic())

    def _taken(self, chunk: bytes) -> bool:
        try:
            self._sink(chunk)
        except OSError as error:  # the disk is full, say: a command that nobody listens to would wait for ever
            self._failure = error
        return self._failure is None

    def _end(self, code: int | None, at_s: float) -> None:
        if not self._ended.is_set():
            self.ended_s = at_s
            self._exit = Exit(code, at_s - self.asked_s)
            self._ended.set()


def _lost(error: Exception) -> SandboxError:
    failure = SandboxError(f"Docker lost a command in the sandbox: {error}")
    failure.__cause__ = error
    return failure
