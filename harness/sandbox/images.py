"""Images: the bases that Dockerfiles start from, and the tasks' own.

A base is pulled where a registry answers. Where none does, Debian's are made here from Debian's packages and
get the same tag, so that a Dockerfile stays ordinary.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

import docker
from docker.errors import APIError, BuildError, ImageNotFound

from harness.errors import MachineError, UserError
from harness.sandbox.daemon import DockerFault

Say = Callable[[str], None]

DEBIAN = re.compile(r"^debian:(bullseye|bookworm|trixie)(-slim)?$")
FROM = re.compile(r"^\s*FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?\s*$", re.IGNORECASE | re.MULTILINE)


def ensure_base(client: docker.DockerClient, tag: str, say: Say) -> None:
    """Make `tag` available: there already, pulled, or made by mmdebstrap.

    Raises MachineError when none of the three works; the sentence names what was tried.
    """
    try:
        client.images.get(tag)
        return
    except ImageNotFound:
        pass
    say(f"pulling {tag}")
    try:
        client.images.pull(tag)
        return
    except DockerFault as error:
        pull_error = (getattr(error, "explanation", None) or str(error)).splitlines()[0]
    made_here = DEBIAN.match(tag)
    if made_here is None:
        raise MachineError(
            f"the base image {tag} can't be pulled ({pull_error}) and is none that can be made here "
            "(debian:bullseye, bookworm or trixie, with or without -slim): load it with `docker load`"
        )
    if shutil.which("mmdebstrap") is None:
        raise MachineError(
            f"the base image {tag} can't be pulled ({pull_error}), and mmdebstrap, which can make it here, is not "
            "installed: `sudo apt-get install mmdebstrap`"
        )
    say(f"making {tag} out of Debian's packages")
    _debootstrap(client, made_here[1], tag)


def _debootstrap(client: docker.DockerClient, suite: str, tag: str) -> None:
    mode = "root" if os.geteuid() == 0 else "unshare"
    maker = subprocess.Popen(
        ["mmdebstrap", "--quiet", f"--mode={mode}", "--variant=minbase", suite, "-"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert maker.stdout is not None
    assert maker.stderr is not None
    repository, _, version = tag.partition(":")
    complaint: list[str] = []
    errors = maker.stderr
    reader = threading.Thread(target=lambda: complaint.extend(_lines(errors)))
    reader.start()
    try:
        client.api.import_image_from_stream(maker.stdout, repository, version, changes=['CMD ["bash"]'])
        refused = None
    except DockerFault as error:
        refused = f"Docker said: {error}"
    finally:
        maker.stdout.close()
        code = maker.wait()
        reader.join()
    if code != 0 or refused:
        # An archive that broke off may have been imported half.
        with contextlib.suppress(*DockerFault):
            client.images.remove(tag)
        raise MachineError(
            f"mmdebstrap could not make {tag}: {refused or ' / '.join(complaint[-2:]) or f'exit code {code}'}"
        )


def _lines(stream: IO[bytes]) -> list[str]:
    return [line.strip() for line in stream.read().decode(errors="replace").splitlines() if line.strip()]


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
