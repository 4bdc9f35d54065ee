"""Bundles as they are used: built by Docker, mounted read-only in images older than what is in them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import docker
import pytest
import stand_in
from docker.errors import NotFound
from docker.models.containers import Container

from harness.errors import HarnessError, MachineError
from harness.guest import forwarders_files
from harness.images import bases, bundle, network
from harness.manifests import Agent, load_agent
from harness.paths import builtin
from harness.sandbox.daemon import KIND, OWNER, connect

SUITES = ("bullseye", "bookworm", "trixie")

# What a Python with borrowed libraries gets wrong first. Prints what it loaded from outside the bundle.
PROBE = """
import bz2, ctypes, curses, hashlib, json, locale, lzma, multiprocessing, os, pwd, readline, socket, sqlite3
import ssl, subprocess, sys, threading, uuid, zlib

hello = ssl.MemoryBIO()
try:
    ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost").do_handshake()
except ssl.SSLWantReadError:
    assert hello.pending > 100
assert sqlite3.connect(":memory:").execute("select sqlite_version() > '3.2'").fetchone() == (1,)
assert ctypes.CDLL("libc.so.6").getpid() == os.getpid()
assert locale.setlocale(locale.LC_ALL, "C.UTF-8") and sys.getfilesystemencoding() == "utf-8"
assert socket.getaddrinfo("localhost", 80, socket.AF_INET)[0][4] == ("127.0.0.1", 80)
assert pwd.getpwuid(0).pw_name == "root"
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(abs, [-1, -2]) == [1, 2]
assert not [path for path in sys.path if path and not path.startswith("/opt/agent/")], sys.path
theirs = subprocess.run(["bash", "-c", "ldd --version; env; type python3"], capture_output=True, text=True)
loaded = {line.split()[-1] for line in open("/proc/self/maps") if ".so" in line}
foreign = sorted(path for path in loaded if not path.startswith("/opt/agent"))
print(json.dumps({"foreign": foreign, "shell": theirs.stdout}))
"""


def agent_in(folder: Path, lock: str | None = None, python: str = ">=3.11") -> Agent:
    folder.mkdir(exist_ok=True)
    (folder / "agent.toml").write_text(
        f'name = "tried"\ngroup = "example"\nsummary = "for a test"\nversion = "1"\npython = "{python}"\n'
    )
    (folder / "run.py").write_text("print('hello')\n")
    if lock is not None:
        (folder / "requirements.lock").write_text(lock)
    return load_agent(folder)


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        (">=3.11", ("3.13", "3.13", "trixie")),
        (">=3.12,<3.14", ("3.13", "3.13", "trixie")),
        (">=3.11,<3.12", ("3.11", "3.11", "bookworm")),
        (">=3.11, <3.13", ("3.12", "3.11", "bookworm")),
        (">=3.12,<3.13", ("3.12", "", "trixie")),
        (">=3.15", ("3.15", "", "trixie")),
    ],
)
def test_a_range_decides_the_python_and_where_it_is_built(wanted: str, chosen: tuple[str, str, str]) -> None:
    assert bundle.choose_python(wanted) == chosen


def test_settings_of_the_host_reach_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "http://index.example/simple")
    monkeypatch.setenv("https_proxy", "http://localhost:3128")
    environment = network.build_environment(None)
    assert environment["UV_DEFAULT_INDEX"] == "http://index.example/simple"
    assert environment["https_proxy"] == "http://localhost:3128"
    assert network.build_network(environment) == "host"
    assert network.build_network({"HTTP_PROXY": "http://proxy.example", "NO_PROXY": "//localhost"}) == "bridge"


@pytest.fixture(scope="module")
def client() -> docker.DockerClient:
    try:
        return connect()
    except HarnessError as error:
        pytest.skip(f"needs Docker: {error}")


def base(client: docker.DockerClient, suite: str) -> str:
    try:
        bases.ensure_base(client, f"debian:{suite}-slim", print)
    except MachineError as error:
        pytest.skip(f"needs the image debian:{suite}-slim: {error}")
    return f"debian:{suite}-slim"


def built(client: docker.DockerClient, agent: Agent) -> bundle.Bundle:
    ready = bundle.ensure(client, agent, print)
    assert ready is not None
    assert bundle.find(client, agent) == ready
    return ready


@pytest.fixture(scope="module")
def mini(client: docker.DockerClient) -> bundle.Bundle:
    return built(client, load_agent(builtin("agents") / "mini-swe-agent", "built in"))


def ours(client: docker.DockerClient) -> set[str]:
    labelled = {"label": f"{KIND}=bundle"}
    containers = client.containers.list(all=True, filters=labelled)
    return {c.name for c in containers} | {v.name for v in client.volumes.list(filters=labelled)}


@contextlib.contextmanager
def sandbox(
    client: docker.DockerClient, image: str, ready: bundle.Bundle, socket_dir: str | None = None
) -> Iterator[Container]:
    """A container as strict as a run's."""
    volumes = {ready.volume: {"bind": bundle.MOUNT, "mode": "ro"}}
    if socket_dir:
        volumes[socket_dir] = {"bind": "/run/harness", "mode": "ro"}
    container = client.containers.run(
        image,
        ["sleep", "300"],
        detach=True,
        init=True,
        labels={KIND: "run"},
        network_mode="none",
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        volumes=volumes,
    )
    try:
        yield container
    finally:
        container.remove(force=True)


@pytest.mark.docker
@pytest.mark.network
@pytest.mark.parametrize("python", [">=3.11", ">=3.11,<3.12"])
def test_its_python_runs_in_images_old_and_new(client: docker.DockerClient, tmp_path: Path, python: str) -> None:
    ready = built(client, agent_in(tmp_path / "a", python=python))
    for suite in SUITES:
        with sandbox(client, base(client, suite), ready) as container:
            code, output = container.exec_run([ready.python, "-c", PROBE])
            assert code == 0, f"{suite}: {output.decode()}"
            facts = json.loads(output)
            if ready.runtime == "debian":
                assert facts["foreign"] == [], suite
            # A program that the agent starts is the image's own and finds the image's own.
            assert "/opt/agent" not in facts["shell"]
            assert not [line for line in facts["shell"].splitlines() if line.startswith(("LD_", "PYTHON", "VIRTUAL"))]
            code, output = container.exec_run([ready.python, "-c", "open('/opt/agent/x', 'w')"])
            assert code == 1
            assert b"Read-only" in output


@pytest.mark.docker
@pytest.mark.network
def test_it_is_built_once_for_all_agents_with_the_same_inputs(client: docker.DockerClient, tmp_path: Path) -> None:
    first = agent_in(tmp_path / "a")
    ready = built(client, first)
    (first.folder / "run.py").write_text("print('another runner')\n")
    said: list[str] = []
    assert bundle.ensure(client, agent_in(tmp_path / "b"), said.append) == ready
    assert said == []
    locked = agent_in(tmp_path / "c", lock="six==1.17.0 --hash=sha256:00\n")
    assert bundle.bundle_key(client, locked) != ready.key


@pytest.mark.docker
@pytest.mark.network
def test_a_build_that_fails_says_why_and_leaves_nothing(
    client: docker.DockerClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    bundle.remove_leftovers(client)
    before = ours(client)
    agent = agent_in(tmp_path / "a", lock="six==1.17.0 --hash=sha256:" + "0" * 64 + "\n")
    with pytest.raises(MachineError) as raised:
        bundle.ensure(client, agent, print)
    sentence = str(raised.value)
    assert "tried" in sentence
    assert "hash" in sentence.lower()
    log = Path(sentence.rpartition("all of the log: ")[2])
    assert "six" in log.read_text()
    assert ours(client) == before
    assert bundle.find(client, agent) is None


@contextlib.contextmanager
def index_of(files: dict[str, bytes]) -> Iterator[tuple[str, list[str]]]:
    """A package index on the loopback that has these files alone; yields its address and the paths asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            name = self.path.rstrip("/").rpartition("/")[2]
            links = "".join(f'<a href="/files/{file}">{file}</a>' for file in files if file.startswith(f"{name}-"))
            content = files.get(name) or links.encode()
            self.send_response(200 if content else 404)
            self.send_header("Content-Type", "text/html" if links else "application/octet-stream")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/simple", asked
        finally:
            server.shutdown()


def archive_of(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


def wheel_of(name: str, module: str) -> bytes:
    buffer = io.BytesIO()
    about = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(buffer, "w") as wheel:
        wheel.writestr(f"{name}.py", module)
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    return buffer.getvalue()


@pytest.mark.docker
@pytest.mark.network
@pytest.mark.parametrize("backend", ["setuptools.build_meta", "intruder"])
def test_a_source_is_built_with_what_has_a_hash_alone(
    client: docker.DockerClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    """A package's source says what it is built with, and that is code which no lock file has a hash for."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    source = archive_of({
        "trial-1.0/pyproject.toml": f'[build-system]\nrequires = ["intruder"]\nbuild-backend = "{backend}"\n'
        '[project]\nname = "trial"\nversion = "1.0"\n',
        "trial-1.0/trial.py": "",
        "trial-1.0/PKG-INFO": "Metadata-Version: 2.1\nName: trial\nVersion: 1.0\n",
    })  # fmt: skip
    files = {"trial-1.0.tar.gz": source, "intruder-1.0-py3-none-any.whl": wheel_of("intruder", "print('it ran')")}
    agent = agent_in(tmp_path / "a", lock=f"trial==1.0 --hash=sha256:{hashlib.sha256(source).hexdigest()}\n")
    with index_of(files) as (address, asked):
        monkeypatch.setenv("UV_INDEX", address)
        if backend == "intruder":
            with pytest.raises(MachineError, match="intruder"):
                bundle.ensure(client, agent, print)
        else:
            made = built(client, agent)
            assert made.packages == {"trial": "1.0"}
            client.volumes.get(f"harness-bundle-{made.key}").remove()
            client.volumes.get(made.volume).remove()
    assert [path for path in asked if "trial" in path]
    assert not [path for path in asked if "intruder" in path]


@pytest.mark.docker
def test_what_a_killed_build_left_is_removed_and_nothing_else(client: docker.DockerClient, mini: bundle.Bundle) -> None:
    dead = {KIND: "bundle", OWNER: "1:0"}
    volume = client.volumes.create("harness-bundle-test-leftover", labels=dead)
    stranger = client.volumes.create("harness-bundle-test-stranger")
    try:
        assert volume.name in bundle.remove_leftovers(client)
        with pytest.raises(NotFound):
            client.volumes.get(volume.name)
        assert client.volumes.get(stranger.name)
        assert client.volumes.get(mini.volume)
    finally:
        stranger.remove(force=True)


@pytest.mark.docker
def test_an_agent_that_needs_no_python_needs_no_bundle(client: docker.DockerClient) -> None:
    assert bundle.ensure(client, load_agent(builtin("agents") / "nop"), print) is None


def put(container: Container, files: dict[str, bytes]) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    container.put_archive("/", buffer.getvalue())


def run_agent(
    client: docker.DockerClient,
    image: str,
    ready: bundle.Bundle,
    runner: bytes,
    protocol: str,
    answers: list[Any],
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One run through the forwarder, as agents/README.md says: its result and what it left, and what it asked."""
    task = {
        "task": "t",
        "instruction_file": "/opt/harness/instruction.md",
        "workdir": "/testbed",
        "model": "llamacpp/some:1b",
        "protocol": protocol,
        "base_url": "http://127.0.0.1:11434/v1",
        "api_key": "the-key",
        "result_file": "/opt/harness/out/result.json",
        "out_dir": "/opt/harness/out",
        "limits": {"max_calls": 5, "time_s": 60, "num_ctx": 4096, "num_predict": 256},
    }
    files = {
        "testbed/app.py": b"def add(a, b):\n    return a - b\n",
        "testbed/.env": b"OPENAI_BASE_URL=http://stolen.example\n",
        "opt/harness/task.json": json.dumps(task).encode(),
        "opt/harness/instruction.md": b"add() subtracts.",
        "opt/harness/agent/run.py": runner,
        **{f"opt/harness/{name}": content for name, content in forwarders_files().items()},
        "opt/harness/out/.keep": b"",
    }
    environment = {"HARNESS_TASK_FILE": "/opt/harness/task.json", "HOME": "/root"}
    with (
        tempfile.TemporaryDirectory(prefix="h-", dir="/tmp") as folder,
        stand_in.serve(Path(folder) / "gateway.sock", answers) as requests,
    ):
        Path(folder).chmod(0o755)
        with sandbox(client, image, ready, folder) as container:
            put(container, files)
            forwarder = container.exec_run([ready.python, "/opt/harness/forward.py", "/testbed"], stream=True).output
            assert next(forwarder).startswith(b"ready")
            code, output = container.exec_run(
                [ready.python, "/opt/harness/agent/run.py"], workdir="/testbed", environment=environment
            )
            assert code == 0, output.decode()
            result = json.loads(container.exec_run(["cat", "/opt/harness/out/result.json"]).output)
            result["app"] = container.exec_run(["cat", "/testbed/app.py"]).output.decode()
            result["left"] = container.exec_run(["ls", "-A", "/testbed"]).output.decode().split()
            result["out"] = container.exec_run(["ls", "/opt/harness/out"]).output.decode().split()
    return result, requests


def mini_runner() -> bytes:
    return (builtin("agents") / "mini-swe-agent" / "run.py").read_bytes()


def answers_in(protocol: str, *commands: str) -> list[dict[str, Any]]:
    if protocol == "tools":
        return [stand_in.call_bash(command) for command in commands]
    return [stand_in.say(f"THOUGHT: so.\n\n```mswea_bash_command\n{command}\n```") for command in commands]


@pytest.mark.docker
@pytest.mark.network
@pytest.mark.parametrize("suite", ["bullseye", "bookworm"])
@pytest.mark.parametrize("protocol", ["text", "tools"])
def test_mini_swe_agent_solves_a_task(
    client: docker.DockerClient, mini: bundle.Bundle, suite: str, protocol: str
) -> None:
    answers = answers_in(
        protocol, "env", "sed -i 's/a - b/a + b/' app.py", "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"
    )
    result, requests = run_agent(client, base(client, suite), mini, mini_runner(), protocol, answers)
    assert result["status"] == "submitted"
    assert "a + b" in result["app"]
    assert sorted(result["left"]) == [".env", "app.py"]
    assert len(requests) == result["details"]["model_calls"] == 3
    assert {request["model"] for request in requests} == {"llamacpp/some:1b"}
    assert {request["_key"] for request in requests} == {"Bearer the-key"}
    assert {request["_path"] for request in requests} == {"/v1/chat/completions"}
    assert all(("tools" in request) == (protocol == "tools") for request in requests)
    assert "add() subtracts." in json.dumps(requests[0]["messages"])
    shell = requests[1]["messages"][-1]["content"]
    assert "PATH=/usr/local/sbin" in shell
    assert "/opt/agent" not in shell
    assert "stolen.example" not in shell
    assert result["out"] == ["result.json", "trajectory.json"]


@pytest.mark.docker
@pytest.mark.network
@pytest.mark.parametrize(
    ("answers", "status", "message", "calls"),
    [
        ([stand_in.say("I would rather talk.")], "format_failure", "RepeatedFormatError", 3),
        (answers_in("text", "ls"), "limit", "LimitsExceeded", 5),
        ([429], "error", "RateLimitError", 1),
        ([400], "error", "BadRequestError", 1),
    ],
)
def test_mini_swe_agent_says_how_it_ended(
    client: docker.DockerClient,
    mini: bundle.Bundle,
    answers: list[Any],
    status: str,
    message: str,
    calls: int,
) -> None:
    result, requests = run_agent(client, base(client, "bookworm"), mini, mini_runner(), "text", answers)
    assert (result["status"], len(requests)) == (status, calls)
    assert message in result["message"]


@pytest.mark.docker
@pytest.mark.network
def test_the_example_in_the_readme_works_as_it_stands(client: docker.DockerClient, tmp_path: Path) -> None:
    page = (builtin("agents") / "README.md").read_text()
    manifest, runner = re.findall(r"```(?:toml|python)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)[:2]
    (tmp_path / "agent.toml").write_text(manifest)
    (tmp_path / "run.py").write_text(runner)
    ready = built(client, load_agent(tmp_path))
    answers = [stand_in.say("So:\n```sh\nsed -i 's/a - b/a + b/' app.py\n```\nDone.")]
    result, requests = run_agent(client, base(client, "bullseye"), ready, runner.encode(), "text", answers)
    assert result["status"] == "submitted"
    assert "a + b" in result["app"]
    assert "return a - b" in requests[0]["messages"][0]["content"]
    refused, _ = run_agent(client, base(client, "bullseye"), ready, runner.encode(), "text", [stand_in.say("No.")])
    assert refused["status"] == "format_failure"
