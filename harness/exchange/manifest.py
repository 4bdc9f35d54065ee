"""What a bundle says of itself: `manifest.json`, the first file in it.

A bundle is a tar archive, compressed with gzip, of one folder, `harness-SWEEP/`, that is a runs folder by itself: a
database with the sweep's rows alone, and the sweep's files as they lay beside it.
"""

from __future__ import annotations

import json
import re
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.errors import UserError

FORMAT = "agent-energy-harness bundle"
VERSION = 1
MANIFEST = "manifest.json"
DATABASE = "harness.db"
SPEC = "spec.toml"
README = "README.txt"
BESIDE = frozenset({DATABASE, SPEC, README})
"""The files that are none of a run."""

SWEEP_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class File(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0)]


class Missing(BaseModel):
    """A file that the database names and that could not be packed."""

    model_config = ConfigDict(strict=True, frozen=True)

    run_id: str
    name: str
    path: str
    why: str


class Manifest(BaseModel):
    """Names that a later version adds are passed over."""

    model_config = ConfigDict(strict=True, frozen=True)

    format: str = FORMAT
    version: int = VERSION
    harness_version: str
    """Of the harness that packed it; each run's own is in its row."""
    sweep_id: str
    planned_runs: int
    runs: int
    machines: dict[str, Any]
    """Facts by machine_id."""
    resolved: dict[str, Any]
    images: list[dict[str, Any]]
    agents: list[dict[str, Any]]
    models: list[dict[str, Any]]
    rows: dict[str, int]
    """By table."""
    files: dict[str, File]
    """By path within the folder."""
    missing: list[Missing]

    @property
    def folder(self) -> str:
        return f"harness-{self.sweep_id}"


def of_sweep(sweep_id: str, path: str) -> bool:
    """Whether a path leads into a sweep's folder, by its letters alone: nothing above it, and one spelling only."""
    parts = PurePosixPath(path).parts
    return (
        len(parts) > 1 and parts[0] == sweep_id and ".." not in parts and "/".join(parts) == path and path.isprintable()
    )


def read_manifest(text: bytes, source: str) -> Manifest:
    """A manifest that was written anywhere. Raises UserError when it is none, or a later version's."""
    try:
        content = json.loads(text)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise UserError(f"{source} is not a bundle of the harness: its {MANIFEST} says nothing of the kind")
        if isinstance(version := content.get("version"), int) and version > VERSION:
            raise UserError(
                f"{source} was packed by a newer harness (version {version} of the format): update this one"
            )
        found = Manifest.model_validate(content)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise UserError(f"{source}: its {MANIFEST} is damaged: {where}: {problem['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source}: its {MANIFEST} is damaged: {error}") from error
    if not SWEEP_ID.fullmatch(found.sweep_id):
        raise UserError(f"{source}: {found.sweep_id!r} can't be the id of a sweep")
    for path in found.files:
        if path not in BESIDE and not of_sweep(found.sweep_id, path):
            raise UserError(f"{source}: the file {path!r} has no place in a bundle of sweep {found.sweep_id}")
    if DATABASE not in found.files:
        raise UserError(f"{source}: it holds no {DATABASE}")
    return found
