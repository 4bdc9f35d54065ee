"""Suites and tasks: found by name or path, read and checked before anything runs."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import paths
from harness.errors import UserError, nearest
from harness.suites import harbor, swebench
from harness.suites.base import LeftOut
from harness.suites.harbor import HarborTask
from harness.suites.swebench import SweBenchTask

Task = HarborTask | SweBenchTask


@dataclass(frozen=True)
class Suite:
    name: str
    folder: Path
    tasks: tuple[Task, ...]
    left_out: tuple[LeftOut, ...] = ()

    @property
    def hash(self) -> str:
        """A hash of every task's content, in order. What is left out is no part of the suite."""
        digest = hashlib.sha256()
        for task in self.tasks:
            digest.update(f"{task.name} {task.content_hash}\n".encode())
        return digest.hexdigest()[:16]

    def without(self, reasons: Mapping[str, str], named: Collection[str]) -> Suite:
        """The suite without the tasks that `reasons` are for, which go to `left_out`.

        Raises UserError when the user named such a task, or no other is left.
        """
        for name in named:
            if name in reasons:
                raise UserError(f"{name} can't be run and graded here: {reasons[name]}")
        kept = tuple(task for task in self.tasks if task.name not in reasons)
        if not kept and reasons:
            name, reason = next(iter(reasons.items()))
            raise UserError(f"no task is left of suite {self.name} ({name}: {reason})")
        left_out = (*self.left_out, *(LeftOut(name, reason) for name, reason in reasons.items()))
        return dataclasses.replace(self, tasks=kept, left_out=left_out)


def builtin_suites() -> list[str]:
    return sorted(folder.name for folder in paths.builtin("tasks").iterdir() if is_suite(folder))


def is_suite(folder: Path) -> bool:
    return swebench.is_suite(folder) or harbor.is_suite(folder)


def load_suite(name: str, data: Path | None = None) -> Suite:
    """A suite by name, or by path: a folder of task folders, or one with a suite.toml.

    `data` is a file of rows for a suite whose tasks are a published data set's. Raises UserError: unknown suite
    (nearest names), an empty folder, the first task that is malformed; MachineError when a data set can't be fetched.
    """
    folder = find_suite(name)
    try:
        of_rows = swebench.is_suite(folder)
    except OSError as error:
        raise UserError(f"{folder}: can't be read: {error.strerror}") from error
    if of_rows:
        return Suite(folder.name, folder, swebench.load(folder, data))
    if data is not None:
        raise UserError(f"--data {data}: the tasks of suite {folder.name} are folders, and no rows of a data set")
    tasks = harbor.load(folder)
    return Suite(tasks[0].suite, tasks[0].folder.parent, tasks)


def find_suite(name: str) -> Path:
    """The folder of a suite. Raises UserError."""
    known = builtin_suites()
    if name in known:
        return paths.builtin("tasks") / name
    try:
        folder = Path(name).expanduser()
        if folder.is_dir():
            return folder.resolve()
        if folder.exists():
            raise UserError(f"{name!r} is a file: a suite is a folder of task folders (see tasks/README.md)")
    except OSError as error:
        raise UserError(f"{error.filename or name}: can't be read: {error.strerror}") from error
    except RuntimeError as error:  # the home of somebody who is not known
        raise UserError(f"{name!r}: {error}") from error
    raise UserError(f"unknown suite {name!r}: {nearest(name, known)} (or the path of a folder of task folders)")


def choose(suite: Suite, names: Sequence[str], limit: int | None) -> Suite:
    """The named tasks of a suite (all when none is named), in its order, at most `limit`.

    Raises UserError for a name that the suite does not have.
    """
    known = {task.name for task in suite.tasks}
    for name in names:
        if name not in known:
            raise UserError(f"suite {suite.name} has no task {name!r}: {nearest(name, known)}")
    tasks = [task for task in suite.tasks if not names or task.name in names]
    return dataclasses.replace(suite, tasks=tuple(tasks[:limit]))
