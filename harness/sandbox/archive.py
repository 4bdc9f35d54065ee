"""The tar of a work directory as Docker sends it, read as it comes: nothing is unpacked, no name or link followed.

Whoever worked in it may have left anything there: sparse files that are terabytes in a tar, devices, millions of
files, names that git takes into no tree.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Protocol

# A file over this is left out of a patch and named: no fix of source code is that large.
LARGEST_FILE_BYTES = 32 << 20
MOST_MEMBERS = 1_000_000  # files and folders; each takes some hundred bytes of memory


class TooMuch(Exception):
    """A work directory that holds more than the harness reads."""


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Limited:
    """What comes in pieces as something to read from. Reading raises TooMuch from a number of bytes on."""

    def __init__(self, pieces: Iterator[bytes], limit_bytes: int) -> None:
        self._pieces = pieces
        self._limit_bytes = limit_bytes
        self._left_bytes = limit_bytes

    def read(self, _size: int = -1, /) -> bytes:
        """The next piece, whatever its size: as tarfile takes it from a stream."""
        piece = next(self._pieces, b"")
        self._left_bytes -= len(piece)
        if self._left_bytes < 0:
            raise TooMuch(f"the work directory is larger than {self._limit_bytes >> 20} MB")
        return piece


@dataclass(frozen=True)
class File:
    path: str  # relative to the work directory
    mode: str  # git's: 100644, 100755 or 120000
    content: bytes

    @property
    def blob(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content, usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class HardLink:
    """A second name of a file that came before it in the archive."""

    path: str
    target: str


@dataclass(frozen=True)
class TooLarge:
    path: str


@dataclass(frozen=True)
class Unnameable:
    """Something by a name that git keeps for itself, as `.GIT` or a link `.gitmodules`."""

    path: str


Entry = File | HardLink | TooLarge | Unnameable


def files(archive: Readable, skip: Container[str] = ()) -> Iterator[Entry]:
    """The files and links below an archive's top folder, `.git` and what is in `skip` left out.

    Devices, sockets and pipes are nothing that a patch could hold. Raises TooMuch.
    """
    with tarfile.open(fileobj=archive, mode="r|", bufsize=1 << 20) as tar:  # type: ignore[call-overload]
        for number, member in enumerate(tar):
            tar.members.clear()  # else all are kept in memory
            if number >= MOST_MEMBERS:
                raise TooMuch(f"the work directory holds more than {MOST_MEMBERS} files")
            path = relative(member.name)
            if path is None or path in skip:
                continue
            if not (member.issym() or member.islnk() or member.isfile()):
                continue
            if is_gits(path, link=member.issym()):
                yield Unnameable(path)
            elif member.issym():
                yield File(path, "120000", os.fsencode(member.linkname))
            elif member.islnk():
                target = relative(member.linkname)
                # A file that has another name in `.git` comes under that one, unread: it is left out, and not removed.
                yield HardLink(path, target) if target is not None else TooLarge(path)
            elif member.size > LARGEST_FILE_BYTES:
                yield TooLarge(path)
            else:
                stream = tar.extractfile(member)
                assert stream is not None
                yield File(path, "100755" if member.mode & 0o100 else "100644", stream.read())


def paths(archive: IO[bytes]) -> list[str]:
    """The paths of all that `files` would give and git would take, contents unread."""
    archive.seek(0)
    with tarfile.open(fileobj=archive, mode="r:") as tar:
        members = [m for m in tar if m.issym() or m.isfile() or m.islnk()]
    found = [(relative(m.name), m.issym()) for m in members]
    return [path for path, link in found if path is not None and not is_gits(path, link=link)]


def relative(name: str) -> str | None:
    """A member's path below the archive's top folder; None for the folder itself and for what is git's own."""
    parts = PurePosixPath(name).parts[1:]
    return None if not parts or ".git" in parts or ".." in parts else "/".join(parts)


def is_gits(path: str, *, link: bool) -> bool:
    """Whether git refuses a path on every system: `.git` in any case, and a link by the name of `.gitmodules`."""
    parts = path.lower().split("/")
    return ".git" in parts or (link and parts[-1] == ".gitmodules")
