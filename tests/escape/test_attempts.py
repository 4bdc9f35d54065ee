"""What an agent in a run gets of the kernel, the host, other runs and the gateway: nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import docker
import pytest
from command_line import Harness
from docker.errors import APIError
from places import Host, Other, Report, in_a_container, in_a_run

from harness.images.prepare import Prepared

pytestmark = [pytest.mark.docker, pytest.mark.network]

# The way as it is meant.
MEANT = {"the_model", "after_ten_thousand_connections", "a_forged_mark_of_the_work_directory"}

# What no container gets here whose only fault is to have too much.
NOWHERE = {
    "the_magic_key": "not every kernel has it",
    "sparing_oneself_when_memory_is_short": "Docker itself may not on this machine",
    "a_higher_limit_of_files": "Docker itself may not on this machine",
    "writing_to_the_framework": "it has to be mounted again first, which is the next attempt",
    "names_of_the_internet": "no server of names answers this machine",
    "a_route_to_the_internet": "this machine has no route",
    "a_route_to_the_internet_by_ipv6": "this machine has no route",
    "a_route_to_the_metadata_of_a_cloud": "this machine has no route",
    "a_service_of_the_host": "this machine has no address",
}
CAPABILITIES = [
    "SYS_ADMIN", "SYS_MODULE", "SYS_RAWIO", "SYS_PTRACE", "SYS_BOOT", "SYS_TIME", "SYS_NICE", "SYSLOG", "SYS_CHROOT",
    "SYS_PACCT", "NET_ADMIN", "NET_RAW", "DAC_READ_SEARCH",
]  # fmt: skip
SCARCE = [
    "SYS_RESOURCE",
    "BPF",
    "PERFMON",
]  # that Docker itself lacks in some virtual machines, and older ones don't know


@dataclass(frozen=True)
class Seen:
    row: dict[str, Any]
    report: Report
    visitors: list[str]  # of the host while the run went on


@pytest.fixture(scope="session")
def seen(door: str, host: Host, other_run: Other, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """One run in which everything is tried, while another run goes on."""
    before = len(host.visitors)
    row, report = in_a_run(
        Harness(tmp_path_factory.mktemp("escaping")),
        door,
        ["kernel", "network", "another", "door"],
        {**host.facts, **other_run.facts},
    )
    return Seen(row, report, host.visitors[before:])


def test_everything_that_is_tried_fails_and_is_seen(seen: Seen) -> None:
    wrong = [
        f"{name}: {attempt.got}, {attempt.came}"
        for name, attempt in seen.report.items()
        if attempt.got is not (name in MEANT)
    ]
    assert not wrong, "\n".join(wrong)
    assert len(seen.report) > 80


def test_nobody_came_to_the_host_or_to_the_other_run(seen: Seen, other_run: Other) -> None:
    assert seen.visitors == []
    assert other_run.visitors() == ""


def test_the_run_has_its_own_ending_and_its_calls_are_on_record(seen: Seen) -> None:
    assert (seen.row["ended_by"], seen.row["verdict"]) == ("submitted", "empty_patch"), seen.row["ended_detail"]
    assert seen.row["calls"] >= len(MEANT)


def test_without_its_protection_what_is_tried_of_the_kernel_succeeds(
    client: docker.DockerClient, prepared: Prepared
) -> None:
    volume = client.volumes.create(labels={"harness.kind": "test"})
    try:
        report = in_a_container(
            client, prepared.image, ["kernel"], {},
            cap_add=given(client, prepared.image),
            security_opt=["seccomp=unconfined", "apparmor=unconfined"],
            device_cgroup_rules=["b *:* rm", "c *:* rm"],
            network_mode="none",
            volumes={volume.name: {"bind": "/opt/agent", "mode": "ro"}},
        )  # fmt: skip
    finally:
        volume.remove()
    assert_got(report)


def test_without_its_protection_what_is_tried_of_the_host_succeeds(
    client: docker.DockerClient, prepared: Prepared, host: Host
) -> None:
    before = len(host.visitors)
    report = in_a_container(
        client, prepared.image, ["network"], host.facts,
        network_mode="host",
        pid_mode="host",
        volumes={"/var/run/docker.sock": {"bind": "/var/run/docker.sock", "mode": "ro"}},
    )  # fmt: skip
    assert_got(report)
    assert {"everywhere", "loopback", "abstract"} <= {*host.visitors[before:]} | (
        set() if report["a_service_of_the_host"].got else {"everywhere"}
    )


def test_without_its_protection_what_is_tried_of_another_sandbox_succeeds(
    client: docker.DockerClient, prepared: Prepared, other_container: Other
) -> None:
    there = f"container:{other_container.container.id}"
    facts = {**other_container.facts, "other_addresses": ["127.0.0.1"]}
    volume = client.volumes.create(labels={"harness.kind": "test"})
    try:
        report = in_a_container(
            client, prepared.image, ["another"], facts,
            network_mode=there, pid_mode=there, ipc_mode=there, volumes_from=[other_container.container.id],
            volumes={volume.name: {"bind": "/opt/agent", "mode": "rw"}},
        )  # fmt: skip
    finally:
        volume.remove()
    assert_got(report)
    assert other_container.visitors().count("somebody came") >= 2


def given(client: docker.DockerClient, image: str) -> list[str]:
    """The capabilities that Docker has to give here."""
    options = {"cap_add": CAPABILITIES + SCARCE, "network_mode": "none", "entrypoint": "", "remove": True}
    try:
        client.containers.run(image, ["true"], **options)
    except APIError:
        return CAPABILITIES
    return CAPABILITIES + SCARCE


def assert_got(report: Report) -> None:
    came = "\n".join(
        f"{name}: {attempt.came}" for name, attempt in report.items() if not attempt.got and name not in NOWHERE
    )
    assert not came, came
    assert report
