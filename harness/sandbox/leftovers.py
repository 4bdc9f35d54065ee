"""What a harness that was killed left behind, found by its labels and names and told apart from what is in use."""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import docker

from harness import owned, paths
from harness.sandbox.daemon import KIND, OWNER, DockerFault, owner, owner_lives

LONGEST_ROOT = 54  # bytes; a socket's path has at most 107, and the folders and the socket below take up to 52


@dataclass(frozen=True)
class Leftovers:
    containers: tuple[str, ...]  # ids
    files: tuple[Path, ...]  # and folders

    def __bool__(self) -> bool:
        return bool(self.containers or self.files)


def socket_root() -> Path:
    """Where the folders of sockets are made: the temporary folder, or /tmp where a scheduler made that one too long."""
    temporary = Path(tempfile.gettempdir())
    return temporary if len(os.fsencode(temporary)) <= LONGEST_ROOT else Path("/tmp")


def find(client: docker.DockerClient, runs_dir: Path | None = None) -> Leftovers:
    """Containers of ours whose harness is dead, and files and folders that it has not finished."""
    containers = client.api.containers(all=True, filters={"label": KIND})
    # An image's labels are its containers' too: one that names no owner was started by somebody else.
    dead = tuple(c["Id"] for c in containers if c["Labels"].get(OWNER) and not owner_lives(c["Labels"][OWNER]))
    cache = paths.cache()
    # Exports are made where their archive will lie: in the sweep's folder, if nobody named another.
    folders = {owned.outer_folder(), socket_root(), cache / "bases", cache / "archives", Path.cwd()}
    if runs_dir is not None:
        folders |= {runs_dir.absolute(), *(path for path in runs_dir.absolute().glob("*") if path.is_dir())}
    return Leftovers(dead, tuple(path for folder in folders for path in owned.abandoned(folder)))


def remove_own(client: docker.DockerClient) -> None:
    """Remove the containers of this process, which is done with them: of one whose making was interrupted nobody else
    knows."""
    with contextlib.suppress(*DockerFault):
        mine = client.api.containers(all=True, filters={"label": f"{OWNER}={owner()}"})
        remove(client, Leftovers(tuple(container["Id"] for container in mine), ()))


def remove(client: docker.DockerClient, leftovers: Leftovers) -> None:
    """Remove them. One that is gone already, or can't be removed, does not keep the others."""
    for container in leftovers.containers:
        with contextlib.suppress(*DockerFault):
            client.api.remove_container(container, force=True, v=True)
    for path in leftovers.files:
        owned.remove(path)
