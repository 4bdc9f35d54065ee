"""What every task has, whatever it is made of, and what a suite is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# What a tar for a container is made of: content, (content, mode), a folder or file to take along, an empty folder.
TarEntry = bytes | tuple[bytes, int] | Path | None


@dataclass(frozen=True)
class CommonTask:
    """One issue to resolve, in one repository, with the tests that decide."""

    suite: str
    name: str
    instruction: str
    test_timeout_s: float
    cpus: float | None
    memory_bytes: int | None
    storage_bytes: int | None
    workdir: str | None  # None: the image's own
    metadata: Mapping[str, Any]
    solution_env: Mapping[str, str]


@dataclass(frozen=True)
class LeftOut:
    """A task of the suite that this machine can't grade, and why."""

    name: str
    reason: str = field(compare=False)
