"""One container's life, on a real engine."""

from __future__ import annotations

import gc
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.errors import NotFound

from harness.images.bases import ensure_base
from harness.images.prepare import prepare
from harness.sandbox import leftovers
from harness.sandbox.archive import Limited
from harness.sandbox.command import SandboxError
from harness.sandbox.container import Container, Limits, running, tar_of
from harness.sandbox.daemon import KIND, OWNER, connect, owner, owner_lives
from harness.sandbox.relay import attach
from harness.sandbox.removal import wait_for_removals

pytestmark = [pytest.mark.docker, pytest.mark.network]

BASE = "debian:bookworm-slim"
MB = 1 << 20
LIMITS = Limits(cpus=1, memory_bytes=256 * MB, disk_bytes=1 << 30, deadline_s=60, tmp_bytes=8 * MB, file_bytes=16 * MB)


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    client = connect()
    ensure_base(client, BASE, print)
    yield client
    wait_for_removals()


def output(container: Container, script: str) -> tuple[int | None, str]:
    heard = bytearray()
    exit_ = container.exec(["sh", "-c", script], sink=heard.extend)
    return exit_.code, heard.decode()


def test_files_go_in_and_come_out_also_of_a_dead_container(client: docker.DockerClient) -> None:
    files = tar_of({"/box/a.txt": b"hello", "/box/run.sh": (b"#!/bin/sh\necho ran\n", 0o755), "/box/empty": None})
    with running(client, BASE, kind="run", limits=LIMITS, files=files) as container:
        assert output(container, "cat /box/a.txt; /box/run.sh; ls -d /box/empty") == (0, "helloran\n/box/empty\n")
        assert output(container, "exit 9")[0] == 9
        container.kill()
        container.kill()  # a dead one is no error
        with tarfile.open(fileobj=container.archive("/box", 1 << 20)) as tar:
            assert {member.name for member in tar} >= {"box/a.txt", "box/run.sh"}
        with pytest.raises(FileNotFoundError):
            container.archive("/nowhere", 1 << 20)


def test_no_file_is_held_open_for_a_command_that_has_ended(client: docker.DockerClient) -> None:
    """Also where no garbage is collected: a sweep of days makes many thousands of them."""

    def do_all(container: Container) -> int:
        for _ in range(10):
            assert output(container, "echo x")[0] == 0
            attach(container, ["cat"]).close()
            with tarfile.open(fileobj=Limited(container.stream("/etc/apt"), MB), mode="r|") as tar:
                assert len(list(tar)) > 1
        return len(list(Path("/proc/self/fd").iterdir()))

    gc.collect()
    gc.disable()
    try:
        with running(client, BASE, kind="run", limits=LIMITS, files=tar_of({})) as container:
            first = do_all(container)
            assert do_all(container) <= first + 2  # the pool of connections may have got one more
    finally:
        gc.enable()


def test_it_is_removed_when_the_work_in_it_fails(client: docker.DockerClient) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        running(client, BASE, kind="run", limits=LIMITS, files=tar_of({})) as container,
    ):
        raise ZeroDivisionError
    wait_for_removals()
    with pytest.raises(NotFound):
        client.containers.get(container.id)


def test_it_ends_by_itself_at_its_deadline(client: docker.DockerClient) -> None:
    short = Limits(**{**vars(LIMITS), "deadline_s": 1})
    with running(client, BASE, kind="run", limits=short, files=tar_of({})) as container:
        deadline = time.monotonic() + 10
        while container.alive() and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not container.alive()
        with pytest.raises(SandboxError):
            container.exec(["true"])


def test_sizes_are_limited(client: docker.DockerClient) -> None:
    with running(client, BASE, kind="run", limits=LIMITS, files=tar_of({})) as container:
        code, said = output(container, "head -c 9m /dev/zero > /tmp/full")
        assert code != 0
        assert "No space left" in said
        _, said = output(container, "head -c 20m /dev/zero > /root/large; wc -c < /root/large")
        assert said.split()[-1] == str(16 * MB)
        written = container.written_bytes()
        assert written is not None
        assert written >= 16 * MB


def test_a_command_whose_container_is_killed_gives_an_exit_without_a_code(client: docker.DockerClient) -> None:
    with running(client, BASE, kind="run", limits=LIMITS, files=tar_of({})) as container:
        exits = []
        thread = threading.Thread(target=lambda: exits.append(container.exec(["sleep", "60"])))
        thread.start()
        time.sleep(0.5)
        container.kill()
        thread.join(10)
        assert [exit_.code for exit_ in exits] == [None]


def test_only_what_a_dead_harness_left_is_a_leftover(client: docker.DockerClient, tmp_path: Path) -> None:
    host, user, namespace, pid, started = owner().split("/")
    assert owner_lives(owner())
    assert not owner_lives(f"{host}/{user}/{namespace}/{pid}/1")
    assert not owner_lives(f"{host}/{user}/{namespace}/999999999/{started}")
    assert not owner_lives(None)
    assert owner_lives(f"elsewhere/{user}/{namespace}/{pid}/1")  # it can't be seen from here, so it is not ours
    dead, strange = [
        client.api.create_container(BASE, ["true"], labels=labels)["Id"]
        for labels in ({KIND: "run", OWNER: f"{host}/{user}/{namespace}/999999999/1"}, {"somebody": "else"})
    ]
    try:
        with running(client, BASE, kind="run", limits=LIMITS, files=tar_of({})) as mine:
            found = leftovers.find(client)
            assert dead in found.containers
            assert strange not in found.containers
            assert mine.id not in found.containers
            leftovers.remove(client, found)
            assert mine.alive()
        with pytest.raises(NotFound):
            client.containers.get(dead)
        client.containers.get(strange)
    finally:
        client.api.remove_container(strange, force=True)


def test_history_is_cut_to_one_commit_and_the_old_one_is_out_of_reach(
    client: docker.DockerClient, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text(
        f"FROM {BASE}\n"
        "RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends git >/dev/null\n"
        "WORKDIR /testbed\n"
        "RUN git init -q && git config user.email a@b.c && git config user.name a && echo '*.log' > .gitignore"
        " && echo secret-fix > fix.py && git add -A && git commit -qm future && git tag v2"
        " && echo before > fix.py && echo x > debug.log && git commit -qam base"
        " && git remote add origin https://example.invalid/x.git\n"
    )
    image, _ = client.images.build(path=str(tmp_path), tag="harness-test/history", rm=True, labels={KIND: "build"})
    prepared = prepare(client, str(image.id), "history")
    again = prepare(client, str(image.id), "history")
    assert again.image == prepared.image
    # A person's own container of our image carries nothing that would have it removed.
    theirs = client.api.create_container(prepared.image, ["true"])["Id"]
    try:
        assert theirs not in leftovers.find(client).containers
    finally:
        client.api.remove_container(theirs)
    with running(client, prepared.image, kind="run", limits=LIMITS, files=tar_of({})) as container:
        script = (
            "cd /testbed; git rev-list --all --count; git tag; git remote; git status --porcelain; cat fix.py; "
            "git fsck --unreachable --no-reflogs 2>/dev/null; git stash list; grep -rl secret-fix . ; "
            "git cat-file --batch-all-objects --batch-check | wc -l"
        )
        code, said = output(container, script)
        # One commit, one tree, two files; nothing else is printed on the way.
        assert (code, said.split()) == (0, ["1", "before", "4"])
        container.exec(["sh", "-c", "cd /testbed; echo after > fix.py; echo y > debug.log; git commit -qam x"])
        container.kill()
        patch = prepared.base.difference(Limited(container.stream("/testbed"), 1 << 30)).patch.decode()
    assert "+after" in patch
    assert "debug.log" not in patch
