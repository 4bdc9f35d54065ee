"""Grade a patch: a fresh container of the task's image, the work-directory difference, the hidden tests, a reward."""

from __future__ import annotations

import io
import tarfile
import threading
import time
from dataclasses import dataclass

import docker

from harness.outcome import Verdict
from harness.sandbox.container import Container, Exit, Limits, SandboxError, running, tar_of
from harness.sandbox.prepare import Prepared
from harness.sandbox.tree import PatchRejected
from harness.suites import Task

REWARD = "/logs/verifier/reward.txt"
GRACE_S = 60.0  # a container outlives its tests by this, so that what they left can be read
LOG_BYTES = 4 << 20

# The list of removed paths is read from a file: there may be any number, with any character in their names.
SCRIPT = "mkdir -p /logs/verifier; cd {workdir} && xargs -0 rm -f -- < /opt/harness/removed; exec bash /tests/test.sh"


@dataclass(frozen=True)
class Grade:
    verdict: Verdict
    detail: str | None
    test_s: float | None
    log: bytes


def grade(
    client: docker.DockerClient,
    task: Task,
    prepared: Prepared,
    patch: bytes,
    limits: Limits,
    *,
    sweep: str = "",
    run: str = "",
) -> Grade:
    """The verdict on `patch`, against the tests of `task`.

    When the tests of a patched copy do not come to a reward (they hang, or kill what runs them), the tests of an
    unpatched copy say whose doing it is: if those do come to one, the patch broke them and it is `unresolved`;
    if not, grading is at fault and it is `grader_error`.
    """
    if not patch:
        return Grade("empty_patch", None, None, b"")
    labels = {"sweep": sweep, "run": run}
    try:
        reward, exit_, log = _reward(client, task, prepared, patch, limits, **labels)
        if reward is None:
            how = "did not end in time" if exit_.code is None else f"left no reward (exit code {exit_.code})"
            control, _, _ = _reward(client, task, prepared, b"", limits, **labels)
            if control is None:
                return Grade("grader_error", f"the tests {how}, also without the patch", exit_.duration_s, log)
            detail = f"with this patch the tests {how}; without it they do"
            return Grade("unresolved", detail, exit_.duration_s, log)
    except PatchRejected as error:
        return Grade("patch_rejected", str(error), None, b"")
    except SandboxError as error:
        return Grade("grader_error", str(error), None, b"")
    return Grade("resolved" if reward == 1.0 else "unresolved", None, exit_.duration_s, log)


def _reward(
    client: docker.DockerClient,
    task: Task,
    prepared: Prepared,
    patch: bytes,
    limits: Limits,
    *,
    sweep: str,
    run: str,
) -> tuple[float | None, Exit, bytes]:
    changed, removed = prepared.base.apply(patch) if patch else ([], [])
    entries = tarfile_entries(prepared.workdir, {f.path: (f.content, f.mode) for f in changed})
    entries += tarfile_entries("", {"opt/harness/removed": ("\0".join(removed).encode(), "100644")})
    files = _join(entries, tar_of({"tests": task.tests}))
    log = bytearray()

    def keep(chunk: bytes) -> None:
        if len(log) < LOG_BYTES:
            log.extend(chunk)

    deadline = Limits(**{**vars(limits), "deadline_s": task.test_timeout_s + GRACE_S})
    with running(client, prepared.image, kind="grade", limits=deadline, files=files, sweep=sweep, run=run,
                 hardened=False) as container:  # fmt: skip
        alarm = threading.Timer(task.test_timeout_s, _kill, args=(container,))
        alarm.start()
        try:
            script = SCRIPT.format(workdir=f"'{prepared.workdir}'")
            exit_ = container.exec(["sh", "-c", script], workdir=prepared.workdir, env=task.test_env, sink=keep)
        finally:
            alarm.cancel()
        if exit_.code is None:
            return None, exit_, bytes(log)
        return _read_reward(container), exit_, bytes(log)


def _kill(container: Container) -> None:
    container.kill()


def _read_reward(container: Container) -> float | None:
    try:
        archive = container.archive(REWARD)
    except FileNotFoundError:
        return None
    with tarfile.open(fileobj=archive) as tar:
        member = tar.next()
        stream = tar.extractfile(member) if member and member.isfile() else None
        text = stream.read(100) if stream else b""
    try:
        return float(text.strip())
    except ValueError:
        return None


def tarfile_entries(folder: str, files: dict[str, tuple[bytes, str]]) -> list[tuple[tarfile.TarInfo, bytes]]:
    """Members of a tar for files given as (content, git's mode)."""
    members = []
    for path, (content, mode) in files.items():
        member = tarfile.TarInfo(f"{folder}/{path}".lstrip("/"))
        member.mtime = int(time.time())
        if mode == "120000":
            member.type, member.linkname = tarfile.SYMTYPE, content.decode("utf-8", "surrogateescape")
            members.append((member, b""))
        else:
            member.size, member.mode = len(content), 0o755 if mode == "100755" else 0o644
            members.append((member, content))
    return members


def _join(entries: list[tuple[tarfile.TarInfo, bytes]], more: bytes) -> bytes:
    buffer = io.BytesIO(more)
    with tarfile.open(fileobj=buffer, mode="a") as tar:
        for member, content in entries:
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
