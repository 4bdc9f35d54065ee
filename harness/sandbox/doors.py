"""Which door a sweep's sandboxes have: chosen or refused by name, before anything starts."""

from __future__ import annotations

import contextlib
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import docker
from docker.types import Mount

from harness.errors import UserError
from harness.images.bundle import Bundle
from harness.sandbox import daemon
from harness.sandbox.container import SandboxError, running, tar_of
from harness.sandbox.leftovers import socket_dir_prefix, socket_root
from harness.sandbox.runtime import TRIAL

DoorKind = Literal["socket", "relay"]

SOCKET_DIR = "/run/harness"
SOCKET_NAME = "gateway.sock"
CONNECT = f"import socket; socket.socket(socket.AF_UNIX).connect('{SOCKET_DIR}/{SOCKET_NAME}')"


@dataclass(frozen=True)
class Choice:
    door: DoorKind
    reason: str | None  # why it is not the socket, where that was left to us


def choose(
    wanted: Literal["auto", "socket", "relay"],
    client: docker.DockerClient,
    own_kernel: bool,
    try_socket: Callable[[], str | None],
) -> Choice:
    """`try_socket` tells why a sandbox can't use a socket of this machine. Raises UserError for what does not work."""
    if wanted == "relay":
        return Choice("relay", None)
    if wanted == "auto":
        if reason := daemon.elsewhere(client):
            return Choice("relay", f"Docker is on another machine: {reason}")
        if own_kernel:
            return Choice("relay", "sandboxes have a kernel of their own")
    trouble = try_socket()
    if trouble is None:
        return Choice("socket", None)
    if wanted == "socket":
        raise UserError(f"--door socket: a sandbox can't use a socket of this machine ({trouble}): take --door relay")
    return Choice("relay", f"a sandbox can't use a socket of this machine: {trouble}")


def try_socket(client: docker.DockerClient, image: str, bundle: Bundle, runtime: str) -> str | None:
    """Connect to a mounted socket from within a container. Returns why that fails, if it does."""
    said = bytearray()
    with shared_folder() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = folder / SOCKET_NAME
        listener.bind(str(path))
        path.chmod(0o666)
        listener.listen()
        mounts = [
            Mount("/opt/agent", bundle.volume, type="volume", read_only=True),
            Mount(SOCKET_DIR, str(folder), type="bind", read_only=True),
        ]
        try:
            with running(
                client, image, kind="probe", limits=TRIAL, files=tar_of({}), mounts=mounts, runtime=runtime
            ) as container:
                done = container.exec([bundle.python, "-c", CONNECT], sink=said.extend)
        except SandboxError as error:
            return str(error)
    if done.code == 0:
        return None
    return said.decode(errors="replace").strip().rpartition("\n")[2] or f"exit code {done.code}"


@contextlib.contextmanager
def shared_folder() -> Iterator[Path]:
    """A folder for a socket that a sandbox is to see, with a path that is short enough, gone at the end.

    The container's root, without capabilities, is nobody special: it may enter the inner folder, which is what it sees.
    The outer one keeps this machine's other users out.
    """
    with tempfile.TemporaryDirectory(prefix=socket_dir_prefix(), dir=socket_root()) as private:
        folder = Path(private, "d")
        folder.mkdir()
        folder.chmod(0o755)
        yield folder
