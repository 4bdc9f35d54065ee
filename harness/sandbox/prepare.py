"""From a task's image to the state an agent starts from: history cut once, in a derived image.

The derived image is the task's with a `.git` of one commit in the work directory. The base that patches are
measured against is read from it, so the two can't differ.
"""

from __future__ import annotations

import fcntl
import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import docker
from docker.errors import ImageNotFound, NotFound
from docker.models.images import Image

from harness import paths
from harness.errors import MachineError, UserError
from harness.sandbox.daemon import KIND, OWNER, DockerFault, owner
from harness.sandbox.tree import Base, agents_repository, create_base

# Part of the tag: a change of how images are derived makes new ones.
RECIPE = "3"


@dataclass(frozen=True)
class Prepared:
    image: str  # id of the derived image
    workdir: str
    base: Base


def prepare(client: docker.DockerClient, image: str, name: str, workdir: str | None = None) -> Prepared:
    """Derive the image an agent gets from `image` (an id), or find it made already. `name` is the task's, for people.

    `workdir` defaults to the image's own. Raises UserError when the image has no work directory or it does not
    exist, MachineError when Docker fails.
    """
    try:
        found = client.images.get(image)
        where = workdir or found.attrs["Config"].get("WorkingDir") or ""
        if where in ("", "/"):
            raise UserError(
                f"the image of {name} has no work directory: give its Dockerfile a WORKDIR that holds the repository"
            )
        key = hashlib.sha256(f"{RECIPE} {found.id} {where}".encode()).hexdigest()[:20]
        git_dir = paths.cache() / "bases" / f"{key}.git"
        with _one_at_a_time(key):
            tag = f"harness-ready:{key}"
            try:
                derived = client.images.get(tag)
            except ImageNotFound:
                derived = _derive(client, str(found.id), where, tag, git_dir, name)
            if not git_dir.is_dir():
                _read_base(client, str(derived.id), where, git_dir, name)
    except DockerFault as error:
        raise MachineError(
            f"the image of {name} can't be prepared: {getattr(error, 'explanation', None) or error}"
        ) from error
    return Prepared(str(derived.id), where, Base(git_dir))


def _derive(client: docker.DockerClient, image: str, where: str, tag: str, git_dir: Path, name: str) -> Image:
    base = _read_base(client, image, where, git_dir, name)
    # Its own git directory goes in a layer of its own: what is removed there is out of an agent's reach.
    container = client.containers.create(
        image,
        ["sh", "-c", 'rm -rf "$1/.git"', "sh", where],
        labels={KIND: "build", OWNER: owner()},
        network_mode="none",
        user="root",
        entrypoint="",
    )
    try:
        container.start()
        status = container.wait(timeout=120)["StatusCode"]
        if status != 0:
            raise UserError(f"the image of {name} has no working /bin/sh: it needs one (exit code {status})")
        folder = PurePosixPath(where)
        container.put_archive(str(folder.parent), agents_repository(base, folder.name))
        repository, _, version = tag.partition(":")
        config = client.api.inspect_image(image)["Config"]
        return container.commit(
            repository,
            version,
            conf={"Cmd": config.get("Cmd"), "Entrypoint": config.get("Entrypoint"), "WorkingDir": where,
                  # The container's labels pass on to the image, and from there to a container that anyone starts.
                  "Labels": {KIND: "", OWNER: "", "harness.base": image}},
        )  # fmt: skip
    finally:
        container.remove(force=True, v=True)


def _read_base(client: docker.DockerClient, image: str, where: str, git_dir: Path, name: str) -> Base:
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
            return create_base(git_dir, archive)
    except NotFound as error:
        raise UserError(f"the image of {name} has no folder {where}: its WORKDIR has to hold the repository") from error
    finally:
        container.remove(force=True, v=True)


@contextmanager
def _one_at_a_time(key: str) -> Iterator[None]:
    locks = paths.cache() / "locks"
    locks.mkdir(exist_ok=True)
    with (locks / f"prepare-{key}").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
