"""Where things lie: the folders of data that travel with the package, the user's cache and configuration."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from harness.errors import MachineError

PACKAGE = Path(__file__).parent


def builtin(folder: str) -> Path:
    """A folder of data that ships with the harness ("agents", "tasks").

    In a wheel it lies inside the package; in a checkout beside it.
    """
    inside = PACKAGE / "_data" / folder
    return inside if inside.is_dir() else PACKAGE.parent / folder


def cache() -> Path:
    """What can be made again: weights, bases of task repositories. Created when asked for.

    Raises MachineError when it can't be written, as after a first run with sudo.
    """
    root = os.environ.get("HARNESS_CACHE") or (
        Path(os.environ.get("XDG_CACHE_HOME") or _home() / ".cache") / "agent-energy-harness"
    )
    path = Path(root)
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "it belongs to another user")
    except OSError as error:
        raise MachineError(
            f"the cache {path} can't be written ({error.strerror}): mend that, or set HARNESS_CACHE to another folder"
        ) from error
    return path


@contextmanager
def lock(name: str, *, shared: bool = False) -> Iterator[None]:
    """Keep other processes, and other threads, from doing what `name` says at the same time.

    Those that hold it `shared` keep out only one that does not.
    """
    with _lock_file(name) as file:
        fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


@contextmanager
def lock_if_free(name: str) -> Iterator[bool]:
    """The same without waiting: whether nobody else has it."""
    with _lock_file(name) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _lock_file(name: str) -> IO[str]:
    folder = cache() / "locks"
    folder.mkdir(exist_ok=True)
    return (folder / name).open("w")


def config() -> Path:
    """The user's own folder, where `agents/` may hold frameworks of their own. Not created."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or _home() / ".config") / "harness"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError as error:
        # A number without a name, as with `docker run --user` or in some schedulers' jobs.
        raise MachineError("this user has no home folder: set HOME to a folder that can be written") from error


def runs_dir() -> Path:
    """HARNESS_RUNS, or `runs/` in the working directory."""
    return Path(os.environ.get("HARNESS_RUNS") or "runs")
