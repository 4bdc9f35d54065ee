"""After preparation nothing is downloaded: a sweep whose harness has no network but the loopback, and whose every
request to Docker is listened to."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.sandbox import endpoint
from harness.suites import load_suite

pytestmark = [pytest.mark.docker, pytest.mark.network]

# In a network namespace of its own, where nothing is but a loopback, which is down.
ALONE = """
import fcntl, os, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS: up, running
os.execv(sys.executable, [sys.executable, "-m", "harness", *sys.argv[1:]])
"""
UNSHARE = ["unshare", *([] if os.getuid() == 0 else ["--map-root-user"]), "--net"]


@contextlib.contextmanager
def overheard(path: Path) -> Iterator[list[bytes]]:
    """A socket at `path` that leads to Docker's; yields what clients send there, a list of bytes each."""
    way, _, target = endpoint.find().url.partition("://")
    if way != "unix":
        pytest.skip("Docker is not at a Unix socket")
    said: list[bytes] = []

    def pass_on(source: socket.socket, sink: socket.socket, kept: list[bytes] | None) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if kept is not None:
                    kept.append(data)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            docker = socket.socket(socket.AF_UNIX)
            docker.connect(target)
            kept: list[bytes] = []
            for ends in ((client, docker, kept), (docker, client, None)):
                threading.Thread(target=pass_on, args=ends, daemon=True).start()
            connections.append(kept)

    connections: list[list[bytes]] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(64)
        threading.Thread(target=serve, daemon=True).start()
        yield said
        listener.shutdown(socket.SHUT_RDWR)
    path.unlink()
    said += [b"".join(kept) for kept in connections]


def alone(harness, *words: str, **env: str) -> tuple[subprocess.CompletedProcess[str], bytes]:  # type: ignore[no-untyped-def]
    """A command without a network, and all that it said to Docker."""
    if shutil.which("unshare") is None or subprocess.run([*UNSHARE, "true"], capture_output=True).returncode != 0:
        pytest.skip("no network namespace can be made here")
    path = harness.folder / "docker.sock"
    with overheard(path) as said:
        done = subprocess.run(
            [*UNSHARE, sys.executable, "-c", ALONE, *words], cwd=harness.folder, capture_output=True, text=True,
            env=os.environ | {"DOCKER_HOST": f"unix://{path}"} | env, check=False,
        )  # fmt: skip
    return done, b"\n".join(said)


def test_a_prepared_sweep_downloads_nothing(harness) -> None:  # type: ignore[no-untyped-def]
    task = load_suite("smoke").tasks[0]
    patch = (task.folder / "solution" / "fix.patch").read_text()
    model = harness.script({"text": f"```sh\npatch -p1 <<'EOF'\n{patch}EOF\n```\n"}, {"text": "DONE"})
    words = ("sweep", "--agents", "shell-script,oracle,nop", "--models", model, "--limit", "1", "--idle", "0")
    prepared = harness(*words)
    assert prepared.code == 0, prepared.err
    done, said = alone(harness, *words)
    assert done.returncode == 0, done.stderr
    runs = harness.rows("SELECT * FROM runs ORDER BY started_at")
    assert [run["verdict"] for run in sorted(runs[3:], key=lambda run: str(run["agent"]))] == [
        "empty_patch", "resolved", "resolved",
    ]  # fmt: skip
    asked = re.findall(rb"(?:^|\n|\})(GET|HEAD|POST|PUT|DELETE) (/\S+) HTTP/1\.1\r\n", said)
    made = [path for method, path in asked if method == b"POST" and path.endswith(b"/containers/create")]
    assert len(made) >= 5  # three sandboxes, two gradings
    fetching = [path for _, path in asked if re.search(rb"/images/(create|load)|/build|/commit", path)]
    assert not fetching
    assert re.findall(rb'"NetworkMode": *"([^"]*)"', said) == [b"none"] * len(made)


def test_what_a_sweep_would_have_to_download_is_named(harness) -> None:  # type: ignore[no-untyped-def]
    agent = Path(harness.agent("needs", "true\n"))
    (agent / "requirements.lock").write_text("six==1.17.0 --hash=sha256:" + "0" * 64 + "\n")
    done, said = alone(harness, "sweep", "--agents", str(agent), "--limit", "1")
    assert done.returncode == 2
    assert "agent needs can't be used: the first of its packages, six==1.17.0, can't be had" in done.stderr
    assert "harness agents build" in done.stderr
    assert b"/containers/create" not in said
    words = ("sweep", "--agents", "shell-script", "--models", "llamacpp/gemma3-270m", "--limit", "1")
    done, said = alone(harness, *words, HARNESS_CACHE=str(harness.folder / "cache"))
    assert (done.returncode, "harness models pull llamacpp/gemma3-270m" in done.stderr) == (2, True), done.stderr
    assert b"/containers/create" not in said
