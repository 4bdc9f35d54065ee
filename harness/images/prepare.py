"""From a task's image to the state an agent starts from: history cut once, in a derived image.

The derived image is the task's with a `.git` of one commit in the work directory. The base that patches are
measured against is read from it, so the two can't differ.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import docker
from docker.errors import ImageNotFound, NotFound
from docker.models.images import Image

from harness import paths
from harness.errors import MachineError, UserError
from harness.images.bases import Say
from harness.images.derived import derive
from harness.sandbox.daemon import KIND, OWNER, DockerFault, owner
from harness.sandbox.tree import Base, agents_repository, create_base

# Part of the tag: a change of how images are derived makes new ones.
RECIPE = "4"

READY, BASE_LABEL = "harness-ready", "harness.base"
IN_USE = "images-in-use"  # the lock of those that go on using prepared images, held shared

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # Docker's, for an image that sets none


@dataclass(frozen=True)
class Prepared:
    image: str  # id of the derived image
    sandbox_image: str  # id of the one that agents get: the same, or one made of it (unrooted.py)
    task_image: str  # id of the task's own
    workdir: str
    base: Base
    source: str = "dockerfile"  # where the task's image is from
    origin: str | None = None  # which one exactly, where that can be said


def prepare(
    client: docker.DockerClient,
    image: str,
    name: str,
    workdir: str | None = None,
    *,
    say: Say = lambda _: None,
    source: str = "dockerfile",
    origin: str | None = None,
    everything: bool = False,
    environment: Mapping[str, str] = {},
    path: str = "",
) -> Prepared:
    """Derive the image an agent gets from `image` (an id), or find it made already. `name` is the task's, for people.

    `workdir` defaults to the image's own. `everything` makes all files part of the base, also those that the
    repository's ignore rules name, for an image without a `.git` that would tell. `environment` and `path` (before
    the image's own) are set in every process of the derived image.

    Raises UserError when the image has no work directory or it does not exist, MachineError when Docker fails.
    """
    try:
        found = client.images.get(image)
        here = client.version()["Arch"]
        if found.attrs["Architecture"] != here:
            raise UserError(
                f"the image of {name} is for {found.attrs['Architecture']} and Docker here is {here}, as agents' "
                "bundles are: build it here, or pull it for this architecture"
            )
        where = workdir or found.attrs["Config"].get("WorkingDir") or ""
        if where in ("", "/"):
            raise UserError(
                f"the image of {name} has no work directory: give its Dockerfile a WORKDIR that holds the repository"
            )
        variables = {**environment, **({"PATH": f"{path}:{_path_of(found)}"} if path else {})}
        inputs = [RECIPE, found.id, where, everything, sorted(variables.items())]
        key = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:20]
        git_dir = paths.cache() / "bases" / f"{key}.git"
        with paths.lock(f"prepare-{key}"):
            tag = f"{READY}:{key}"
            try:
                derived = client.images.get(tag)
            except ImageNotFound:
                say(f"{name}: cutting its repository's history to one commit")
                derived = _derive(client, str(found.id), where, tag, git_dir, name, everything, variables)
            if not git_dir.is_dir():
                _read_base(client, str(derived.id), where, git_dir, name, everything)
    except DockerFault as error:
        raise MachineError(
            f"the image of {name} can't be prepared: {getattr(error, 'explanation', None) or error}"
        ) from error
    return Prepared(str(derived.id), str(derived.id), image, where, Base(git_dir), source, origin)


def forget(client: docker.DockerClient, image: str) -> None:
    """Remove what was derived from an image that is being replaced, unless a sweep that runs might use it still."""
    with paths.lock_if_free(IN_USE) as free:
        if free:
            _forget(client, image)


def _forget(client: docker.DockerClient, image: str) -> None:
    for derived in client.images.list(name=READY, filters={"label": f"{BASE_LABEL}={image}"}):
        for tag in derived.tags:
            client.images.remove(tag)
            shutil.rmtree(paths.cache() / "bases" / f"{tag.partition(':')[2]}.git", ignore_errors=True)


def _path_of(image: Image) -> str:
    variables = image.attrs["Config"].get("Env") or []
    return next((v.removeprefix("PATH=") for v in variables if v.startswith("PATH=")), DEFAULT_PATH)


def _derive(
    client: docker.DockerClient,
    image: str,
    where: str,
    tag: str,
    git_dir: Path,
    name: str,
    everything: bool,
    variables: Mapping[str, str],
) -> Image:
    base = _read_base(client, image, where, git_dir, name, everything)
    folder = PurePosixPath(where)
    # Its own git directory goes in a layer of its own: what is removed there is out of an agent's reach.
    return derive(
        client,
        image,
        ["sh", "-c", 'rm -rf "$1/.git"', "sh", where],
        tag,
        limit_s=120,
        failed=lambda status: f"the image of {name} has no working /bin/sh: it needs one (exit code {status})",
        add=lambda container: container.put_archive(str(folder.parent), agents_repository(base, folder.name)),
        config={"WorkingDir": where, "Env": [f"{variable}={value}" for variable, value in variables.items()]},
        labels={BASE_LABEL: image},
    )


def _read_base(client: docker.DockerClient, image: str, where: str, git_dir: Path, name: str, everything: bool) -> Base:
    container = client.containers.create(
        image, ["true"], labels={KIND: "build", OWNER: owner()}, network_mode="none", entrypoint=""
    )
    try:
        chunks, about = container.get_archive(where, chunk_size=1 << 20)
        if about["linkTarget"]:
            raise UserError(
                f"the work directory {where} of the image of {name} is a link to {about['linkTarget']}: "
                "name the folder itself in its WORKDIR"
            )
        with tempfile.TemporaryFile(prefix="harness-archive-") as archive:
            archive.writelines(chunks)
            return create_base(git_dir, archive, everything=everything)
    except NotFound as error:
        raise UserError(f"the image of {name} has no folder {where}: its WORKDIR has to hold the repository") from error
    finally:
        container.remove(force=True, v=True)
