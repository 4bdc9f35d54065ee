"""A sandbox's list of system calls against the one of the Docker that is here."""

from __future__ import annotations

from pathlib import Path

import docker
import pytest

from harness.images.prepare import Prepared
from harness.sandbox.container import Container, Limits, running, tar_of

pytestmark = [pytest.mark.docker, pytest.mark.network]

INSIDE = Path(__file__).with_name("inside")
LIMITS = Limits(cpus=2, memory_bytes=512 << 20, disk_bytes=1 << 30, deadline_s=120)

IO_URING = {425, 426, 427}  # everywhere
ASYNCHRONOUS_IO = {"x86_64": {206, 207, 208, 209, 210, 333}, "aarch64": {0, 1, 2, 3, 4, 292}}
# What a kernel has had since Docker 20.10, whose list ends at 450, and a newer Docker's list has too.
NEWER = {451, 452, 453, 454, 455, 456, 462, 463, 464, 465, 466}


def said(container: Container, *argv: str) -> str:
    heard = bytearray()
    exit_ = container.exec(argv, sink=heard.extend)
    assert exit_.code == 0, heard
    return heard.decode()


def refused_by_docker(client: docker.DockerClient, image: str, *options: str) -> set[int]:
    """Without capabilities, so that seccomp makes all the difference to a sandbox."""
    printed = client.containers.run(
        image,
        ["python3", "-c", (INSIDE / "system_calls.py").read_text()],
        entrypoint="",
        network_mode="none",
        cap_drop=["ALL"],
        security_opt=["no-new-privileges", *options],
        remove=True,
    )
    return set(map(int, printed.split()))


def test_a_sandbox_refuses_what_docker_refuses_and_more(client: docker.DockerClient, prepared: Prepared) -> None:
    files = tar_of({"/calls.py": INSIDE / "system_calls.py"})
    with running(client, prepared.image, kind="run", limits=LIMITS, files=files) as container:
        refused = set(map(int, said(container, "python3", "/calls.py").split()))
        machine = said(container, "uname", "-m").strip()
    assert refused_by_docker(client, prepared.image) - refused <= NEWER
    assert refused >= IO_URING | ASYNCHRONOUS_IO[machine]
    # Nothing here is refused by the kernel anyway, which would make all of this true of any list.
    free = refused_by_docker(client, prepared.image, "seccomp=unconfined")
    assert not free & (IO_URING | ASYNCHRONOUS_IO[machine])


@pytest.mark.parametrize("hardened", [True, False], ids=["run", "grade"])
def test_a_socket_past_the_network_to_the_hypervisor_is_refused(
    client: docker.DockerClient, prepared: Prepared, hardened: bool
) -> None:
    """AF_VSOCK knows no network namespaces: where the kernel has it, Docker 20.10 lets everybody make one."""
    attempt = "import socket\ntry: print(socket.socket(socket.AF_VSOCK))\nexcept OSError as error: print(error.errno)"
    with running(client, prepared.image, kind="run", limits=LIMITS, files=tar_of({}), hardened=hardened) as container:
        assert said(container, "python3", "-c", attempt).split() == ["1"]


def test_what_tests_of_a_repository_may_need_is_let_through_when_grading(
    client: docker.DockerClient, prepared: Prepared
) -> None:
    """As far as Docker's own list lets it: another root, another owner, a raw socket, a node, a thread, a child."""
    with running(client, prepared.image, kind="grade", limits=LIMITS, files=tar_of({}), hardened=False) as container:
        said(container, "sh", "-c", "chroot / true && touch /x && chown nobody /x && mknod /y c 1 3 && setsid true")
        said(container, "python3", "-c", "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)")
        said(container, "python3", "-c", "import threading; t = threading.Thread(target=print); t.start(); t.join()")
