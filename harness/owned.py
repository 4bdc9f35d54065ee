"""Whose a file is: all that a process makes for a while bears its name, so that what a killed one left can be told from
what is in use, wherever it lies."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

PREFIX = "hg-"

_outer: list[str] = []  # the temporary folder of everybody, while this process has one of its own in it


def process_start(pid: int) -> str | None:
    """The start time of a process in clock ticks since boot, or None when there is none, or only its exit code."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:  # noqa: PTH123 - read hundreds of times
            words = stat.read().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if words[0] in ("Z", "X") else words[19]


def here() -> tuple[str, str, str]:
    """Host, user and process namespace, within which a process's number means one thing."""
    return platform.node(), str(os.getuid()), os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - no real path


def prefix() -> str:
    """How the names of this process's files begin."""
    pid = os.getpid()
    return f"{PREFIX}{pid}-{process_start(pid)}-{_place()}-"


def _place() -> str:
    """Containers may share a folder and number their processes each for itself."""
    host, _, namespace = here()
    return f"{zlib.crc32(f'{host}/{namespace}'.encode()) & 0xFFFF:04x}"


def abandoned(folder: Path) -> list[Path]:
    """What lies in a folder and bears the name of a process of this user and place that is gone."""
    found = []
    for path in folder.glob(f"{PREFIX}*-*-{_place()}-*"):
        pid, started = path.name.removeprefix(PREFIX).split("-")[:2]
        with contextlib.suppress(OSError):
            mine = path.lstat().st_uid == os.getuid()
            if mine and pid.isdigit() and process_start(int(pid)) != started:
                found.append(path)
    return found


def remove(path: Path) -> None:
    """Remove a file, or a folder with all in it; what can't be removed stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


@contextlib.contextmanager
def temporary_folder() -> Iterator[None]:
    """Have all temporary files of this process made in a folder of its own, which goes with it."""
    before = tempfile.tempdir
    try:
        folder = tempfile.TemporaryDirectory(prefix=prefix(), ignore_cleanup_errors=True)
    except OSError:  # whoever needs one will say so
        yield
        return
    with folder as name:
        _outer.append(tempfile.gettempdir())
        tempfile.tempdir = name
        try:
            yield
        finally:
            tempfile.tempdir = before
            _outer.pop()


def outer_folder() -> Path:
    """Where all processes have their temporary files."""
    return Path(_outer[0] if _outer else tempfile.gettempdir())
