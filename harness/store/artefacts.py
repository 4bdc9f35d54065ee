"""Files of a run: compressed, complete or absent, and named in the database with their checksum."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Artefact:
    name: str  # "patch.diff", "agent.log", "calls.jsonl", "out/trajectory.json"
    path: str  # relative to the runs folder
    sha256: str
    bytes: int


def keep(runs_dir: Path, folder: Path, name: str, content: bytes | Path) -> Artefact:
    """Compress `content` (bytes, or a file that is removed afterwards) to `folder/name.gz`.

    The file appears under its name only when it is whole and on disk.
    """
    target = folder / f"{name}.gz"
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    # No name and no time in the header: the same content gives the same checksum.
    with (
        part.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=6, mtime=0) as gz,
    ):
        if isinstance(content, bytes):
            gz.write(content)
        else:
            with content.open("rb") as source:
                shutil.copyfileobj(source, gz, 1 << 20)
    digest = hashlib.sha256()
    with part.open("rb+") as written:
        while block := written.read(1 << 20):
            digest.update(block)
        os.fsync(written.fileno())
        size = written.tell()
    part.rename(target)
    if isinstance(content, Path):
        content.unlink()
    return Artefact(name, str(target.relative_to(runs_dir)), digest.hexdigest(), size)


def settle(runs_dir: Path, folder: Path) -> None:
    """Have the names of a run's files on disk, too, below `runs_dir`: only then may a row speak of them."""
    for each in (folder, *folder.parents):
        descriptor = os.open(each, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if each == runs_dir:
            return


def read(runs_dir: Path, path: str) -> bytes:
    """The uncompressed content of an artefact. Raises FileNotFoundError."""
    return gzip.decompress((runs_dir / path).read_bytes())


def read_lines(runs_dir: Path, path: str) -> Iterator[str]:
    """The lines of a compressed text artefact, one at a time."""
    with gzip.open(runs_dir / path, "rt", encoding="utf-8") as lines:
        yield from lines
