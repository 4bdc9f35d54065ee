"""Prints what lies in a bundle, as JSON. Run by the bundle's own Python, in a container that has it mounted."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import sys

HOME = pathlib.Path("/opt/agent")


def only(about: importlib.metadata.PackageMetadata, field: str) -> str | None:
    return next(iter(about.get_all(field) or ()), None)


def package(found: importlib.metadata.Distribution) -> dict[str, object]:
    about = found.metadata
    record = found.read_text("RECORD")
    return {
        "name": about["Name"],
        "version": found.version,
        "summary": only(about, "Summary"),
        "licence_expression": only(about, "License-Expression"),
        "licence": only(about, "License"),
        "classifiers": about.get_all("Classifier") or [],
        # A hash for each of its files stands in it, so this one is of all of them.
        "record_sha256": hashlib.sha256(record.encode()).hexdigest() if record else None,
    }


def file(path: pathlib.Path) -> dict[str, str]:
    return {
        "path": str(path.relative_to(HOME)),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


binary = pathlib.Path(os.path.realpath(sys.executable))
libraries = sorted(path for path in (HOME / "python" / "lib").glob("*.so*") if path.is_file() and not path.is_symlink())
print(
    json.dumps(
        {
            "python_version": platform.python_version(),
            "python": file(binary),
            "libraries": [file(path) for path in libraries],
            "packages": sorted(map(package, importlib.metadata.distributions()), key=lambda each: str(each["name"])),
        }
    )
)
