"""What has changed in the work directory, as one short fingerprint. Runs in the sandbox, beside the agent, which may
forge or break it: what it says is untrusted.

Copied into the container beside the forwarder, so it uses the standard library alone. It listens (inotify) instead
of looking: a walk over a large repository takes tens of milliseconds, and a fingerprint goes with each request.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import stat
import struct
from collections.abc import Iterator

IN_MODIFY, IN_ATTRIB, IN_CLOSE_WRITE = 0x2, 0x4, 0x8
IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x40, 0x80, 0x100, 0x200
IN_Q_OVERFLOW, IN_IGNORED = 0x4000, 0x8000
IN_ONLYDIR, IN_DONT_FOLLOW, IN_ISDIR = 0x1000000, 0x2000000, 0x40000000
MASK = (
    IN_MODIFY | IN_ATTRIB | IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE
    | IN_ONLYDIR | IN_DONT_FOLLOW
)  # fmt: skip

# Leftovers of running code, which change with every test run and are no work.
LEFTOVERS = frozenset({".git", "__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".tox"})
LEFTOVER_ENDINGS = (".pyc", ".pyo", ".pyd", ".egg-info")

WHOLE_BYTES = 1 << 20  # a larger file is known by its size and time of change

EVENT = struct.Struct("iIII")
INDEX_ENTRY = struct.Struct(">40x20sH")  # of git: ten numbers, the hash of the content, flags
NOTHING = "0" * 16


class Watch:
    """A watch on one folder. Raises OSError where the kernel has none left to give."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._checked(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._folders: dict[int, str] = {}  # by watch
        self._watches: dict[str, int] = {}
        self._dirty: set[str] = set()
        self._changed: dict[str, int] = {}  # path to the hash of path and content, where it is not the original's
        self._state = 0  # all of those together; the order of changes does not matter
        self._originals = originals(root)
        for _ in self._listen(""):
            pass

    def fileno(self) -> int:
        return self._fd

    def hear(self) -> None:
        """Take note of what has happened. To be called often enough for the kernel's queue not to overflow."""
        while True:
            try:
                events = os.read(self._fd, 1 << 16)
            except BlockingIOError:
                return
            offset = 0
            while offset < len(events):
                watch, mask, _, length = EVENT.unpack_from(events, offset)
                offset += EVENT.size + length
                self._note(watch, mask, os.fsdecode(events[offset - length : offset].rstrip(b"\0")))

    def fingerprint(self) -> str:
        """16 hexadecimal digits: equal for equal contents, all zero where nothing differs from the start."""
        self.hear()
        for path in self._dirty:
            self._state ^= self._changed.pop(path, 0)
            content = self._content(path)
            if content != self._originals.get(path, b""):
                digest = hashlib.blake2b(os.fsencode(path) + b"\0" + content, digest_size=8).digest()
                self._changed[path] = int.from_bytes(digest, "big")
                self._state ^= self._changed[path]
        self._dirty.clear()
        return f"{self._state:016x}"

    def _note(self, watch: int, mask: int, name: str) -> None:
        if mask & IN_Q_OVERFLOW:
            self._dirty.update(self._originals, self._changed, self._listen(""))
            return
        folder = self._folders.get(watch)
        if folder is None or is_leftover(name):
            return
        if mask & IN_IGNORED:  # the folder is gone
            self._watches.pop(self._folders.pop(watch), None)
            return
        if not name:
            return
        path = f"{folder}{name}"
        if not mask & IN_ISDIR:
            self._dirty.add(path)
        elif mask & (IN_MOVED_FROM | IN_DELETE):
            self._forget(f"{path}/")
        elif mask & (IN_MOVED_TO | IN_CREATE):
            self._dirty.update(self._listen(f"{path}/"))

    def _listen(self, folder: str) -> Iterator[str]:
        """Watch a folder and those in it. Gives the files on the way, whose making may have gone unheard."""
        try:
            watch = self._libc.inotify_add_watch(self._fd, os.fsencode(os.path.join(self._root, folder)), MASK)
            self._folders[self._checked(watch)] = folder
            self._watches[folder] = watch
            with os.scandir(os.path.join(self._root, folder)) as entries:
                found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        except (FileNotFoundError, NotADirectoryError, PermissionError):  # gone again, or none of our business
            return
        for name, is_folder in found:
            if is_leftover(name):
                continue
            if is_folder:
                yield from self._listen(f"{folder}{name}/")
            else:
                yield f"{folder}{name}"

    def _forget(self, folder: str) -> None:
        """A folder is no longer where it was, and with it all that was in it."""
        for below in [path for path in self._watches if path.startswith(folder)]:
            watch = self._watches.pop(below)
            self._folders.pop(watch, None)
            self._libc.inotify_rm_watch(self._fd, watch)
        self._dirty.update(path for path in (*self._originals, *self._changed) if path.startswith(folder))

    def _content(self, path: str) -> bytes:
        """What stands for a file's content: git's hash of it, its size and time where it is large, nothing where there
        is no file."""
        full = os.path.join(self._root, path)
        try:
            facts = os.lstat(full)
            executable = b"x" if facts.st_mode & 0o100 else b""
            if stat.S_ISLNK(facts.st_mode):
                return blob(os.fsencode(os.readlink(full)))
            if not stat.S_ISREG(facts.st_mode):
                return b""
            if facts.st_size > WHOLE_BYTES:
                return b"%d %d" % (facts.st_size, facts.st_mtime_ns) + executable
            with open(full, "rb") as file:
                return blob(file.read(WHOLE_BYTES + 1)) + executable
        except OSError:
            return b""

    def _checked(self, result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result


def is_leftover(name: str) -> bool:
    return name in LEFTOVERS or name.endswith(LEFTOVER_ENDINGS)


def blob(content: bytes) -> bytes:
    """Git's hash of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).digest()


def originals(root: str) -> dict[str, bytes]:
    """What stands for the content of each file that git tracks, so that a reverted file counts as unchanged.

    Empty where there is no index, or one that is compressed: a reverted file then counts as changed until it has
    been as it is before.
    """
    try:
        with open(os.path.join(root, ".git", "index"), "rb") as file:
            index = file.read()
        signature, version, count = struct.unpack_from(">4sII", index)
        found: dict[str, bytes] = {}
        if signature != b"DIRC" or version not in (2, 3):
            return found
        offset = 12
        for _ in range(count):
            sha1, flags = INDEX_ENTRY.unpack_from(index, offset)
            executable = b"x" if index[offset + 27] & 0o100 and index[offset + 26] >> 4 == 8 else b""
            begin = offset + (64 if version == 3 and flags & 0x4000 else 62)
            end = index.index(b"\0", begin)
            found[os.fsdecode(index[begin:end])] = sha1 + executable
            offset += (end - offset + 8) // 8 * 8  # padded with one to eight zeros
    except (OSError, ValueError, struct.error, IndexError):
        return {}
    return found
