"""One container: made, started, worked in, killed, read, removed. It is removed on every way out."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import docker
import requests
from docker.errors import APIError, NotFound

from harness.errors import MachineError
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


@dataclass(frozen=True)
class Exit:
    code: int | None  # None when the container was gone before the process had ended
    duration_s: float


@dataclass
class Container:
    """A container of ours. Use `running(...)`, which removes it."""

    client: docker.DockerClient
    id: str
    limits: Limits
    killed: bool = field(default=False)

    def begin(self, argv: Sequence[str], *, workdir: str | None = None, env: Mapping[str, str] | None = None) -> str:
        """Make a command ready to run; returns its id for `follow`. Raises SandboxError."""
        with _docker(f"{argv[0]!r} can't be run in the sandbox"):
            made = self.client.api.exec_create(self.id, list(argv), workdir=workdir, environment=dict(env or {}))
        return str(made["Id"])

    def follow(self, command: str, sink: Callable[[bytes], None] = lambda _: None) -> Exit:
        """Start a command, pass its output (both streams as they come) to `sink`, and return at the output's end.

        That may come later than the command's own end: what it started may hold the output open. Raises
        SandboxError when Docker fails; a container that is killed meanwhile gives an Exit without a code.
        """
        started = time.monotonic()
        try:
            for chunk in self.client.api.exec_start(command, stream=True):
                sink(chunk)
            code = self.client.api.exec_inspect(command)["ExitCode"]
        except DockerFault as error:
            if self.killed or not self.alive():
                return Exit(None, time.monotonic() - started)
            raise SandboxError(f"Docker lost a command in the sandbox: {error}") from error
        gone = self.killed or (code == 137 and not self.alive())
        return Exit(None if gone else code, time.monotonic() - started)

    def exec(
        self,
        argv: Sequence[str],
        *,
        workdir: str | None = None,
        env: Mapping[str, str] | None = None,
        sink: Callable[[bytes], None] = lambda _: None,
    ) -> Exit:
        """Run a command to the end of its output; as `follow`."""
        return self.follow(self.begin(argv, workdir=workdir, env=env), sink)

    def exit_code(self, command: str) -> int | None:
        """The exit code of a command that has ended, None while it runs."""
        with _docker("a command in the sandbox can't be inspected"):
            code = self.client.api.exec_inspect(command)["ExitCode"]
        return None if code is None else int(code)

    def alive(self) -> bool:
        """Whether the container still runs; False as well when Docker does not answer."""
        try:
            return bool(self.client.api.inspect_container(self.id)["State"]["Running"])
        except DockerFault:
            return False

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

    def archive(self, path: str) -> io.BytesIO:
        """A tar of `path`, also of a dead container. Raises FileNotFoundError when it has none."""
        try:
            with _docker(f"{path} can't be read from the sandbox"):
                chunks, _ = self.client.api.get_archive(self.id, path, chunk_size=1 << 20)
                return io.BytesIO(b"".join(chunks))
        except SandboxError as error:
            if isinstance(error.__cause__, NotFound):
                raise FileNotFoundError(path) from error
            raise

    def written_bytes(self) -> int | None:
        """Size of the writable layer now, or None when Docker does not say."""
        with _docker("the size of the sandbox can't be read"):
            rows = self.client.api.containers(all=True, size=True, filters={"id": self.id})
        return int(rows[0].get("SizeRw") or 0) if rows else None


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
) -> Iterator[Container]:
    """A started container of `image` with `files` (a tar, unpacked at /) in it and no network.

    `hardened` drops every capability; grading keeps Docker's default ones, since tests may need them. Its first
    process sleeps until the deadline, so a container whose harness has died ends by itself.
    Raises SandboxError. Removed on every way out, in the background: nobody has to wait for it.
    """
    security = {"cap_drop": ["ALL"], "security_opt": ["no-new-privileges"]} if hardened else {}
    with _docker("the sandbox can't be made"):
        made = client.api.create_container(
            image,
            command=["sleep", str(int(limits.deadline_s) + 1)],
            entrypoint=[],
            user="root",
            labels={KIND: kind, OWNER: owner(), SWEEP: sweep, RUN: run},
            host_config=client.api.create_host_config(
                network_mode="none",
                init=True,
                mem_limit=limits.memory_bytes,
                memswap_limit=limits.memory_bytes,
                nano_cpus=int(limits.cpus * 1e9),
                pids_limit=limits.pids,
                tmpfs={"/tmp": f"size={limits.tmp_bytes},mode=1777,exec"},
                ulimits=[docker.types.Ulimit(name="fsize", soft=limits.file_bytes, hard=limits.file_bytes),
                         docker.types.Ulimit(name="core", soft=0, hard=0)],
                mounts=list(mounts),
                log_config=docker.types.LogConfig(type="none"),
                **security,
            ),
        )  # fmt: skip
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


def tar_of(entries: Mapping[str, bytes | tuple[bytes, int] | Path | None]) -> bytes:
    """A tar of files that belong to root: path to content, (content, mode), a folder or file to take along, or
    None for an empty folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, value in entries.items():
            if isinstance(value, Path):
                tar.add(os.path.realpath(value), arcname=name.lstrip("/"), filter=_plain)
                continue
            member = tarfile.TarInfo(name.lstrip("/"))
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
