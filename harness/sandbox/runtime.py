"""What runs containers: Docker's runtimes by name, and what must be known of one that is not runc."""

from __future__ import annotations

import tarfile
from pathlib import Path

import docker

from harness.errors import UserError
from harness.sandbox.container import Limits, running, tar_of

RUNC = ("runc", "io.containerd.runc.v2")
BOOT = Path("/proc/sys/kernel/random/boot_id")
WRITTEN = "/var/harness-trial"
TRY = f"echo written > {WRITTEN}; cat {BOOT}"
TRIAL = Limits(cpus=1, memory_bytes=256 << 20, disk_bytes=1 << 30, deadline_s=60)


def find_runtime(client: docker.DockerClient, wanted: str | None) -> str:
    """The runtime's name. Raises UserError for one that Docker has not."""
    info = client.info()
    if wanted is None:
        return str(info["DefaultRuntime"])
    if wanted not in info["Runtimes"]:
        raise UserError(
            f"--runtime {wanted}: Docker has no such runtime, it has {', '.join(sorted(info['Runtimes']))}: name one "
            'of these, or add it to "runtimes" in /etc/docker/daemon.json and restart Docker'
        )
    return wanted


def has_own_kernel(client: docker.DockerClient, image: str, runtime: str) -> bool:
    """Whether containers have a kernel of their own (gVisor, Kata), so that their processes are none of this machine's.

    Raises UserError where what they write can't be read once they are dead, as a patch is; SandboxError where none
    starts.
    """
    if runtime in RUNC:
        return False
    said = bytearray()
    with running(
        client, image, kind="probe", limits=TRIAL, files=tar_of({}), runtime=runtime
    ) as container:  # fmt: skip
        container.exec(["sh", "-c", TRY], sink=said.extend)
        container.kill()
        try:
            with container.archive(WRITTEN, limit_bytes=1 << 20) as archive, tarfile.open(fileobj=archive) as tar:
                kept = tar.next() is not None
        except FileNotFoundError:
            kept = False
    if not kept:
        raise UserError(
            f"--runtime {runtime}: what its containers write can't be read when they are dead, so no patch could be "
            "taken: have it write through (gVisor: --overlay2=none among its runtimeArgs)"
        )
    return bytes(said).strip() != BOOT.read_bytes().strip()
