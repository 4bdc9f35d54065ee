"""`harness view` as it is typed: its port, its address, its end."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from view_store import new_store

WORDS = [sys.executable, "-m", "harness", "view"]


def test_a_port_that_is_taken_is_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        words = [*WORDS, "--port", str(port), "--runs-dir", str(tmp_path)]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr == f"harness: port {port} is taken: name another with --port, or --port 0 for any\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_listens_on_the_loopback_alone_and_ends_quietly(tmp_path: Path, number: signal.Signals) -> None:
    new_store(tmp_path)
    words = [*WORDS, "--port", "0", "--runs-dir", str(tmp_path), "--db", str(tmp_path / "harness.db")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[0]
        port = int(url.rstrip("/").rpartition(":")[2])
        assert httpx.get(url).status_code == 200
        assert httpx.get(url, headers={"Host": "harness.example"}).status_code == 400
        listening = {line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]}
        assert {address for address in listening if address.endswith(f":{port:04X}")} == {f"0100007F:{port:04X}"}
        process.send_signal(number)
        out, errors = process.communicate(timeout=20)
    assert (process.returncode, out, errors) == (0, "", "")
