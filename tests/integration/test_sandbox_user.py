"""Agents as a user who is not root: what it may and may not, the same patch, the same grading."""

from __future__ import annotations

import hashlib
import json
import tarfile
import tempfile
from pathlib import Path

import docker
import pytest

from harness.images.prepare import BASE_LABEL
from harness.images.unrooted import HOME, UID
from harness.sandbox.daemon import connect

pytestmark = pytest.mark.docker

TASK = "cinema-seats-off-by-one"

# What it is, what is its own, and what it must not be able to change; then a change of every kind.
LOOK = """
{ id -u; id -g; id -un; echo "$HOME"; } > "$HARNESS_OUT_DIR/who"
for place in "$HOME" . .git boxoffice "$HARNESS_OUT_DIR" /tmp; do
    touch "$place/probe" && rm "$place/probe" && echo "$place" >> "$HARNESS_OUT_DIR/mine"
done
for place in / /etc /usr/bin /root /opt /opt/harness /opt/harness/agent; do
    touch "$place/probe" 2> /dev/null && echo "$place" >> "$HARNESS_OUT_DIR/taken"
done
touch "$HARNESS_OUT_DIR/taken"
git status --porcelain > "$HARNESS_OUT_DIR/status" || exit 1
echo new > new.txt
printf '#!/bin/sh\\n' > run.sh && chmod 755 run.sh
rm README.md
ln -s new.txt link
mkdir deep && echo in > deep/file
"""


def without_root(agent: str) -> str:
    manifest = Path(agent) / "agent.toml"
    manifest.write_text(manifest.read_text() + "non_root = true\n")
    return agent


def test_what_is_its_own_and_what_is_not(harness) -> None:  # type: ignore[no-untyped-def]
    agent = without_root(harness.agent("looks", LOOK))
    done = harness("sweep", "--agents", agent, "--only", TASK, "--sandbox-user", "agent", "--json")
    assert done.code == 0, done.err
    [row] = harness.rows("SELECT * FROM runs")
    assert (row["sandbox_user"], row["exit_code"]) == ("agent", 0)
    assert harness.left("who").split() == [str(UID), str(UID), "agent", HOME]
    assert harness.left("mine").split() == [HOME, ".", ".git", "boxoffice", "/opt/harness/out", "/tmp"]
    assert (harness.left("taken"), harness.left("status")) == ("", "")
    [as_agent] = harness.rows("SELECT sha256 FROM artefacts WHERE name = 'patch.diff'")
    done = harness("sweep", "--agents", agent, "--only", TASK, "--json")
    assert done.code == 0, done.err
    both = harness.rows("SELECT sha256 FROM artefacts WHERE name = 'patch.diff'")
    assert both == [as_agent, as_agent]  # whoever made it, the same patch
    rules = [json.loads(sweep["resolved"])["rules"]["sandbox_user"] for sweep in harness.rows("SELECT * FROM sweeps")]
    assert sorted(rules) == ["agent", "root"]


def test_a_limit_reaches_what_runs_as_another_user(harness) -> None:  # type: ignore[no-untyped-def]
    script = "trap 'echo asked > \"$HARNESS_OUT_DIR/asked\"; exit 0' TERM\nwhile :; do sleep 0.1; done\n"
    agent = without_root(harness.agent("stays", script))
    words = ("--only", TASK, "--sandbox-user", "agent", "--time-limit", "2")
    assert harness("sweep", "--agents", agent, *words).code == 0
    [row] = harness.rows("SELECT * FROM runs")
    assert row["ended_by"] == "timeout"
    assert harness.left("asked") == "asked\n"


def test_an_agent_that_needs_root_is_refused_by_name(harness) -> None:  # type: ignore[no-untyped-def]
    agent = harness.agent("rooted", "true\n")
    done = harness("sweep", "--agents", agent, "--only", TASK, "--sandbox-user", "agent")
    assert (done.code, "agent rooted" in done.err, "non_root in its agent.toml" in done.err) == (2, True, True)
    done = harness("sweep", "--agents", agent, "--only", TASK, "--sandbox-user", "nobody")
    assert (done.code, "--sandbox-user: expected 'root' or 'agent'" in done.err) == (2, True)


def test_images_are_what_their_digests_say(harness) -> None:  # type: ignore[no-untyped-def]
    assert harness("sweep", "--agents", "oracle", "--only", TASK, "--sandbox-user", "agent").code == 0
    [row] = harness.rows("SELECT * FROM runs")
    [graded_in] = [grade["image_digest"] for grade in harness.rows("SELECT * FROM grades")]
    assert row["verdict"] == "resolved"
    client = connect()
    task, graded, sandbox = (
        client.images.get(digest) for digest in (row["task_image_digest"], graded_in, row["image_digest"])
    )
    assert len({task.id, graded.id, sandbox.id}) == 3
    assert graded.labels[BASE_LABEL] == sandbox.labels[BASE_LABEL] == task.id
    layers = [image.attrs["RootFS"]["Layers"] for image in (task, graded, sandbox)]
    assert layers[1][: len(layers[0])] == layers[0]
    assert layers[2] == [*layers[1], layers[2][-1]]
    assert hashed(sandbox) == row["image_digest"]
    # Graded as it would be after an agent that was root, and found to be the same image when it is graded again.
    again = harness("grade", "--again", "--json")
    assert [grade["notes"] for grade in again.json()["runs"]] == [[]]
    assert {grade["image_digest"] for grade in harness.rows("SELECT * FROM grades")} == {graded_in}


def hashed(image: docker.models.images.Image) -> str:
    """An image's digest by its content, as it is saved: of its configuration, which holds those of its layers."""
    with tempfile.TemporaryFile() as file:
        file.writelines(image.save(chunk_size=1 << 20))
        file.seek(0)
        with tarfile.open(fileobj=file) as tar:
            [about] = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
            config = tar.extractfile(about["Config"]).read()  # type: ignore[union-attr]
            found = [hashlib.file_digest(tar.extractfile(layer), "sha256").hexdigest() for layer in about["Layers"]]  # type: ignore[arg-type]
    assert json.loads(config)["rootfs"]["diff_ids"] == [f"sha256:{layer}" for layer in found]
    return f"sha256:{hashlib.sha256(config).hexdigest()}"
