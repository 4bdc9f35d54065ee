"""A Docker daemon of the tests' own, on a disk of its own: it can be stopped, killed and filled unnoticed by others.

    with own_docker(size_bytes=4 << 30) as docker:
        docker.take("debian:bookworm-slim")     # from the daemon that the environment names
        harness.popen(..., DOCKER_HOST=docker.address)
        docker.stop(); docker.start()

It needs root. It has no bridge and touches no firewall; containers without a network run. Its network namespace is its
own: a daemon without a bridge takes away the interface docker0 that it finds, which is the machine's daemon's.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest

START_S = 60.0
STOP_S = 30.0
APART = (
    "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
    "sh", "-c", 'mount -t tmpfs none /run && exec "$@"', "sh",  # where this machine's containerd listens
)  # fmt: skip
NEEDED = ("dockerd", "docker", "mkfs.ext4", "mount", "setpriv", "unshare")


def missing() -> str | None:
    """Why there can be no daemon of the tests' own, or None."""
    if os.geteuid() != 0:
        return "a Docker daemon of the tests' own needs root"
    absent = [name for name in NEEDED if shutil.which(name) is None]
    return f"a Docker daemon of the tests' own needs {', '.join(absent)}" if absent else None


@contextlib.contextmanager
def disk(size_bytes: int, *, inodes: int | None = None, options: str = "loop") -> Iterator[Path]:
    """A mounted ext4 file system of a size, in a file, on a path that is short enough for sockets. Skips the test where
    none can be mounted."""
    folder = Path(tempfile.mkdtemp(prefix="own-disk-"))
    folder.chmod(0o711)  # a daemon that maps its containers' root to another user has to pass
    image, mounted = folder / "image", folder / "disk"
    mounted.mkdir()
    with image.open("wb") as file:
        file.truncate(size_bytes)
    number = ["-N", str(inodes)] if inodes else []
    try:
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", *number, str(image)], check=True)
        made = subprocess.run(["mount", "-o", options, str(image), str(mounted)], capture_output=True, text=True)
        if made.returncode != 0:
            pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")
        try:
            yield mounted
        finally:
            unmount(mounted)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def unmount(mounted: Path) -> None:
    deadline = time.monotonic() + STOP_S
    while subprocess.run(["umount", str(mounted)], capture_output=True).returncode != 0:
        if time.monotonic() > deadline:
            subprocess.run(["umount", "--lazy", str(mounted)], check=True)
            return
        time.sleep(0.2)


@dataclass
class OwnDocker:
    """The daemon. `address` is what DOCKER_HOST is set to, `root` the mounted file system that holds all it has."""

    folder: Path
    address: str
    root: Path
    options: Sequence[str] = ()
    apart: bool = False  # with process numbers of its own, as one on another machine has
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        for name in ("docker.pid", "exec/containerd/containerd.pid"):  # of those that were killed, zombies perhaps
            (self.folder / name).unlink(missing_ok=True)
        room = self.folder.name.replace("_", "0")  # a name may not end with one
        with (self.folder / "log").open("ab") as log:
            # It dies with the tests, and its containerd with it.
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", *(APART if self.apart else ()),
                 "setpriv", "--pdeathsig", "KILL", "dockerd", "--host", self.address,
                 "--data-root", str(self.root), "--exec-root", str(self.folder / "exec"),
                 "--pidfile", str(self.folder / "docker.pid"),
                 # Where a containerd runs already it is used, in rooms of its own.
                 "--containerd-namespace", room, "--containerd-plugins-namespace", f"{room}-p",
                 "--bridge", "none", "--iptables=false", "--ip-forward=false", "--ip-masq=false", *self.options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + START_S
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                said = (self.folder / "log").read_text(errors="replace").splitlines()[-5:]
                raise RuntimeError("the tests' own Docker did not start: " + " / ".join(said))
            time.sleep(0.1)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it: by SIGTERM its containers with it, by SIGKILL not."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL if self.apart else number)  # all that is apart dies with its first
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def answers(self) -> bool:
        try:
            client = docker.DockerClient(self.address, timeout=5)
            client.ping()
            client.close()
        except docker.errors.DockerException:
            return False
        except OSError:
            return False
        return True

    def client(self) -> docker.DockerClient:
        return docker.DockerClient(self.address, timeout=60)

    def take_volume(self, name: str) -> None:
        """Copy a volume, with its labels, from the daemon that the environment names."""
        source, target = docker.from_env(timeout=60), self.client()
        target.volumes.create(name, labels=source.volumes.get(name).attrs["Labels"])
        held = [
            api.create_container(
                "debian:bookworm-slim", ["true"],
                host_config=api.create_host_config(mounts=[docker.types.Mount("/v", name, type="volume")]),
            )["Id"]
            for api in (source.api, target.api)
        ]  # fmt: skip
        with tempfile.TemporaryFile() as file:
            file.writelines(source.api.get_archive(held[0], "/v/.")[0])
            file.seek(0)
            target.api.put_archive(held[1], "/v", file)
        for api, container in zip((source.api, target.api), held, strict=True):
            api.remove_container(container)

    def take(self, *images: str) -> None:
        """Copy images from the daemon that the environment names."""
        with subprocess.Popen(["docker", "save", *images], stdout=subprocess.PIPE) as saved:
            subprocess.run(
                ["docker", "--host", self.address, "load", "--quiet"], stdin=saved.stdout, check=True,
                stdout=subprocess.DEVNULL,
            )  # fmt: skip
        assert saved.returncode == 0, f"{', '.join(images)} can't be copied"


@contextlib.contextmanager
def own_docker(
    *,
    size_bytes: int = 4 << 30,
    inodes: int | None = None,
    address: str | None = None,
    options: Sequence[str] = (),
    apart: bool = False,
) -> Iterator[OwnDocker]:
    """A running daemon, gone at the end with all it had. `address` defaults to a socket in its folder; it may be
    tcp://127.0.0.1:PORT. `options` are more of dockerd's. Skips the test where there can be none."""
    if reason := missing():
        pytest.skip(reason)
    with disk(size_bytes, inodes=inodes) as root:
        folder = Path(tempfile.mkdtemp(prefix="own-docker-"))
        folder.chmod(0o711)
        daemon = OwnDocker(folder, address or f"unix://{folder}/docker.sock", root, options, apart)
        try:
            daemon.start()
            yield daemon
        finally:
            if daemon.process is not None and daemon.process.poll() is not None:
                with contextlib.suppress(RuntimeError):
                    daemon.start()  # it ends what it has left running
            if daemon.process is not None:
                daemon.stop()
            shutil.rmtree(folder, ignore_errors=True)
