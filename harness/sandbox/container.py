"""One container: made, started, worked in, killed, read, removed. It is removed on every way out."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

import docker
import requests
from docker.errors import APIError, NotFound

from harness.errors import MachineError
from harness.sandbox import seccomp
from harness.sandbox.daemon import KIND, OWNER, RUN, SWEEP, DockerFault, owner


class SandboxError(MachineError):
    """Docker or the container failed under us; it is not the agent's doing."""


@dataclass(frozen=True)
class Limits:
    """What a container may use."""

    cpus: float
    memory_bytes: int
    disk_bytes: int  # of the writable layer, watched
    deadline_s: float  # the container ends by itself after this, harness or no harness
    pids: int = 1024
    tmp_bytes: int = 1 << 30  # /tmp is memory, and counts as such
    file_bytes: int = 2 << 30  # the largest file a process may write
    files: int = 2048  # open at once in one process; with `pids` that is less than the whole machine has


# Of what the kernel counts by user and not by container, and root in a container is root to it: signals that wait, and
# bytes of POSIX message queues. A sandbox comes to its limit before the machine comes to its own.
PENDING_SIGNALS, MESSAGE_QUEUE_BYTES = 4096, 64 << 10


@dataclass(frozen=True)
class Exit:
    code: int | None  # None when the container was gone before the process had ended
    duration_s: float


@dataclass(frozen=True)
class State:
    word: Literal["running", "ended", "gone"]
    out_of_memory: bool  # the kernel killed its first process for that


LOOK_S = 1.0  # between questions to Docker whether a command has ended
DRAIN_S = 0.5  # for the last of its output, once it has


@dataclass
class Container:
    """A container of ours. Use `running(...)`, which removes it."""

    client: docker.DockerClient
    id: str
    limits: Limits
    killed: bool = field(default=False)

    def begin(
        self,
        argv: Sequence[str],
        *,
        workdir: str | None = None,
        env: Mapping[str, str] | None = None,
        sink: Callable[[bytes], None] = lambda _: None,
    ) -> Running:
        """Start a command, its output (both streams as they come) to `sink`. Raises SandboxError."""
        with _docker(f"{argv[0]!r} can't be run in the sandbox"):
            made = self.client.api.exec_create(self.id, list(argv), workdir=workdir, environment=dict(env or {}))
        return Running(self, str(made["Id"]), sink)

    def exec(self, argv: Sequence[str], *, sink: Callable[[bytes], None] = lambda _: None) -> Exit:
        """Run a command to its end. Raises SandboxError."""
        running = self.begin(argv, sink=sink)
        while not running.wait(LOOK_S):
            pass
        return running.exit()

    def state(self) -> State:
        """Whether the container runs, has ended, or can't be seen any more (removed, or Docker does not answer)."""
        try:
            found = self.client.api.inspect_container(self.id)["State"]
        except DockerFault:
            return State("gone", False)
        return State("running" if found["Running"] else "ended", bool(found["OOMKilled"]))

    def state_after(self, exit_: Exit | None) -> State:
        """The state once a command has ended. A container that dies takes its commands along (exit code 137) a moment
        before Docker knows, so a killed command's container is given that moment."""
        deadline = time.monotonic() + DRAIN_S
        while True:
            state = self.state()
            killed = exit_ is not None and exit_.code == 137
            if state.word != "running" or not killed or time.monotonic() > deadline:
                return state
            time.sleep(0.05)

    def alive(self) -> bool:
        return self.state().word == "running"

    def pid(self) -> int:
        """The number of its first process on the host."""
        with _docker("the sandbox can't be inspected"):
            return int(self.client.api.inspect_container(self.id)["State"]["Pid"])

    def kill(self) -> None:
        """End every process in it at once. No process can put that off. Nothing happens to a dead one."""
        self.killed = True
        try:
            self.client.api.kill(self.id)
        except APIError as error:
            if error.status_code not in (404, 409):  # gone, or dead already
                raise SandboxError(f"the sandbox can't be killed: {error.explanation or error}") from error
        except requests.exceptions.RequestException as error:
            raise SandboxError(f"the sandbox can't be killed: Docker does not answer ({error})") from error

    def put(self, archive: bytes, path: str = "/") -> None:
        """Unpack a tar below `path`."""
        with _docker("files can't be put into the sandbox"):
            self.client.api.put_archive(self.id, path, archive)

    def stream(self, path: str) -> Iterator[bytes]:
        """A tar of `path` in pieces as they come, also of a dead container.

        Raises FileNotFoundError when there is no such path, SandboxError.
        """
        try:
            with _docker(f"{path} can't be read from the sandbox"):
                chunks, _ = self.client.api.get_archive(self.id, path, chunk_size=1 << 20)
                yield from chunks
        except SandboxError as error:
            if isinstance(error.__cause__, NotFound):
                raise FileNotFoundError(path) from error
            raise

    def archive(self, path: str, limit_bytes: int) -> IO[bytes]:
        """The same in a temporary file. Raises ValueError besides, when the tar is larger than the limit."""
        file = tempfile.TemporaryFile(prefix="harness-archive-")  # noqa: SIM115 - the caller's
        try:
            for chunk in self.stream(path):
                file.write(chunk)
                if file.tell() > limit_bytes:
                    raise ValueError(f"{path} is larger than {limit_bytes} bytes")
        except BaseException:
            file.close()
            raise
        file.seek(0)
        return file

    def written_bytes(self) -> int | None:
        """Size of the writable layer now, or None when Docker does not say."""
        with _docker("the size of the sandbox can't be read"):
            rows = self.client.api.containers(all=True, size=True, filters={"id": self.id})
        size = rows[0].get("SizeRw") if rows else None
        return None if size is None else int(size)


class Running:
    """A command under way in a container, followed by a thread of its own."""

    def __init__(self, container: Container, command: str, sink: Callable[[bytes], None]) -> None:
        self._container = container
        self._command = command
        self._sink = sink
        self._ended = threading.Event()
        self._exit: Exit | None = None
        self._failure: SandboxError | None = None
        self._began = time.monotonic()
        self._next_look = self._began + LOOK_S
        threading.Thread(target=self._follow, name="command", daemon=True).start()

    def wait(self, timeout_s: float) -> bool:
        """Whether the command has ended, after waiting for that at most about `timeout_s`.

        A process that the command left behind may hold its output open: it has ended all the same.
        """
        if self._ended.wait(timeout_s):
            return True
        if time.monotonic() < self._next_look:
            return False
        self._next_look = time.monotonic() + LOOK_S
        gone = False
        with _docker("a command in the sandbox can't be inspected"):
            try:
                code = self._container.client.api.exec_inspect(self._command)["ExitCode"]
            except NotFound:  # Docker forgets the commands of a container that has died
                if self._container.alive():
                    raise
                gone, code = True, None
        if code is None and not gone:
            return False
        if not self._ended.wait(DRAIN_S):
            self._exit = Exit(code, time.monotonic() - self._began)
            self._ended.set()
        return True

    def pid(self) -> int | None:
        """The number of its process on the host, as soon as Docker tells it."""
        with contextlib.suppress(*DockerFault):
            return int(self._container.client.api.exec_inspect(self._command)["Pid"]) or None
        return None

    def exit(self) -> Exit:
        """How it ended; for a container that was killed meanwhile an Exit without a code. Raises SandboxError."""
        if self._failure:
            raise self._failure
        return self._exit or Exit(None, time.monotonic() - self._began)

    def _follow(self) -> None:
        container = self._container
        try:
            for chunk in container.client.api.exec_start(self._command, stream=True):
                if not self._ended.is_set():
                    self._sink(chunk)
            code = container.client.api.exec_inspect(self._command)["ExitCode"]
        except DockerFault as error:
            if not container.killed and container.alive():
                self._failure = SandboxError(f"Docker lost a command in the sandbox: {error}")
                self._failure.__cause__ = error
            code = None
        if not self._ended.is_set():
            if container.killed or (code == 137 and not container.alive()):
                code = None
            self._exit = Exit(code, time.monotonic() - self._began)
            self._ended.set()


@contextlib.contextmanager
def _docker(what: str) -> Iterator[None]:
    try:
        yield
    except DockerFault as error:
        text = getattr(error, "explanation", None) or str(error)
        raise SandboxError(f"{what}: {text}") from error


@contextlib.contextmanager
def running(
    client: docker.DockerClient,
    image: str,
    *,
    kind: str,
    limits: Limits,
    files: bytes,
    sweep: str = "",
    run: str = "",
    mounts: Sequence[docker.types.Mount] = (),
    hardened: bool = True,
    network: str = "none",
    runtime: str | None = None,
    uid: int = 0,
) -> Iterator[Container]:
    """A started container of `image` with `files` (a tar, unpacked at /) in it.

    `uid` is whom everything in it runs as. `hardened` drops every capability; grading keeps Docker's default ones,
    since tests may need them. Its first process sleeps until the deadline, so a container whose harness has died ends
    by itself.
    Raises SandboxError. Removed on every way out, in the background: nobody has to wait for it.
    """
    security = {"security_opt": [f"seccomp={seccomp.profile()}", *(["no-new-privileges"] if hardened else [])]}
    if hardened:
        security["cap_drop"] = ["ALL"]
    with _docker("the sandbox can't be made"):
        made = client.api.create_container(
            image,
            command=["sleep", str(int(limits.deadline_s) + 1)],
            entrypoint=[],
            user=f"{uid}:{uid}" if uid else "root",
            labels={KIND: kind, OWNER: owner(), SWEEP: sweep, RUN: run},
            host_config=client.api.create_host_config(
                network_mode=network,
                runtime=runtime,
                init=True,
                mem_limit=limits.memory_bytes,
                memswap_limit=limits.memory_bytes,
                nano_cpus=int(limits.cpus * 1e9),
                pids_limit=limits.pids,
                tmpfs={"/tmp": f"size={limits.tmp_bytes},mode=1777,exec"},
                ulimits=[
                    docker.types.Ulimit(name=name, soft=most, hard=most)
                    for name, most in {
                        "fsize": limits.file_bytes,
                        "core": 0,
                        "nofile": limits.files,
                        "sigpending": PENDING_SIGNALS,
                        "msgqueue": MESSAGE_QUEUE_BYTES,
                    }.items()
                ],
                mounts=list(mounts),
                log_config=docker.types.LogConfig(type="none"),
                **security,
            ),
        )
    container = Container(client, made["Id"], limits)
    try:
        container.put(files)
        with _docker("the sandbox can't be started"):
            client.api.start(container.id)
        yield container
    finally:
        container.killed = True
        _remove_in_background(client, container.id)


_removals: set[threading.Thread] = set()


def _remove_in_background(client: docker.DockerClient, container_id: str) -> None:
    thread = threading.Thread(target=_remove, args=(client, container_id), name=f"remove {container_id[:12]}")
    _removals.add(thread)
    thread.start()


def _remove(client: docker.DockerClient, container_id: str) -> None:
    # What can't be removed now carries its owner's label, and the next command removes it.
    with contextlib.suppress(*DockerFault):
        client.api.remove_container(container_id, force=True, v=True)
    _removals.discard(threading.current_thread())


def wait_for_removals(timeout_s: float = 10.0) -> None:
    """Return when the containers that were left are gone, or after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    for thread in list(_removals):
        thread.join(max(0.0, deadline - time.monotonic()))


def tar_of(
    entries: Mapping[str, bytes | tuple[bytes, int] | Path | None],
    without: Collection[str] = (),
    owned: Mapping[str, int] = {},
) -> bytes:
    """A tar of files that belong to root: path to content, (content, mode), a folder or file to take along, or
    None for an empty folder. Links in a folder stay links. `without` are paths to leave out, `owned` those of contents
    and empty folders that belong to another user."""
    left_out = {name.lstrip("/") for name in without}

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if member.name in left_out else _plain(member)

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, value in entries.items():
            if isinstance(value, Path):
                tar.add(os.path.realpath(value), arcname=name.lstrip("/"), filter=plain)
                continue
            member = tarfile.TarInfo(name.lstrip("/"))
            member.uid = member.gid = owned.get(name, 0)
            if value is None:
                member.type, member.mode, member.mtime = tarfile.DIRTYPE, 0o755, int(time.time())
                tar.addfile(member)
                continue
            content, mode = value if isinstance(value, tuple) else (value, 0o644)
            member.size, member.mode, member.mtime = len(content), mode, int(time.time())
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if "__pycache__" in member.name:
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member
