"""Which door a sweep's sandboxes have: chosen or refused by name, before anything starts."""

from __future__ import annotations

import contextlib
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import docker
from docker.types import Mount

from harness import owned
from harness.errors import UserError
from harness.images.bundle import Bundle
from harness.sandbox import daemon
from harness.sandbox.command import SandboxError
from harness.sandbox.container import running, tar_of
from harness.sandbox.leftovers import socket_root
from harness.sandbox.runtime import TRIAL

DoorKind = Literal["socket", "relay"]

SOCKET_DIR = "/run/harness"
SOCKET_NAME = "gateway.sock"
CONNECT = f"import socket; socket.socket(socket.AF_UNIX).connect('{SOCKET_DIR}/{SOCKET_NAME}')"


def choose(
    wanted: Literal["auto", "socket", "relay"],
    client: docker.DockerClient,
    image: str,
    caller: Bundle | None,
    runtime: str,
    own_kernel: bool,
    say: Callable[[str], None],
) -> DoorKind:
    """The door of all runs that call a model. `caller` is the bundle of an agent that does; None: nobody does.

    Raises UserError for a socket that was asked for and can't be used.
    """
    if wanted == "relay":
        return "relay"
    if caller is None:
        return "socket"
    if wanted == "auto" and (away := daemon.elsewhere(client)):
        reason = f"Docker is on another machine: {away}"
    elif wanted == "auto" and own_kernel:
        reason = f"sandboxes of {runtime} have a kernel of their own"
    elif trouble := try_socket(client, image, caller, runtime):
        reason = f"a sandbox can't use a socket of this machine: {trouble}"
    else:
        return "socket"
    if wanted == "socket":
        raise UserError(f"--door socket: {reason}; take --door relay")
    say(f"door: relay, since {reason}")
    return "relay"


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
    with tempfile.TemporaryDirectory(prefix=owned.prefix(), dir=socket_root()) as private:
        folder = Path(private, "d")
        folder.mkdir()
        folder.chmod(0o755)
        yield folder
