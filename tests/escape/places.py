"""Where attempts are made: in a run of the harness, and in containers without what protects."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
from command_line import Harness

from harness.sandbox.container import tar_of

INSIDE = Path(__file__).with_name("inside")
DOORS = ("socket", "relay")
# Another runtime of containers than Docker's own, to try these attempts under it.
RUNTIME = os.environ.get("HARNESS_TESTS_RUNTIME", "")

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Attempt:
    got: bool | None  # None: the attempt itself failed, and nothing is shown
    came: str


Report = dict[str, Attempt]


@dataclass
class Host:
    """What this machine could be known by from a sandbox, and who came."""

    facts: dict[str, Any]
    visitors: list[str] = field(default_factory=list)


@dataclass
class Other:
    """A run that goes on beside, of a harness of its own or without one."""

    container: Any
    facts: Facts

    def visitors(self) -> str:
        return str(self.container.exec_run(["cat", "/root/visitors"])[1].decode())


def read(lines: str) -> Report:
    attempts = [json.loads(line) for line in lines.splitlines()]
    return {each["attempt"]: Attempt(each["got"], each["came"]) for each in attempts}


def flags(door: str) -> list[str]:
    """Of a sweep."""
    return ["--door", door, *(["--runtime", RUNTIME] if RUNTIME else [])]


def agent(harness: Harness, name: str, command: str, facts: Facts) -> str:
    """An agent's folder that runs one command there, with everything in `inside` beside it; its path for --agents."""
    script = f"""#!/bin/sh
cd "$(dirname "$0")" || exit
export PYTHONDONTWRITEBYTECODE=1
{command}
echo '{{"status": "submitted"}}' > "$HARNESS_RESULT_FILE"
"""
    folder = harness.agent(name, script, calls_model=True)
    shutil.copytree(INSIDE, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    Path(folder, "facts.json").write_text(json.dumps(facts))
    return folder


def in_a_run(
    harness: Harness, door: str, modules: Sequence[str], facts: Facts, *more: str
) -> tuple[dict[str, Any], Report]:
    """The row of a run whose agent makes the attempts of some modules, and what came of them."""
    command = f'python3 attempts.py {" ".join(modules)} > "$HARNESS_OUT_DIR/attempts.jsonl"'
    path = agent(harness, "escaping", command, facts)
    model = harness.script({"text": "hello"}, when_exhausted="repeat")
    tasks = more or ("--tasks", "smoke", "--limit", "1")
    done = harness("sweep", "--agents", path, "--models", model, *tasks, *flags(door), "--retries", "0")
    assert done.code == 0, done.err
    [row] = harness.rows("SELECT * FROM runs")
    return row, read(harness.left("attempts.jsonl"))


def in_a_container(
    client: docker.DockerClient, image: str, modules: Sequence[str], facts: Facts, **options: Any
) -> Report:
    """What comes of the attempts of some modules in a container with Docker's options and no other protection."""
    container = client.containers.create(image, ["sleep", "300"], entrypoint="", user="root", **options)
    try:
        entries: dict[str, Any] = {f"/attempts/{file.name}": file for file in INSIDE.glob("*.py")}
        container.put_archive("/", tar_of({**entries, "/attempts/facts.json": json.dumps(facts).encode()}))
        container.start()
        code, said = container.exec_run(["python3", "-B", "/attempts/attempts.py", *modules], stderr=False)
        assert code == 0, said
        return read(said.decode())
    finally:
        container.remove(force=True, v=True)


def until(true: Any, patience_s: float = 60.0) -> None:
    deadline = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)


def host_addresses() -> list[str]:
    """All of this machine's but those of the loopback."""
    listing = json.loads(subprocess.run(["ip", "-json", "address"], capture_output=True, check=True).stdout)
    return [
        address["local"]
        for link in listing
        for address in link["addr_info"]
        if address["scope"] == "global" and link["ifname"] != "lo"
    ]
