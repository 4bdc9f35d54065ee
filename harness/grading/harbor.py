"""The tests of a task folder: tests/test.sh in a fresh container, and the reward that it writes."""

from __future__ import annotations

from harness.grading.trial import Log, Setting, Tried, left_file, lists_of, place, run_tests
from harness.sandbox.command import SandboxError
from harness.sandbox.container import tar_of
from harness.suites.base import TarEntry
from harness.suites.harbor import HarborTask

REWARD = "/logs/verifier/reward.txt"
TEST = 'cd "$1" && exec bash /tests/test.sh'


def try_tests(setting: Setting, task: HarborTask, patch: bytes) -> Tried:
    """Run the tests on a copy with `patch`. Raises Cancelled, PatchRejected, SandboxError."""
    prepared = setting.prepared
    changed, removed, _ = prepared.base.apply(patch) if patch else ([], [], "")
    files: dict[str, TarEntry] = {"/tests": task.tests, "/logs/verifier": None}
    files |= lists_of(prepared.base, changed, removed)
    log = Log()
    with setting.container(tar_of(files), task.test_timeout_s) as container:
        try:
            place(container, prepared.workdir, changed, removed, log)
        except SandboxError as error:
            return Tried(None, f"can't be run: {error}", 0.0, log.content)
        exit_, how = run_tests(
            container, ["sh", "-c", TEST, "sh", prepared.workdir], workdir=prepared.workdir, env=task.test_env,
            timeout_s=task.test_timeout_s, sink=log.add, cancelled=setting.cancelled,
        )  # fmt: skip
        container.kill()  # nothing that the tests left running can write a reward of its own any more
        reward = None if how else _reward(left_file(container, REWARD, 100))
    if not how and reward is None:
        how = f"left no reward (exit code {exit_.code})"
    return Tried(None if reward is None else reward == 1.0, how or "", exit_.duration_s, log.content)


def _reward(content: bytes | None) -> float | None:
    try:
        return float((content or b"").strip())
    except ValueError:
        return None
