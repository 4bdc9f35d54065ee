"""One container: made, started, worked in, killed, read, removed. It is removed on every way out."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Literal

import docker
import requests
from docker.errors import APIError, ImageNotFound, NotFound

from harness.sandbox import seccomp
from harness.sandbox.command import DRAIN_S, LOOK_S, Exit, Running, SandboxError, docker_asked
from harness.sandbox.daemon import KIND, OWNER, RUN, SWEEP, DockerFault, owner
from harness.sandbox.removal import remove_in_background


@dataclass(frozen=True)
class Limits:
    """What a container may use."""

    cpus: float
    memory_bytes: int
    disk_bytes: int  # of the writable layer, watched
    deadline_s: float  # the container ends by itself after this, harness or no harness
    pids: int = 1024
    tmp_bytes: int = 1 << 30  # /tmp is memory, and counts as such; 0: it is on the disk like the rest
    file_bytes: int = 2 << 30  # the largest file a process may write
    files: int = 2048  # open at once in one process; with `pids` that is less than the whole machine has


# Of what the kernel counts by user and not by container, and root in a container is root to it: signals that wait, and
# bytes of POSIX message queues. A sandbox comes to its limit before the machine comes to its own.
PENDING_SIGNALS, MESSAGE_QUEUE_BYTES = 4096, 64 << 10


@dataclass(frozen=True)
class State:
    word: Literal["running", "ended", "gone"]
    out_of_memory: bool  # the kernel killed its first process for that


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
        with docker_asked(f"{argv[0]!r} can't be run in the sandbox"):
            made = self.client.api.exec_create(self.id, list(argv), workdir=workdir, environment=dict(env or {}))
        return Running(self, str(made["Id"]), sink)

    def exec(self, argv: Sequence[str], *, sink: Callable[[bytes], None] = lambda _: None) -> Exit:
        """Run a command to its end. Raises SandboxError."""
        running = self.begin(argv, sink=sink)
        while not running.wait(LOOK_S):
            pass
        return running.exit()

    def state(self) -> State:
        """Whether the container runs, has ended of itself or by us, or was taken away: ended or removed by somebody
        else, or Docker does not answer."""
        try:
            found = self.client.api.inspect_container(self.id)["State"]
            if found["Running"]:
                return State("running", bool(found["OOMKilled"]))
            removed = found["Status"] in ("removing", "dead")
            if not removed and (self.killed or found["OOMKilled"] or self._ended_of_itself()):
                return State("ended", bool(found["OOMKilled"]))
        except DockerFault:
            pass
        return State("gone", False)

    def _ended_of_itself(self) -> bool:
        """Whether nobody told Docker to end it, and Docker itself was there when it did: else it has forgotten."""
        api = self.client.api
        now_s = datetime.fromisoformat(api.info()["SystemTime"]).timestamp()
        told = api.events(since=1, until=int(now_s) + 1, filters={"container": self.id}, decode=True)
        actions = {event["Action"] for event in told}
        return "die" in actions and not actions & {"kill", "stop", "destroy"}

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
        with contextlib.suppress(*DockerFault):
            return bool(self.client.api.inspect_container(self.id)["State"]["Running"])
        return False

    def pid(self) -> int:
        """The number of its first process on the host."""
        with docker_asked("the sandbox can't be inspected"):
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
        with docker_asked("files can't be put into the sandbox"):
            self.client.api.put_archive(self.id, path, archive)

    def stream(self, path: str) -> Iterator[bytes]:
        """A tar of `path` in pieces as they come, also of a dead container.

        Raises FileNotFoundError when there is no such path, SandboxError.
        """
        try:
            with docker_asked(f"{path} can't be read from the sandbox"):
                chunks, _ = self.client.api.get_archive(self.id, path, chunk_size=1 << 20)
                yield from chunks
        except SandboxError as error:
            if isinstance(error.__cause__, NotFound):
                with docker_asked("the sandbox is gone"):
                    self.client.api.inspect_container(self.id)
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
        with docker_asked("the size of the sandbox can't be read"):
            rows = self.client.api.containers(all=True, size=True, filters={"id": self.id})
        size = rows[0].get("SizeRw") if rows else None
        return None if size is None else int(size)


@contextlib.contextmanager
def _image_known() -> Iterator[None]:
    try:
        yield
    except ImageNotFound as error:
        raise SandboxError(
            f"{error.explanation}: it was removed while the sweep went on; `harness sweep --resume` makes it again, or "
            "says how to get it"
        ) from error


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
    Raises SandboxError. Removed on every way out, in the background: nobody has to wait for it. Without `tmp_bytes`
    /tmp is of the writable layer.
    """
    security = {"security_opt": [f"seccomp={seccomp.profile()}", *(["no-new-privileges"] if hardened else [])]}
    if hardened:
        security["cap_drop"] = ["ALL"]
    with docker_asked("the sandbox can't be made"), _image_known():
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
                tmpfs={"/tmp": f"size={limits.tmp_bytes},mode=1777,exec"} if limits.tmp_bytes else None,
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
        with docker_asked("the sandbox can't be started"):
            client.api.start(container.id)
        yield container
    finally:
        container.killed = True
        remove_in_background(client, container.id)


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
