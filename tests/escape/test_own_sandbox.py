"""What an agent may do within its own sandbox, and that it gains nothing by it that the harness believes."""

from __future__ import annotations

import tarfile
import time
from pathlib import Path

import docker
import pytest
from command_line import Harness
from places import DOORS, agent, flags

from harness.images.prepare import Prepared
from harness.sandbox.container import MESSAGE_QUEUE_BYTES, PENDING_SIGNALS, Container, Limits, running, tar_of

pytestmark = [pytest.mark.docker, pytest.mark.network]

LIMITS = Limits(cpus=2, memory_bytes=512 << 20, disk_bytes=1 << 30, deadline_s=120)


def said(container: Container, *argv: str) -> str:
    heard = bytearray()
    exit_ = container.exec(argv, sink=heard.extend)
    assert exit_.code == 0, heard
    return heard.decode()


def test_what_the_kernel_says_of_a_process_in_a_sandbox(client: docker.DockerClient, prepared: Prepared) -> None:
    with running(client, prepared.image, kind="run", limits=LIMITS, files=tar_of({})) as container:
        for process in ("1", "self"):
            lines = said(container, "cat", f"/proc/{process}/status").splitlines()
            status = {name: value.strip() for name, value in (line.split(":", 1) for line in lines if ":" in line)}
            for capabilities in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                assert int(status[capabilities], 16) == 0
            assert status["NoNewPrivs"] == "1"
            assert status["Seccomp"] == "2"
        limits = said(container, "cat", "/proc/self/limits")
    found = {line[:26].strip(): line[26:].split()[:2] for line in limits.splitlines()}
    for name, most in {
        "Max open files": LIMITS.files,
        "Max pending signals": PENDING_SIGNALS,
        "Max msgqueue size": MESSAGE_QUEUE_BYTES,
        "Max file size": LIMITS.file_bytes,
        "Max core file size": 0,
    }.items():
        assert found[name] == [str(most), str(most)], name


WHO = "import os; print(os.getresuid()[1])"


@pytest.mark.parametrize(("hardened", "becomes"), [(True, "65534"), (False, "0")], ids=["run", "without"])
def test_a_setuid_program_gives_nobody_anything(
    client: docker.DockerClient, prepared: Prepared, hardened: bool, becomes: str
) -> None:
    """Planted by the agent as root, and started by somebody else."""
    plant = "cp $(readlink -f $(command -v python3)) /var/tmp/program && chmod u+s /var/tmp/program"
    with running(client, prepared.image, kind="run", limits=LIMITS, files=tar_of({}), hardened=hardened) as container:
        said(container, "sh", "-c", plant)
        found = client.containers.get(container.id)
        _, uid = found.exec_run(["/var/tmp/program", "-c", WHO], user="65534")
        assert uid.decode().strip() == becomes


TAMPERING = """
cp /opt/harness/*.* "$HARNESS_OUT_DIR/"
ask() {
    python3 - << 'END'
import os, urllib.request
try:
    print(urllib.request.urlopen(os.environ["OLLAMA_HOST"], timeout=5).status)
except OSError as error:
    print("no way:", error)
END
}
ask > "$HARNESS_OUT_DIR/before"
# All that lies there is rewritten, and the harness's own programs with it.
for file in task.json instruction.md forward.py watch.py multiplex.py; do
    echo 'raise SystemExit("taken over")' > /opt/harness/$file
done
echo 1 > /opt/harness/pid
# Where a grader would look, if it were this container that is graded.
mkdir -p /logs/verifier /tests && echo 1 > /logs/verifier/reward.txt && echo 'exit 0' > /tests/test.sh
for process in /proc/[0-9]*; do
    grep -q forward.py $process/cmdline 2> /dev/null && kill -KILL ${process#/proc/}
done
sleep 1
ask > "$HARNESS_OUT_DIR/after"
printf '{"status": "submitted", "message": "resolved", "details": {"input_tokens": 1, "verdict": "resolved"}}' \\
    > "$HARNESS_RESULT_FILE"
exit 0
"""


@pytest.mark.parametrize("door", DOORS)
def test_an_agent_that_takes_its_sandbox_over_gets_no_more_than_a_claim(tmp_path: Path, door: str) -> None:
    harness = Harness(tmp_path)
    path = agent(harness, "tampering", TAMPERING, {})
    model = harness.script({"text": "hello"})
    words = ["--tasks", "smoke", "--limit", "1", "--repeats", "2", *flags(door)]
    done = harness("sweep", "--agents", path, "--models", model, *words)
    assert done.code == 0, done.err
    rows = harness.rows("SELECT * FROM runs ORDER BY position")
    left = []
    for row in rows:
        assert (row["ended_by"], row["verdict"]) == ("submitted", "empty_patch"), row["ended_detail"]
        assert (row["claimed"], row["claim_message"]) == ("submitted", "resolved")
        assert (row["calls"], row["input_tokens"], row["attempt"]) == (0, 0, 1)
        [archive] = (harness.runs / row["sweep_id"] / row["run_id"]).glob("out.tar.gz")
        with tarfile.open(archive) as out:
            left.append({member.name: out.extractfile(member).read() for member in out if member.isfile()})
    for found in left:  # the second has all of it as the first had it
        assert (found["out/before"], found["out/after"][:7]) == (b"200\n", b"no way:")
        assert b"taken over" not in b"".join(
            content for name, content in found.items() if name.endswith((".py", ".md"))
        )
    assert left[0]["out/forward.py"] == left[1]["out/forward.py"]


ENDINGS = {
    "kills-its-first-process": ("kill -TERM 1; sleep 20", "crashed", "the agent ended its own sandbox"),
    "kills-everything": ("kill -KILL -1; sleep 20", "crashed", None),
    "kills-itself": ("kill -KILL $$; sleep 20", "crashed", None),
}


def test_who_ends_its_own_sandbox_has_crashed_and_is_not_tried_again(tmp_path: Path) -> None:
    """Not the machine's fault, for which a run counts for nothing."""
    harness = Harness(tmp_path)
    agents = [harness.agent(name, f"#!/bin/sh\n{script}\n") for name, (script, _, _) in ENDINGS.items()]
    began = time.monotonic()
    done = harness("sweep", "--agents", ",".join(agents), "--tasks", "smoke", "--limit", "1")
    assert done.code == 0, done.err
    rows = harness.rows("SELECT * FROM runs")
    assert len(rows) == len(ENDINGS)
    for row in rows:
        _, ended_by, detail = ENDINGS[row["agent"]]
        assert row["ended_by"] == ended_by, (row["agent"], row["ended_detail"])
        assert detail is None or row["ended_detail"] == detail
        assert (row["attempt"], row["verdict"]) == (1, "empty_patch")
    assert time.monotonic() - began < 60
