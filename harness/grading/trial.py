"""One try of a task's tests in a fresh container: what every way of testing shares."""

from __future__ import annotations

import dataclasses
import io
import os
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import PurePosixPath

import docker

from harness.images.prepare import Prepared
from harness.sandbox.archive import File, Limited
from harness.sandbox.command import Exit, SandboxError
from harness.sandbox.container import Container, Limits, running
from harness.sandbox.room import dockers_lack_of_room
from harness.sandbox.tree import Base
from harness.suites.base import TarEntry

GRACE_S = 60.0  # a container outlives its tests by this, so that what they left can be read
LOG_BYTES = 4 << 20
POLL_S = 0.1
DISK_LOOK_S = 5.0
IMAGES_BYTES = 4 << 30  # of a work directory, besides what is written in a container

REMOVED, EMPTIED = "/opt/harness/removed", "/opt/harness/emptied"
# Lists are read from files: there may be any number of names, with any character in them.
REMOVE = f'cd "$1" && xargs -0 rm -f -- < {REMOVED} && {{ xargs -0 rmdir -- < {EMPTIED} 2>/dev/null || true; }}'


class Cancelled(Exception):
    """The sweep was interrupted."""


@dataclass(frozen=True)
class Setting:
    """Where a task's tests are tried, and on whose behalf."""

    client: docker.DockerClient
    prepared: Prepared
    limits: Limits
    cancelled: threading.Event
    sweep: str = ""
    run: str = ""
    runtime: str | None = None

    def container(self, files: bytes, lasts_s: float, network: str = "none") -> AbstractContextManager[Container]:
        """A fresh container with `files` in it, which ends by itself some time after `lasts_s`.

        Tests may need Docker's default capabilities, which an agent does not get, and more of /tmp than fits into
        memory: a test that fails for want of room there would say nothing of the patch. Raises SandboxError.
        """
        limits = dataclasses.replace(self.limits, deadline_s=lasts_s + GRACE_S, tmp_bytes=0)
        return running(
            self.client, self.prepared.image, kind="grade", limits=limits, files=files, sweep=self.sweep, run=self.run,
            hardened=False, network=network, runtime=self.runtime,
        )  # fmt: skip


@dataclass(frozen=True)
class Tried:
    """What one try of the tests came to. `passed` is None when they came to nothing that can be believed."""

    passed: bool | None
    how: str  # why it is None; else what there is to say
    test_s: float
    log: bytes
    notes: tuple[str, ...] = ()


class Log:
    """What the tests print, up to a limit."""

    def __init__(self, limit_bytes: int = LOG_BYTES) -> None:
        self._kept = bytearray()
        self._limit_bytes = limit_bytes

    def add(self, chunk: bytes) -> None:
        if len(self._kept) < self._limit_bytes:
            self._kept.extend(chunk)

    @property
    def content(self) -> bytes:
        return bytes(self._kept)


def lists_of(base: Base, changed: Sequence[File], removed: Sequence[str]) -> dict[str, TarEntry]:
    """The files that `place` reads its lists from, to be put into the container as it is made."""
    lists = {REMOVED: removed, EMPTIED: emptied(base, changed, removed)}
    return {path: os.fsencode("\0".join(names)) for path, names in lists.items()}


def place(container: Container, workdir: str, changed: Sequence[File], removed: Sequence[str], log: Log) -> None:
    """Bring a patch's difference into the work directory. Raises SandboxError."""
    # First what goes, then what comes: a file may have become a folder, or a folder a link.
    if removed:
        done = container.exec(["sh", "-c", REMOVE, "sh", workdir], sink=log.add)
        if done.code != 0:
            said = log.content.decode(errors="replace").strip()
            raise SandboxError(f"the patch's removals failed: {said}")
    if changed:
        container.put(_tar(workdir, changed))


def run_tests(
    container: Container,
    argv: Sequence[str],
    *,
    workdir: str,
    env: Mapping[str, str],
    timeout_s: float,
    sink: Callable[[bytes], None],
    cancelled: threading.Event,
) -> tuple[Exit, str | None]:
    """Run the tests to their end. The second value says why what they came to can't be believed, if so.

    Raises Cancelled, SandboxError.
    """
    tests = container.begin(argv, workdir=workdir, env=env, sink=sink)
    next_look = time.monotonic() + DISK_LOOK_S
    ended = False
    while not ended:
        ended = tests.wait(POLL_S)
        if cancelled.is_set():
            raise Cancelled
        if not ended and tests.ran_s() > timeout_s:
            return tests.exit(), f"did not end within {timeout_s:g} s"
        if ended or time.monotonic() > next_look:
            lacking = dockers_lack_of_room(container.client)
            if (not ended or lacking) and (container.written_bytes() or 0) > container.limits.disk_bytes:
                return tests.exit(), f"wrote more than {container.limits.disk_bytes >> 20} MB"
            if lacking:  # what fails now, fails for that
                raise SandboxError(lacking)
            next_look = time.monotonic() + DISK_LOOK_S
    exit_ = tests.exit()
    if exit_.code in (None, 137) and container.state_after(exit_).word == "gone":
        raise SandboxError("the container of the tests was ended or removed by somebody else, or Docker was away")
    if exit_.code is None:
        return exit_, "killed their container"
    if exit_.code >= 128:
        return exit_, f"were killed (exit code {exit_.code})"
    return exit_, None


def work_directory(container: Container, path: str, cancelled: threading.Event) -> Limited:
    """The tar of a work directory, to be read as it comes, and no further than it can be full of anything but holes.

    Reading raises Cancelled, FileNotFoundError when there is no such folder any more, SandboxError, TooMuch.
    """

    def pieces() -> Iterator[bytes]:
        for piece in container.stream(path):
            if cancelled.is_set():
                raise Cancelled
            yield piece

    return Limited(pieces(), container.limits.disk_bytes + IMAGES_BYTES)


def left_file(container: Container, path: str, limit_bytes: int) -> bytes | None:
    """The content of a plain file that the tests left, up to a limit; None when there is none."""
    try:
        archive = container.archive(path, limit_bytes=limit_bytes + (1 << 20))
    except (FileNotFoundError, ValueError):
        return None
    with archive, tarfile.open(fileobj=archive) as tar:
        member = tar.next()
        stream = tar.extractfile(member) if member and member.isfile() else None
        return stream.read(limit_bytes) if stream else None


def emptied(base: Base, changed: Sequence[File], removed: Sequence[str]) -> list[str]:
    """The folders in which nothing is left once a patch is applied, the deepest first."""

    def folders(paths: Sequence[str]) -> set[str]:
        return {str(parent) for path in paths for parent in PurePosixPath(path).parents if str(parent) != "."}

    gone = set(removed)
    left = folders([path for path in base.entries if path not in gone] + [file.path for file in changed])
    return sorted(folders(removed) - left, key=lambda folder: folder.count("/"), reverse=True)


def _tar(folder: str, files: Sequence[File]) -> bytes:
    """Files with git's modes, as a tar to be unpacked at the root."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for file in files:
            member = tarfile.TarInfo(f"{folder}/{file.path}".lstrip("/"))
            member.mtime = int(time.time())
            if file.mode == "120000":
                member.type, member.linkname = tarfile.SYMTYPE, os.fsdecode(file.content)
                tar.addfile(member)
            else:
                member.size, member.mode = len(file.content), 0o755 if file.mode == "100755" else 0o644
                tar.addfile(member, io.BytesIO(file.content))
    return buffer.getvalue()
