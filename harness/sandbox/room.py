"""Whether a file system has room left. A full one is the machine's fault, never an agent's, a patch's or a test's."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import docker

from harness.sandbox.daemon import DockerFault, root_folder

LEAST_BYTES = 32 << 20  # ext4 keeps up to 16 MiB of what it says is free to itself
LEAST_INODES = 64


def lack_of_room(folder: Path, least_bytes: int = LEAST_BYTES) -> str | None:
    """What the file system of a folder has too little of, in a sentence; None where there is enough, or nobody knows.

    What only root may use counts as room: the root of a container is root to the file system.
    """
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    free_bytes = found.f_bfree * found.f_frsize
    if free_bytes < least_bytes:
        return f"the disk of {folder} is full ({free_bytes >> 20} MB left)"
    if found.f_files and found.f_ffree < LEAST_INODES:  # some file systems have no number of inodes
        return f"the disk of {folder} has no inodes left for more files"
    return None


def dockers_lack_of_room(client: docker.DockerClient) -> str | None:
    """The same of the disk on which Docker keeps containers; None also where that is another machine's."""
    try:
        folder = _root_folder(client)
    except DockerFault:
        return None
    return lack_of_room(folder) if folder else None


@functools.cache
def _root_folder(client: docker.DockerClient) -> Path | None:
    return root_folder(client)
