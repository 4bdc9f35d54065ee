"""The images of Harbor's tasks: a folder with a Dockerfile, built once for each content."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import docker
from docker.errors import APIError, BuildError, ImageNotFound

from harness.errors import UserError
from harness.images.bases import Say, ensure_base

FROM = re.compile(r"^\s*FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?\s*$", re.IGNORECASE | re.MULTILINE)


def context_hash(folder: Path) -> str:
    """A hash of a build context: names, modes that matter, and contents."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if "__pycache__" in name:
            continue
        if path.is_symlink():
            digest.update(f"l {name} {path.readlink()}\0".encode())
        elif path.is_file():
            executable = "x" if path.stat().st_mode & 0o100 else "-"
            digest.update(f"f {name} {executable} ".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def build(client: docker.DockerClient, context: Path, name: str, log: Path, say: Say) -> str:
    """Build `context` (a folder with a Dockerfile) unless that was done before; returns the image's id.

    The tag is `harness-task/<name>:<hash of the context>`. Raises UserError for a Dockerfile that can't be read or
    does not build: the end of the log, and where all of it is.
    """
    dockerfile = context / "Dockerfile"
    if not dockerfile.is_file():
        raise UserError(f"{context} has no Dockerfile: a task's environment/ folder needs one")
    repository = "harness-task/" + re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-.")
    tag = f"{repository}:{context_hash(context)}"
    try:
        return str(client.images.get(tag).id)
    except ImageNotFound:
        pass
    stages: set[str] = set()
    for base, alias in FROM.findall(dockerfile.read_text(encoding="utf-8")):
        if base not in stages and base != "scratch" and "$" not in base:
            ensure_base(client, base, say)
        if alias:
            stages.add(alias)
    say(f"building the image of {name}")
    try:
        image, _ = client.images.build(path=str(context), tag=tag, rm=True, forcerm=True, labels={"harness.task": name})
    except BuildError as error:
        lines = [str(part.get("stream") or part.get("error") or "") for part in error.build_log]
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("".join(lines), encoding="utf-8")
        tail = " / ".join("".join(lines).strip().splitlines()[-3:])
        raise UserError(f"the image of {name} does not build: {tail} (all of it: {log})") from error
    except APIError as error:
        raise UserError(f"{dockerfile}: {error.explanation or error}") from error
    return str(image.id)
