"""Grade a patch: a fresh container of the task's image, the work-directory difference, the hidden tests, a reward."""

from __future__ import annotations

import dataclasses
import io
import os
import tarfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import docker

from harness.outcome import Verdict
from harness.sandbox.container import Container, Exit, Limits, SandboxError, running, tar_of
from harness.sandbox.prepare import Prepared
from harness.sandbox.tree import Base, File, PatchRejected
from harness.suites import Task

REWARD = "/logs/verifier/reward.txt"
GRACE_S = 60.0  # a container outlives its tests by this, so that what they left can be read
LOG_BYTES = 4 << 20
POLL_S = 0.1
DISK_LOOK_S = 5.0

REMOVED, EMPTIED = "/opt/harness/removed", "/opt/harness/emptied"
# Lists are read from files: there may be any number of names, with any character in them.
REMOVE = f'cd "$1" && xargs -0 rm -f -- < {REMOVED} && {{ xargs -0 rmdir -- < {EMPTIED} 2>/dev/null || true; }}'
TEST = 'cd "$1" && exec bash /tests/test.sh'


class Cancelled(Exception):
    """The sweep was interrupted."""


@dataclass(frozen=True)
class Grade:
    verdict: Verdict
    detail: str | None
    test_s: float | None
    log: bytes


@dataclass(frozen=True)
class _Outcome:
    """What one try of the tests came to. `reward` is None when they left none that can be believed."""

    reward: float | None
    how: str  # why there is none
    test_s: float
    log: bytes


def grade(
    client: docker.DockerClient,
    task: Task,
    prepared: Prepared,
    patch: bytes,
    limits: Limits,
    cancelled: threading.Event,
    *,
    sweep: str = "",
    run: str = "",
) -> Grade:
    """The verdict on `patch`, against the tests of `task`. Raises Cancelled.

    When the tests of a patched copy do not come to a reward (they hang, or are killed), the tests of an
    unpatched copy say whose doing it is: if those do come to one, the patch broke them and it is `unresolved`;
    if not, grading is at fault and it is `grader_error`.
    """
    if not patch:
        return Grade("empty_patch", None, None, b"")

    def try_tests(patch: bytes) -> _Outcome:
        return _try_tests(client, task, prepared, patch, limits, cancelled, sweep=sweep, run=run)

    try:
        tried = try_tests(patch)
        if tried.reward is None:
            if try_tests(b"").reward is None:
                detail = f"the tests {tried.how}, and come to no reward without the patch either"
                return Grade("grader_error", detail, tried.test_s, tried.log)
            return Grade("unresolved", f"with this patch the tests {tried.how}", tried.test_s, tried.log)
    except PatchRejected as error:
        return Grade("patch_rejected", str(error), None, b"")
    except SandboxError as error:
        return Grade("grader_error", str(error), None, b"")
    return Grade("resolved" if tried.reward == 1.0 else "unresolved", None, tried.test_s, tried.log)


def grade_untouched(
    client: docker.DockerClient, task: Task, prepared: Prepared, limits: Limits, cancelled: threading.Event
) -> Grade:
    """What the tests say of the work directory as it is: the proof that they fail without a fix."""
    try:
        tried = _try_tests(client, task, prepared, b"", limits, cancelled, sweep="", run="")
    except SandboxError as error:
        return Grade("grader_error", str(error), None, b"")
    if tried.reward is None:
        return Grade("grader_error", f"the tests {tried.how}", tried.test_s, tried.log)
    return Grade("resolved" if tried.reward == 1.0 else "unresolved", None, tried.test_s, tried.log)


def _try_tests(
    client: docker.DockerClient,
    task: Task,
    prepared: Prepared,
    patch: bytes,
    limits: Limits,
    cancelled: threading.Event,
    *,
    sweep: str,
    run: str,
) -> _Outcome:
    changed, removed = prepared.base.apply(patch) if patch else ([], [])
    lists = {REMOVED: removed, EMPTIED: emptied(prepared.base, changed, removed)}
    files: dict[str, bytes | tuple[bytes, int] | Path | None] = {"/tests": task.tests, "/logs/verifier": None}
    files |= {path: os.fsencode("\0".join(names)) for path, names in lists.items()}
    log = bytearray()

    def keep(chunk: bytes) -> None:
        if len(log) < LOG_BYTES:
            log.extend(chunk)

    lasting = dataclasses.replace(limits, deadline_s=task.test_timeout_s + GRACE_S)
    with running(
        client, prepared.image, kind="grade", limits=lasting, files=tar_of(files), sweep=sweep, run=run, hardened=False
    ) as container:
        # First what goes, then what comes: a file may have become a folder, or a folder a link.
        if removed:
            done = container.exec(["sh", "-c", REMOVE, "sh", prepared.workdir], sink=keep)
            if done.code != 0:
                raise SandboxError(f"the patch's removals failed: {log.decode(errors='replace').strip()}")
        if changed:
            container.put(_tar(prepared.workdir, changed))
        exit_, how = _run_tests(container, task, prepared.workdir, keep, cancelled)
        container.kill()  # nothing that the tests left running can write a reward of its own any more
        reward = None if how else _read_reward(container)
    if not how and reward is None:
        how = f"left no reward (exit code {exit_.code})"
    return _Outcome(reward, how or "", exit_.duration_s, bytes(log))


def _run_tests(
    container: Container, task: Task, workdir: str, keep: Callable[[bytes], None], cancelled: threading.Event
) -> tuple[Exit, str | None]:
    """Run tests/test.sh to its end. The second value says why its reward can't be believed, if so."""
    tests = container.begin(["sh", "-c", TEST, "sh", workdir], workdir=workdir, env=task.test_env, sink=keep)
    deadline = time.monotonic() + task.test_timeout_s
    next_look = time.monotonic() + DISK_LOOK_S
    while not tests.wait(POLL_S):
        now = time.monotonic()
        if cancelled.is_set():
            raise Cancelled
        if now > deadline:
            return tests.exit(), f"did not end within {task.test_timeout_s:g} s"
        if now > next_look:
            next_look = now + DISK_LOOK_S
            if (container.written_bytes() or 0) > container.limits.disk_bytes:
                return tests.exit(), f"wrote more than {container.limits.disk_bytes >> 20} MB"
    exit_ = tests.exit()
    if exit_.code is None:
        return exit_, "killed their container"
    if exit_.code >= 128:
        return exit_, f"were killed (exit code {exit_.code})"
    return exit_, None


def emptied(base: Base, changed: Sequence[File], removed: Sequence[str]) -> list[str]:
    """The folders in which nothing is left once a patch is applied, the deepest first."""

    def folders(paths: Sequence[str]) -> set[str]:
        return {str(parent) for path in paths for parent in PurePosixPath(path).parents if str(parent) != "."}

    gone = set(removed)
    left = folders([path for path in base.entries if path not in gone] + [file.path for file in changed])
    return sorted(folders(removed) - left, key=lambda folder: folder.count("/"), reverse=True)


def _read_reward(container: Container) -> float | None:
    try:
        archive = container.archive(REWARD, limit_bytes=1 << 20)
    except (FileNotFoundError, ValueError):
        return None
    with archive, tarfile.open(fileobj=archive) as tar:
        member = tar.next()
        stream = tar.extractfile(member) if member and member.isfile() else None
        text = stream.read(100) if stream else b""
    try:
        return float(text.strip())
    except ValueError:
        return None


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
