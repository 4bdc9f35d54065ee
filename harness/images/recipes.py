"""How the images of a suite are rebuilt: a table for each instance in rebuild.toml, locked environments beside it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from harness.errors import UserError
from harness.toml import read_toml

FILE = "rebuild.toml"


class _Instance(BaseModel):
    """The fields of one table of a rebuild.toml; any other is refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    environment: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    archive: str | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    undo: bool = False
    fuzz: bool = False
    only_from_commit: str | None = None


@dataclass(frozen=True)
class Recipe:
    """How one instance is rebuilt."""

    folder: Path  # of the suite
    environment: str
    archive: str | None
    sha256: str | None
    undo: bool
    fuzz: bool
    only_from_commit: str | None

    def lock(self, python: str) -> Path:
        """The locked packages of its environment for a Python version. Raises UserError when there are none."""
        path = self.folder / "environments" / f"{self.environment}-py{python}.lock"
        if not path.is_file():
            raise UserError(
                f"environment {self.environment} has no packages for Python {python}: "
                f"it is known for {' and '.join(self.pythons())}"
            )
        return path

    def pythons(self) -> list[str]:
        """The Python versions that its environment is known for."""
        prefix = f"{self.environment}-py"
        found = (path.stem.removeprefix(prefix) for path in (self.folder / "environments").glob(f"{prefix}*.lock"))
        return sorted(found)

    def lock_hash(self, python: str) -> str:
        return hashlib.sha256(self.lock(python).read_bytes()).hexdigest()


def read(folder: Path) -> dict[str, Recipe]:
    """The recipes of a suite by instance; empty for one that has none. Raises UserError for a malformed file."""
    path = folder / FILE
    if not path.is_file():
        return {}
    raw = read_toml(path, TypeAdapter(dict[str, _Instance]))
    for name, instance in raw.items():
        if (instance.archive is None) != (instance.sha256 is None):
            raise UserError(f"{path}: {name}: archive and sha256 belong together")
        if (instance.archive is None) == (instance.only_from_commit is None):
            raise UserError(f"{path}: {name}: expected either an archive or only_from_commit, the reason for none")
    return {name: Recipe(folder=folder, **instance.model_dump()) for name, instance in raw.items()}
