"""Where a model server runs, by addresses that need no network."""

from __future__ import annotations

import os
import socket

import pytest

from harness.engines import location
from harness.engines.location import Location, in_container, of_addresses, of_url


@pytest.fixture
def listener() -> int:  # type: ignore[misc]
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_server_on_loopback_is_local_and_its_process_is_known(listener: int) -> None:
    found = of_url(f"http://localhost:{listener}/v1")
    assert found.word == "local"
    assert found.pids in ((os.getpid(),), ())  # () where connections are not shown to everybody


def test_a_name_that_does_not_resolve_is_elsewhere() -> None:
    assert of_url("http://nobody.invalid:11434").word == "remote"


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::1", "198.51.100.3"])
def test_another_machines_address_is_remote(address: str) -> None:
    assert of_addresses([address], 11434) == Location("remote", "its address is not this machine's")


def test_an_address_in_a_container_network_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import ipaddress

    networks = [ipaddress.ip_network("172.17.0.1/16", strict=False)]
    monkeypatch.setattr(location, "_interfaces", lambda: ({"172.17.0.1"}, networks))
    assert of_addresses(["172.17.0.5"], 11434).word == "container"
    assert of_addresses(["172.18.0.5"], 11434).word == "remote"
    assert of_addresses(["172.17.0.1"], 9).word == "local"


@pytest.mark.parametrize(
    ("cgroup", "expected"),
    [
        ("0::/system.slice/docker-0123456789ab.scope\n", True),
        ("4:memory:/docker/0123456789ab\n1:cpu:/docker/0123456789ab\n", True),
        ("0::/machine.slice/libpod-77.scope\n", True),
        ("0::/kubepods.slice/kubepods-burstable.slice/cri-containerd-1.scope\n", True),
        ("0::/system.slice/ollama.service\n", False),
        ("0::/user.slice/user-1000.slice\n", False),
        ("", False),
    ],
)
def test_a_container_is_known_by_its_control_group(cgroup: str, expected: bool) -> None:
    assert in_container(cgroup) is expected
