"""The two doors, in real sandboxes: what an agent meets is the same through both."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile

import pytest

pytestmark = [pytest.mark.docker, pytest.mark.network]

AGENT = """
import json, os, signal, time, urllib.error, urllib.request
from pathlib import Path

def ask(text, stream=False, timeout=20):
    body = {"model": os.environ["HARNESS_MODEL"], "messages": [{"role": "user", "content": text}], "stream": stream}
    request = urllib.request.Request(
        os.environ["OPENAI_BASE_URL"] + "/chat/completions", json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]},
    )
    return urllib.request.urlopen(request, timeout=timeout)

seen = {}
with ask("begin", stream=True) as answer:  # which never ends
    seen["first"] = answer.read(20).decode()
    left = time.monotonic()
with ask("after") as answer:
    seen["after"] = json.load(answer)["choices"][0]["message"]["content"]
    seen["after_s"] = time.monotonic() - left
with ask("slow", stream=True) as answer:  # ten words, a fifth of a second apart
    came = [time.monotonic() for line in answer if b"word" in line]
    seen["spread_s"] = came[-1] - came[0]
with ask("x" * 15_000_000) as answer:
    seen["large"] = answer.status
Path(os.environ["HARNESS_OUT_DIR"], "seen.json").write_text(json.dumps(seen))
for folder in Path("/proc").glob("[0-9]*"):
    if b"forward.py" in (folder / "cmdline").read_bytes():
        os.kill(int(folder.name), signal.SIGKILL)
time.sleep(0.5)
ask("nobody")
"""


@pytest.mark.parametrize("door", ["socket", "relay"])
def test_an_agent_meets_the_same_through_both_doors(harness, door: str) -> None:
    agent = harness.agent("asker", AGENT, calls_model=True, runner="run.py")
    model = harness.script(
        {"text": "again ", "fault": "endless"},
        {"text": "after"},
        {"text": "word " * 10, "chunk_words": 1, "delay_s": 0.2},
        {"text": "large"},
        context_tokens=8_000_000,
    )
    done = harness(
        "sweep", "--agents", agent, "--models", model, "--tasks", "smoke", "--limit", "1", "--door", door,
        "--num-ctx", "8000000", "--retries", "0", "--runtime", "runc",
    )  # fmt: skip
    assert done.code == 0, done.out + done.err
    [row] = harness.rows("SELECT * FROM runs")
    assert (row["door"], row["runtime"]) == (door, "runc")
    seen = json.loads(harness.left("seen.json"))
    assert seen["first"].startswith("data: ")
    assert seen["after"] == "after"
    assert seen["after_s"] < 1.0  # the endless answer was given up by then
    assert seen["spread_s"] > 1.0  # words came as they were said
    assert seen["large"] == 200
    calls = harness.rows("SELECT status, request_bytes FROM calls ORDER BY call_index")
    assert [call["status"] for call in calls] == ["aborted", "ok", "ok", "ok"]
    assert calls[3]["request_bytes"] > 15_000_000
    # Without its forwarder the agent has lost its model: its own doing.
    assert (row["ended_by"], row["ended_detail"]) == ("crashed", "the runner ended with exit code 1")
    ended = "way_ended: the forwarder in the sandbox was ended"
    assert (ended in json.loads(row["flags"])) == (door == "relay")
    assert not harness.containers()


@pytest.mark.skipif(os.getuid() != 0 or shutil.which("unshare") is None, reason="a mount of its own needs root")
def test_where_a_socket_is_not_shared_the_relay_is_taken_or_the_socket_refused(harness) -> None:
    """As with Docker Desktop: what the harness has in its temporary folder, Docker does not see."""
    agent = harness.agent("caller", "import json, os\n", calls_model=True, runner="run.py")
    sweep = ["sweep", "--agents", agent, "--models", harness.script({"text": "x"}), "--tasks", "smoke", "--limit", "1",
             "--idle", "0"]  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="hd-") as hidden:  # short, as paths of sockets have to be
        apart = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs none {hidden} && exec "$@"', "sh"]
        said = [
            subprocess.run(
                [*apart, sys.executable, "-m", "harness", *sweep, "--door", door], cwd=harness.folder, check=False,
                capture_output=True, text=True, env=os.environ | {"TMPDIR": hidden},
            )
            for door in ("auto", "socket")
        ]  # fmt: skip
    assert said[0].returncode == 0, said[0].stderr
    assert "door: relay, since a sandbox can't use a socket of this machine" in said[0].stdout
    assert [row["door"] for row in harness.rows("SELECT door FROM runs")] == ["relay"]
    assert said[1].returncode == 2
    assert "--door socket: a sandbox can't use a socket of this machine" in said[1].stderr


def test_a_runtime_that_docker_has_not_is_refused_with_those_that_it_has(harness) -> None:
    agent = harness.agent("quiet", "#!/bin/sh\n")
    done = harness("sweep", "--agents", agent, "--tasks", "smoke", "--limit", "1", "--runtime", "nosuch")
    assert done.code == 2
    assert "--runtime nosuch: Docker has no such runtime, it has " in done.err
    assert "runc" in done.err
