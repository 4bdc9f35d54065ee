"""A stand-in for a published image (its layout, a set-up commit, the future still in it) becomes what an agent gets."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from harness.images import locate
from harness.images.bases import ensure_base
from harness.images.prepare import Prepared
from harness.sandbox import history
from harness.sandbox.command import SandboxError
from harness.sandbox.container import Container, Limits, running
from harness.sandbox.daemon import KIND, connect
from harness.sandbox.removal import wait_for_removals
from harness.suites.swebench import SweBenchTask

pytestmark = [pytest.mark.docker, pytest.mark.network]

LIMITS = Limits(cpus=1, memory_bytes=512 << 20, disk_bytes=1 << 30, deadline_s=120)
NAME = "harness-test/sweb.eval.{arch}.{id}:latest"

# As SWE-bench's images are: conda below /opt, the repository with a commit "SWE-bench" above its base commit, and, as
# some of them still are, later commits behind a tag, a remote, a stash and a reflog.
DOCKERFILE = """
FROM debian:bookworm-slim
RUN apt-get update -qq && apt-get install -qq --no-install-recommends git python3 >/dev/null
RUN mkdir -p /opt/miniconda3/envs/testbed/bin /opt/miniconda3/condabin \\
 && printf '#!/bin/sh\\nexec /usr/bin/python3 "$@"\\n' > /opt/miniconda3/envs/testbed/bin/python \\
 && chmod +x /opt/miniconda3/envs/testbed/bin/python
WORKDIR /testbed
RUN git init -q -b main . && git config user.name a && git config user.email a@example.org \\
 && echo 'build/' > .gitignore && echo old > code.py && mkdir build && echo tracked > build/kept.txt \\
 && git add -A && git add -f build/kept.txt && git commit -qm base \\
 && echo 'the fix' > code.py && git commit -qam future && git tag v2 && git reset -q --hard HEAD~1 \\
 && echo 'pytest -rA' > tox.ini && git add -A && git commit -qm SWE-bench \\
 && git remote add origin https://example.org/r.git && echo wip > code.py && git stash -q && git gc -q \\
 && echo left > build/left-over.o && echo untracked > notes.txt
"""


@pytest.fixture(scope="module")
def client() -> docker.DockerClient:
    return connect()


@pytest.fixture(scope="module")
def task() -> SweBenchTask:
    return SweBenchTask(
        suite="stand-in", name="a__a-1", instruction="", test_timeout_s=60, cpus=None, memory_bytes=None,
        storage_bytes=None, workdir="/testbed", metadata={}, solution_env={}, repo="a/a", version="1",
        base_commit="0" * 40, gold_patch="", test_patch="", fail_to_pass=(), pass_to_pass=(), published_image=NAME,
        log_parser="parse_log_pytest", before=(), command="pytest", hosts=(), content_hash="0",
    )  # fmt: skip


@pytest.fixture(scope="module")
def prepared(
    client: docker.DockerClient, task: SweBenchTask, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prepared]:
    context = tmp_path_factory.mktemp("context")
    (context / "Dockerfile").write_text(DOCKERFILE)
    ensure_base(client, "debian:bookworm-slim", print)
    arch = {"amd64": "x86_64"}.get(client.version()["Arch"], client.version()["Arch"])
    tag = NAME.replace("{arch}", arch).replace("{id}", "a_1776_a-1")
    client.images.build(path=str(context), tag=tag, rm=True, labels={KIND: ""})
    found = locate.find(client, task)
    assert found is not None
    assert (found.source, found.origin) == ("published", None)  # no registry gave it a digest
    yield locate.prepare_one(client, task, found, print)
    client.images.remove(tag, force=True)


@pytest.fixture
def container(client: docker.DockerClient, prepared: Prepared) -> Iterator[Container]:
    with running(client, prepared.image, kind="run", limits=LIMITS, files=b"\0" * 1024) as started:
        yield started
    wait_for_removals()


def said(container: Container, *argv: str) -> str:
    output = bytearray()
    container.begin(argv, workdir="/testbed", sink=output.extend).wait(30)
    return output.decode()


def test_the_agent_gets_the_state_above_the_base_commit_as_its_only_commit(container: Container) -> None:
    assert said(container, "git", "log", "--all", "--format=%s") == "base\n"
    assert said(container, "git", "ls-files").split() == [
        ".gitignore",
        "build/kept.txt",
        "code.py",
        "notes.txt",
        "tox.ini",
    ]
    assert said(container, "cat", "tox.ini", "code.py") == "pytest -rA\nold\n"
    assert said(container, "git", "status", "--porcelain") == ""
    for words in (("tag",), ("remote",), ("reflog",), ("stash", "list"), ("fsck", "--lost-found")):
        assert said(container, "git", *words) == "", words
    objects = said(container, "sh", "-c", "git cat-file --batch-all-objects --batch-check | cut -d' ' -f1")
    contents = [said(container, "git", "cat-file", "-p", name) for name in objects.split()]
    assert len(contents) == 8  # a commit, two trees, five files
    assert not [text for text in contents if "the fix" in text or "wip" in text]


@pytest.mark.parametrize("shell", [["bash", "-c"], ["sh", "-c"], ["bash", "--norc", "-c"]])
def test_every_shell_has_the_environment(container: Container, shell: list[str]) -> None:
    assert said(container, *shell, "command -v python") == "/opt/miniconda3/envs/testbed/bin/python\n"
    assert said(container, *shell, "echo $CONDA_DEFAULT_ENV $CONDA_PREFIX") == "testbed /opt/miniconda3/envs/testbed\n"


def test_the_check_passes_on_what_was_cut(container: Container, prepared: Prepared) -> None:
    history.check(container, prepared.workdir, prepared.base)


@pytest.mark.parametrize(
    "damage",
    [
        "git tag later",
        "git -c user.name=a -c user.email=a commit -q --allow-empty -m more",
        "echo x | git hash-object -w --stdin",
        "git config remote.origin.url https://example.org/r.git",
        "mkdir .git/hooks; echo true > .git/hooks/post-checkout",
        "ln -s /elsewhere .git/objects/info-alternates",
        "rm -rf .git",
    ],
)
def test_anything_else_in_the_repository_fails_the_check(container: Container, prepared: Prepared, damage: str) -> None:
    said(container, "sh", "-c", damage)
    with pytest.raises(SandboxError, match="is not the one commit that its history was cut to"):
        history.check(container, prepared.workdir, prepared.base)


def test_an_image_that_is_not_here_is_asked_for_in_one_sentence(client, task: SweBenchTask, tmp_path: Path) -> None:
    from harness.errors import UserError

    missing = [dataclasses.replace(task, name=f"b__b-{n}", suite="mine") for n in range(3)]
    with pytest.raises(UserError) as raised:
        locate.locate(client, missing, tmp_path, print)
    assert "the images of 3 of 3 tasks are not here (b__b-0 and 2 more), and a sweep fetches none" in str(raised.value)
    assert (
        "`harness tasks pull FOLDER-OF-mine` where Docker Hub answers, else `harness tasks build FOLDER-OF-mine`"
        in str(raised.value)
    )
