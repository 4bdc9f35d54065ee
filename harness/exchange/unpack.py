"""Unpacking a bundle that anybody may have made: nothing in it is believed before it was checked.

Files are written by this module under names that the manifest gives and that were checked letter by letter; no name,
kind, owner or mode of the archive's own is ever acted upon, so there is nothing left that a filter for members would
have to keep out.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from harness.errors import UserError
from harness.exchange.manifest import MANIFEST, Manifest, read_manifest

LONGEST_MANIFEST = 256 << 20
HEADERS = 8 << 10  # bytes of a member's headers and padding, with room
END = 1 << 20  # of zeros, at most, behind the last member
BLOCK = 1 << 20
RECORD = 64 << 10  # that are unpacked at a time


class _TooMuch(Exception):
    pass


class _Metered:
    """A stream that ends with an error where more comes out of it than there may be: a small archive must fill neither
    the disk nor the memory."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile, left: int) -> None:
        self._stream, self.left = stream, left

    def read(self, size: int) -> bytes:
        block = self._stream.read(size)
        self.left -= len(block)
        if self.left < 0:
            raise _TooMuch
        return block


@dataclass(frozen=True)
class Bundle:
    """A bundle that is open, with its manifest read and nothing else."""

    source: Path
    manifest: Manifest
    _tar: tarfile.TarFile
    _stream: _Metered

    @property
    def bytes(self) -> int:
        """Of what it unpacks to."""
        return sum(file.bytes for file in self.manifest.files.values())

    def extract(self, folder: Path) -> None:
        """Every file into a new `folder`, each whole, checked and on disk.

        Raises UserError for a bundle that is damaged, cut off, or holds anything that its manifest does not name.
        """
        self._stream.left = self.bytes + HEADERS * (1 + len(self.manifest.files)) + END
        folder.mkdir()
        done: set[str] = set()
        with _damage(self.source):
            while (member := self._tar.next()) is not None:
                name = self._name(member, done)
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                self._write(member, name, target)
                done.add(name)
            # What stands behind the last member: the rest of the zeros, and gzip's own checksum.
            while self._stream.read(BLOCK):
                pass
        if lacking := sorted(self.manifest.files.keys() - done):
            raise UserError(f"{self.source} is damaged: {lacking[0]} is named in its {MANIFEST} and is not in it")

    def _name(self, member: tarfile.TarInfo, done: set[str]) -> str:
        """The manifest's name for a member. Raises UserError when it has none, or another size or kind."""
        folder, _, name = member.name.partition("/")
        file = self.manifest.files.get(name)
        if folder != self.manifest.folder or file is None:
            raise UserError(f"{self.source} holds {member.name!r}, which its {MANIFEST} does not name")
        if not member.isreg() or member.issparse():
            raise UserError(f"{self.source}: {name} is no plain file")
        if name in done:
            raise UserError(f"{self.source} holds {name} twice")
        if member.size != file.bytes:
            raise UserError(f"{self.source}: {name} has {member.size} bytes, and {file.bytes} by its {MANIFEST}")
        return name

    def _write(self, member: tarfile.TarInfo, name: str, target: Path) -> None:
        content, digest = self._tar.extractfile(member), hashlib.sha256()
        assert content is not None
        with target.open("xb") as file:
            while block := content.read(BLOCK):
                digest.update(block)
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != self.manifest.files[name].sha256:
            raise UserError(f"{self.source} is damaged: the checksum of {name} is another")


@contextmanager
def opened(source: Path) -> Iterator[Bundle]:
    """Open a bundle and read its manifest. Raises UserError when it is none."""
    try:
        raw = source.open("rb")
    except OSError as error:
        raise UserError(f"{source} can't be read: {error.strerror}") from error
    with raw, gzip.GzipFile(fileobj=raw, mode="rb") as gz:
        stream = _Metered(gz, LONGEST_MANIFEST)
        with _damage(source, first=True):
            tar = tarfile.open(fileobj=stream, mode="r|", bufsize=RECORD)  # type: ignore[call-overload]  # noqa: SIM115
            member = tar.next()
            name = member.name.partition("/")[2] if member is not None else ""
            content = tar.extractfile(member) if member is not None and name == MANIFEST and member.isreg() else None
            if content is None:
                raise UserError(f"{source} is not a bundle of the harness: it does not begin with a {MANIFEST}")
            manifest = read_manifest(content.read(), str(source))
        with tar:
            yield Bundle(source, manifest, tar, stream)


@contextmanager
def _damage(source: Path, first: bool = False) -> Iterator[None]:
    """What archives say of their own damage, in a sentence."""
    try:
        yield
    except _TooMuch as error:
        raise UserError(f"{source} holds more than its {MANIFEST} says: it was not made by the harness") from error
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        if first and not isinstance(error, EOFError):
            raise UserError(f"{source} is not a bundle of the harness: {error}") from error
        raise UserError(f"{source} is damaged or cut off: {error}: fetch it again") from error
