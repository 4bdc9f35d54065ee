"""What a harness that was killed left behind, found by its labels and told apart from what is in use."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import docker

from harness.sandbox.daemon import KIND, OWNER, DockerFault, owner_lives, process_start

SOCKET_PREFIX = "hg-"
LONGEST_ROOT = 58  # bytes; a socket's path has at most 107, and the folders and the socket below take up to 48


@dataclass(frozen=True)
class Leftovers:
    containers: tuple[str, ...]  # ids
    socket_dirs: tuple[Path, ...]

    def __bool__(self) -> bool:
        return bool(self.containers or self.socket_dirs)


def socket_root() -> Path:
    """Where the folders of sockets are made: the temporary folder, or /tmp where a scheduler made that one too long."""
    temporary = Path(tempfile.gettempdir())
    return temporary if len(os.fsencode(temporary)) <= LONGEST_ROOT else Path("/tmp")


def socket_dir_prefix() -> str:
    """Names the owner in the folder's name, as labels do for containers."""
    return f"{SOCKET_PREFIX}{os.getpid()}-{process_start(os.getpid())}-"


def find(client: docker.DockerClient) -> Leftovers:
    """Containers of ours, and folders of sockets, whose harness is dead."""
    containers = client.api.containers(all=True, filters={"label": KIND})
    # An image's labels are its containers' too: one that names no owner was started by somebody else.
    dead = tuple(c["Id"] for c in containers if c["Labels"].get(OWNER) and not owner_lives(c["Labels"][OWNER]))
    folders = []
    for folder in socket_root().glob(f"{SOCKET_PREFIX}*-*-*"):
        pid, started = folder.name.removeprefix(SOCKET_PREFIX).split("-")[:2]
        with contextlib.suppress(OSError):
            mine = folder.is_dir() and folder.stat().st_uid == os.getuid()
            if mine and pid.isdigit() and process_start(int(pid)) != started:
                folders.append(folder)
    return Leftovers(dead, tuple(folders))


def remove(client: docker.DockerClient, leftovers: Leftovers) -> None:
    """Remove them. One that is gone already, or can't be removed, does not keep the others."""
    for container in leftovers.containers:
        with contextlib.suppress(*DockerFault):
            client.api.remove_container(container, force=True, v=True)
    for folder in leftovers.socket_dirs:
        shutil.rmtree(folder, ignore_errors=True)
