"""Grade a patch: a fresh container of the task's image, the work-directory difference, the hidden tests, a verdict."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import docker

from harness.errors import MachineError
from harness.grading import harbor, swebench
from harness.grading.trial import Setting, Tried
from harness.images.prepare import Prepared
from harness.outcome import Verdict
from harness.sandbox.command import SandboxError
from harness.sandbox.container import Limits
from harness.sandbox.daemon import await_answer
from harness.sandbox.tree import PatchRejected
from harness.suites import Task
from harness.suites.swebench import SweBenchTask


@dataclass(frozen=True)
class Grade:
    verdict: Verdict
    detail: str | None
    test_s: float | None
    log: bytes
    notes: tuple[str, ...] = ()  # what a reader of the verdict should know

    def __post_init__(self) -> None:
        # Names of files are in them, which need not be text, and what is stored has to be.
        object.__setattr__(self, "detail", self.detail and _as_text(self.detail))
        object.__setattr__(self, "notes", tuple(map(_as_text, self.notes)))


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
    runtime: str | None = None,
) -> Grade:
    """The verdict on `patch`, against the tests of `task`. Raises Cancelled.

    When Docker fails in the middle, it is given time to come back and grading begins anew, once.

    When the tests of a patched copy come to nothing (they hang, or are killed), the tests of an unpatched copy say
    whose doing it is: if those do come to something, the patch broke them and it is `unresolved`; if not, grading is
    at fault and it is `grader_error`.
    """
    if not patch:
        return Grade("empty_patch", None, None, b"")

    setting = Setting(client, prepared, limits, cancelled, sweep, run, runtime)
    try:
        return _grade(setting, task, patch)
    except SandboxError:
        try:
            await_answer(client, cancelled)
            return _grade(setting, task, patch)
        except MachineError as error:
            return Grade("grader_error", str(error), None, b"")


def _grade(setting: Setting, task: Task, patch: bytes) -> Grade:
    """Raises Cancelled, SandboxError."""
    try:
        tried = _try_tests(setting, task, patch)
        if tried.passed is None:
            if _try_tests(setting, task, b"").passed is None:
                detail = f"the tests {tried.how}, and come to nothing without the patch either"
                return Grade("grader_error", detail, tried.test_s, tried.log, tried.notes)
            return Grade("unresolved", f"with this patch the tests {tried.how}", tried.test_s, tried.log, tried.notes)
    except PatchRejected as error:
        return Grade("patch_rejected", str(error), None, b"")
    return _graded(tried)


def grade_untouched(
    client: docker.DockerClient, task: Task, prepared: Prepared, limits: Limits, cancelled: threading.Event
) -> Grade:
    """What the tests say of the work directory as it is: the proof that they fail without a fix."""
    try:
        tried = _try_tests(Setting(client, prepared, limits, cancelled), task, b"")
    except SandboxError as error:
        return Grade("grader_error", str(error), None, b"")
    if tried.passed is None:
        return Grade("grader_error", f"the tests {tried.how}", tried.test_s, tried.log, tried.notes)
    return _graded(tried)


def _graded(tried: Tried) -> Grade:
    return Grade("resolved" if tried.passed else "unresolved", tried.how or None, tried.test_s, tried.log, tried.notes)


def _as_text(words: str) -> str:
    return words.encode("utf-8", "backslashreplace").decode()


def _try_tests(setting: Setting, task: Task, patch: bytes) -> Tried:
    if isinstance(task, SweBenchTask):
        return swebench.try_tests(setting, task, patch)
    return harbor.try_tests(setting, task, patch)
