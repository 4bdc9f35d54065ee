"""The gateway: one thread with one event loop, and on it a door for each run."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import uvicorn

from harness.engines.base import ChatRequest, Engine, EngineError, Finish, ModelInfo
from harness.errors import MachineError
from harness.gateway.connections import BACKLOG, protocol
from harness.gateway.door import Door
from harness.gateway.policy import Policy

__all__ = ["Door", "Gateway"]

MAX_SOCKET_PATH = 107  # bytes; the kernel's limit
START_S = 10.0


class Gateway:
    """One for each sweep. Its methods are called from any thread but its own."""

    def __init__(self, engine: Engine, mark: Callable[[], None] = lambda: None) -> None:
        """`mark` is called at the edges of each call: when it gets the engine, at its first token, at its end."""
        self._engine = engine
        self._mark = mark
        self._doors: set[Door] = set()
        self._servers: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="gateway", daemon=True)
        self._thread.start()

    def open(self, socket_path: Path, policy: Policy, model: ModelInfo, journal_dir: Path) -> Door:
        """Open a run's door. Its folder exists; a socket that a killed harness left there is replaced.

        The socket is open to everybody: who may reach it is decided by the folder's mode and by what is
        mounted into a sandbox. Raises MachineError when it can't be made.
        """
        listener = _listen(socket_path)
        quit_now = asyncio.Event()

        def stop_listening() -> None:
            self._doors.discard(door)  # what a run said is not kept until the next one
            socket_path.unlink(missing_ok=True)
            self._loop.call_soon_threadsafe(quit_now.set)

        try:
            door = Door(self._engine, policy, model, journal_dir, self._loop, stop_listening, self._mark)
        except OSError as error:
            listener.close()
            socket_path.unlink(missing_ok=True)
            raise MachineError(f"the journal of calls can't be written in {journal_dir}: {error}") from error
        config = uvicorn.Config(
            door.app,
            interface="asgi3",
            http=protocol(door.malformed),
            backlog=BACKLOG,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",  # malformed requests are the agent's doing; Door logs what is ours
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=3600,  # a framework may test for minutes between two calls
            timeout_graceful_shutdown=1,
        )
        server = _Server(config, quit_now)
        try:
            asyncio.run_coroutine_threadsafe(self._start(server, listener), self._loop).result(START_S)
        except Exception as error:
            door.close()
            raise MachineError(f"the gateway's server on {socket_path} did not start: {error!r}") from error
        self._doors.add(door)
        return door

    def ask(self, request: ChatRequest, limit_s: float | None = None) -> Finish:
        """One call of the harness's own, beside any run: nothing of it is recorded here. Raises EngineError, also for
        an answer that is not whole within the limit."""

        async def last() -> Finish:
            finish = None
            async for event in self._engine.chat(request):
                if isinstance(event, Finish):
                    finish = event
            if finish is None:
                raise EngineError("unavailable", "its answer ended without a last word")
            return finish

        async def in_time() -> Finish:
            try:
                return await asyncio.wait_for(last(), limit_s)
            except TimeoutError:
                raise EngineError("timeout", f"no answer within {limit_s:g} s") from None

        return asyncio.run_coroutine_threadsafe(in_time(), self._loop).result()

    def close(self) -> None:
        """Close every door and end the thread. Safe to call twice."""
        if self._loop.is_closed():
            return
        for door in list(self._doors):
            door.close()
        asyncio.run_coroutine_threadsafe(self._wait_for_servers(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())

    async def _start(self, server: _Server, listener: socket.socket) -> None:
        task = asyncio.create_task(server.serve([listener]))
        self._servers.add(task)
        task.add_done_callback(self._servers.discard)
        ready = asyncio.create_task(server.ready.wait())
        await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            ready.cancel()
            await task  # raises what kept it from starting

    async def _wait_for_servers(self) -> None:
        if self._servers:
            await asyncio.wait(self._servers)


class _Server(uvicorn.Server):
    """Uvicorn's server without its clock: it wakes up when it is told to, not ten times a second."""

    def __init__(self, config: uvicorn.Config, quit_now: asyncio.Event) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()
        self._quit = quit_now

    async def main_loop(self) -> None:
        self.ready.set()
        await self._quit.wait()


def _listen(path: Path) -> socket.socket:
    length = len(str(path).encode())
    if length > MAX_SOCKET_PATH:
        raise MachineError(
            f"the socket's path {path} has {length} bytes, at most {MAX_SOCKET_PATH} work: choose a shorter folder"
        )
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        listener.bind(str(path))
        path.chmod(0o666)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise MachineError(f"the gateway can't listen on {path}: {error}") from error
    return listener
