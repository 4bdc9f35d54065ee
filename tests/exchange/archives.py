"""Bundles taken apart and put together again, as somebody might who means no good."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sqlite3
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Parts:
    """A bundle's folder name, its manifest and the bytes of its files."""

    def __init__(self, bundle: Path) -> None:
        with tarfile.open(bundle) as tar:
            found = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        self.folder = next(iter(found)).partition("/")[0]
        self.files = {name.partition("/")[2]: content for name, content in found.items()}
        self.manifest: dict[str, Any] = json.loads(self.files.pop("manifest.json"))
        self.odd: list[tuple[tarfile.TarInfo, bytes]] = []

    def put(self, name: str, content: bytes) -> None:
        """A file that the manifest names rightly."""
        self.files[name] = content
        self.manifest["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}

    def change_database(self, folder: Path, change: Callable[[sqlite3.Connection], object]) -> None:
        path = folder / "changed.db"
        path.write_bytes(self.files["harness.db"])
        db = sqlite3.connect(path)
        change(db)
        db.commit()
        db.close()
        self.put("harness.db", path.read_bytes())
        path.unlink()

    def member(self, name: str, content: bytes = b"", **fields: Any) -> None:
        """A further member, of any kind."""
        member = tarfile.TarInfo(name)
        member.size = len(content)
        for field, value in fields.items():
            setattr(member, field, value)
        self.odd.append((member, content))

    def write(self, target: Path) -> Path:
        whole = {"manifest.json": json.dumps(self.manifest).encode()} | self.files
        with gzip.open(target, "wb") as stream, tarfile.open(fileobj=stream, mode="w|") as tar:
            for name, content in whole.items():
                member = tarfile.TarInfo(f"{self.folder}/{name}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            for member, content in self.odd:
                tar.addfile(member, io.BytesIO(content))
        return target
