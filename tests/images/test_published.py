"""Published images, pulled by the real Docker engine from a registry of the test's own on this machine."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import secrets
import socket
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import docker
import pytest
import typer
from rich.filesize import decimal
from typer.testing import CliRunner

from harness.cli.tasks_pull import pull
from harness.errors import HarnessError, UserError
from harness.images import published
from harness.images.registry import UNPACKED_PER_COMPRESSED, address, ask_sizes
from harness.sandbox.daemon import connect
from harness.suites import load_suite
from harness.suites.swebench import SweBenchTask

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEX = "application/vnd.oci.image.index.v1+json"


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass
class Registry:
    """What a stand-in serves, and what it was asked."""

    manifests: dict[tuple[str, str], bytes] = field(default_factory=dict)  # by repository, and tag or digest
    blobs: dict[str, bytes] = field(default_factory=dict)
    worn_out: set[str] = field(default_factory=set)  # repositories of which it allows no more pulls
    headers: dict[str, str] = field(default_factory=dict)  # with every manifest
    token: str | None = None  # that is wanted
    log: list[tuple[str, str, str]] = field(default_factory=list)  # method, path, who asks
    host: str = ""

    def add(self, repository: str, layers: Sequence[bytes], architecture: str, index: bool = False) -> str:
        """An image of `layers` (tars); returns the digest that the registry gives it."""
        config = {
            "architecture": architecture, "os": "linux", "config": {"Cmd": ["/none"], "Labels": {"x": repository}},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
        }  # fmt: skip
        packed = [gzip.compress(layer, mtime=0) for layer in layers]
        config_blob = json.dumps(config).encode()
        self.blobs |= {digest_of(blob): blob for blob in [*packed, config_blob]}
        manifest = {
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": _entry("application/vnd.docker.container.image.v1+json", config_blob),
            "layers": [_entry("application/vnd.docker.image.rootfs.diff.tar.gzip", blob) for blob in packed],
        }  # fmt: skip
        served = self._serve(repository, manifest)
        if index:
            other = {**_entry(MANIFEST, b"of another"), "platform": {"os": "linux", "architecture": "s390x"}}
            fits = {**_entry(MANIFEST, served), "platform": {"os": "linux", "architecture": architecture}}
            served = self._serve(repository, {"schemaVersion": 2, "mediaType": INDEX, "manifests": [other, fits]})
        return digest_of(served)

    def _serve(self, repository: str, manifest: Mapping[str, Any]) -> bytes:
        content = json.dumps(manifest).encode()
        self.manifests |= {(repository, "latest"): content, (repository, digest_of(content)): content}
        return content

    def asked(self, kind: str, repository: str = "") -> list[str]:
        """The last part of the paths that were fetched: tags and digests of "manifests", digests of "blobs"."""
        paths = [path for method, path, _ in self.log if method == "GET" and f"{repository}/{kind}/" in path]
        return [path.rpartition("/")[2] for path in paths]

    def answer(self, path: str, authorization: str | None) -> tuple[int, dict[str, str], bytes]:
        if path.startswith("/token?"):
            return 200, {}, json.dumps({"token": self.token}).encode()
        _, _, repository, *rest = path.split("/")
        if self.token and authorization != f"Bearer {self.token}":
            challenge = f'Bearer realm="http://{self.host}/token",service="stand-in"'
            challenge += f',scope="repository:{repository}:pull"' if repository else ""
            return 401, {"WWW-Authenticate": challenge}, b"{}"
        if not repository:
            return 200, {"Docker-Distribution-API-Version": "registry/2.0"}, b"{}"
        kind, name = rest
        if repository in self.worn_out:
            return 429, {}, _error("TOOMANYREQUESTS")
        if kind == "blobs":
            return 200, {"Content-Type": "application/octet-stream"}, self.blobs[name]
        content = self.manifests.get((repository, name))
        if content is None:
            return 404, {}, _error("MANIFEST_UNKNOWN")
        about = {"Content-Type": json.loads(content)["mediaType"], "Docker-Content-Digest": digest_of(content)}
        return 200, about | self.headers, content


def _error(code: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": "refused"}]}).encode()


def _entry(kind: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": kind, "size": len(content), "digest": digest_of(content)}


@pytest.fixture
def registry() -> Iterator[Registry]:
    kept = Registry()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            kept.log.append((self.command, self.path, self.headers["User-Agent"] or ""))
            status, headers, content = kept.answer(self.path, self.headers["Authorization"])
            self.send_response(status)
            for name, value in ({"Content-Type": "application/json"} | headers).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        kept.host = f"127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield kept
        server.shutdown()
        thread.join()


@pytest.fixture
def client(registry: Registry) -> Iterator[docker.DockerClient]:
    """Docker; what was pulled from the stand-in goes."""
    connected = connect()
    yield connected
    for image in connected.api.images():
        for tag in image["RepoTags"] or []:
            if tag.startswith(f"{registry.host}/"):
                connected.api.remove_image(tag)


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    def rows(self) -> dict[str, Any]:
        return {row["task"]: row for row in json.loads(self.out)}


Type = Callable[..., Said]


@pytest.fixture
def run() -> Type:
    """The command with its errors as `harness` shows them."""
    app = typer.Typer()
    app.command()(pull)

    def call(*words: str) -> Said:
        result = CliRunner().invoke(app, words)
        if isinstance(result.exception, HarnessError):
            return Said(result.exception.exit_code, result.stdout, f"{result.stderr}harness: {result.exception}\n")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Said(result.exit_code, result.stdout, result.stderr)

    return call


def layer() -> bytes:
    """A tar of one file that is in no other."""
    buffer = io.BytesIO()
    name = secrets.token_hex(8)
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        about = tarfile.TarInfo(name)
        about.size = 20_000
        tar.addfile(about, io.BytesIO(secrets.token_bytes(about.size)))
    return buffer.getvalue()


def packed(tar: bytes) -> int:
    """The size of a layer in the registry."""
    return len(gzip.compress(tar, mtime=0))


def repository(task: str, architecture: str) -> str:
    return f"sweb.eval.{published.ARCHITECTURES.get(architecture, architecture)}.{task.replace('__', '_1776_')}"


def write(folder: Path, host: str, *names: str) -> tuple[str, ...]:
    """A suite of tasks whose images are at `host`; returns the words of the command line."""
    suite = folder / "suite"
    suite.mkdir()
    (suite / "suite.toml").write_text(
        f'dataset = "of/a-test"\nrevision = "{"0" * 40}"\ncount = {len(names)}\n'
        f'image = "{host}/sweb.eval.{{arch}}.{{id}}"\n'
    )
    row = {
        "repo": "django/django", "version": "3.0", "base_commit": "0" * 40, "problem_statement": "It is wrong.",
        "patch": "diff --git a/x.py b/x.py\n", "test_patch": "diff --git a/tests/a/tests.py b/tests/a/tests.py\n",
        "FAIL_TO_PASS": ["a"], "PASS_TO_PASS": [],
    }  # fmt: skip
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps({"instance_id": name} | row) + "\n" for name in names))
    return str(suite), "--data", str(rows), "--leaky-arm64"


def tasks_of(folder: Path) -> list[SweBenchTask]:
    tasks = load_suite(str(folder / "suite"), folder / "rows.jsonl").tasks
    return [task for task in tasks if isinstance(task, SweBenchTask)]


def closed_port() -> socket.socket:
    """Bound and not listening: nobody else can take the port, and nobody answers."""
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    return taken


def test_names_are_read_as_docker_reads_them() -> None:
    hub = "https://registry-1.docker.io/v2"
    for name, url in {
        "swebench/sweb.eval.x86_64.a:latest": f"{hub}/swebench/sweb.eval.x86_64.a/manifests/latest",
        "docker.io/a/b:1": f"{hub}/a/b/manifests/1",
        "debian:12": f"{hub}/library/debian/manifests/12",
        "a/b@sha256:00": f"{hub}/a/b/manifests/sha256:00",
        "ghcr.io/a/b/c:1": "https://ghcr.io/v2/a/b/c/manifests/1",
        "box:5000/a:1": "https://box:5000/v2/a/manifests/1",
        "localhost/a:1": "http://localhost/v2/a/manifests/1",
        "127.0.0.1:5000/a:1": "http://127.0.0.1:5000/v2/a/manifests/1",
        "127.example.org/a:1": "https://127.example.org/v2/a/manifests/1",
    }.items():
        assert address(name).manifest() == url


def test_a_layer_is_counted_once(registry: Registry) -> None:
    shared, one, two = layer(), layer(), layer()
    registry.add("one", [shared, one], "amd64")
    registry.add("two", [shared, two], "amd64", index=True)
    one_name, two_name, none = (f"{registry.host}/{name}:latest" for name in ("one", "two", "none"))

    sizes = ask_sizes([one_name, two_name, none], "amd64")
    assert sizes.download_bytes == sum(map(packed, (shared, one, two)))
    assert sizes.disk_bytes == sizes.download_bytes * UNPACKED_PER_COMPRESSED
    assert [len(layers) for layers in sizes.layers.values()] == [2, 2]
    why = f"the registry {registry.host} does not show it to everybody (HTTP 404)"
    assert sizes.unknown == {none: why}
    assert registry.asked("blobs") == []

    other = ask_sizes([two_name], "riscv64")
    assert other.unknown == {two_name: f"the registry {registry.host} has none for riscv64"}
    assert (other.download_bytes, other.disk_bytes) == (None, None)


def test_sizes_are_unknown_rather_than_zero(registry: Registry) -> None:
    names = [f"{registry.host}/{name}:latest" for name in ("one", "two")]
    for name in ("one", "two"):
        registry.add(name, [layer()], "amd64")
    # Asking for two and pulling two makes four, and Docker Hub counts them all.
    registry.headers["RateLimit-Remaining"] = "2;w=21600"
    sizes = ask_sizes(names, "amd64")
    assert sizes.download_bytes is None
    assert set(sizes.unknown.values()) == {
        f"the registry {registry.host} allows 2 more pulls for now, and asking counts as one"
    }
    assert len(registry.asked("manifests")) == 1
    registry.headers["RateLimit-Remaining"] = "3;w=21600"
    assert ask_sizes(names[:1], "amd64").download_bytes

    registry.headers.clear()
    registry.manifests["two", "latest"] = json.dumps({"mediaType": MANIFEST, "fsLayers": []}).encode()
    old = ask_sizes(names, "amd64")
    assert old.unknown == {names[1]: f"the registry {registry.host} has a manifest of it that names no sizes of layers"}
    assert list(old.layers) == names[:1]

    with closed_port() as taken:
        host = f"127.0.0.1:{taken.getsockname()[1]}"
        nothing = ask_sizes([f"{host}/one:latest"], "amd64")
    assert nothing.download_bytes is None
    assert f"the registry {host} does not say (" in nothing.unknown[f"{host}/one:latest"]


def test_arm64_is_refused_unless_it_is_wanted() -> None:
    with pytest.raises(UserError, match=r"issue 465.*`harness tasks build some`, or .* --leaky-arm64"):
        published.refuse_leaky("arm64", False, "some")
    published.refuse_leaky("arm64", True, "some")
    published.refuse_leaky("amd64", False, "some")


def test_folders_have_nothing_to_pull(run: Type) -> None:
    said = run("smoke")
    assert said.code == 2
    assert said.err.startswith("harness: suite smoke has nothing to pull: its tasks are folders with a Dockerfile")


@pytest.mark.docker
def test_a_name_that_docker_does_not_take_fails(
    registry: Registry, client: docker.DockerClient, run: Type, tmp_path: Path
) -> None:
    words = write(tmp_path, f"{registry.host}/UPPER", "django__django-1")
    said = run(*words, "--json")
    assert said.code == 1
    [row] = said.rows().values()
    assert row["state"] == "failed"
    assert "is none that Docker takes: " in row["detail"]
    assert said.err.splitlines()[-1] == row["detail"]
    assert registry.log == []
    assert run(*words, "--limit", "0").code == 2


@pytest.mark.docker
def test_what_is_pulled_is_found_and_not_pulled_again(
    registry: Registry, client: docker.DockerClient, run: Type, tmp_path: Path
) -> None:
    architecture = client.version()["Arch"]
    names = ("django__django-1", "django__django-2")
    words = write(tmp_path, registry.host, *names)
    shared = layer()
    tars = {names[0]: [shared, layer()], names[1]: [shared, layer()]}
    digests = {
        name: registry.add(repository(name, architecture), layers, architecture, index=name == names[1])
        for name, layers in tars.items()
    }

    done = run(*words, "--json")
    assert done.code == 0, done.err
    rows = done.rows()
    assert {name: row["state"] for name, row in rows.items()} == dict.fromkeys(names, "pulled")
    assert {name: row["digest"] for name, row in rows.items()} == digests
    for task in tasks_of(tmp_path):
        found = published.find(client, task)
        assert found is not None
        assert (found.digest, found.size_bytes) == (digests[task.name], 2 * 20_000)
        assert rows[task.name]["image"] == f"{registry.host}/{repository(task.name, architecture)}:latest"
        assert rows[task.name]["size_bytes"] == found.size_bytes
    blobs = registry.asked("blobs")
    assert len(blobs) == len(set(blobs)) == 3 + 2  # layers, configurations
    size = decimal(sum(packed(tar) for tar in {tar for layers in tars.values() for tar in layers}))
    assert f"0 of 2 images are here already\n2 to pull: {size} to download" in done.err

    asked = len(registry.log)
    again = run(*words)
    assert again.code == 0
    assert len(registry.log) == asked
    assert "2 of 2 images are here already\n" in again.err
    assert again.out.count(" here ") == 2

    client.images.remove(rows[names[1]]["image"])
    rest = run(*words, "--json")
    assert {name: row["state"] for name, row in rest.rows().items()} == {names[0]: "here", names[1]: "pulled"}
    assert len(registry.asked("blobs")) == len(blobs) + 2  # the shared layer stayed


@pytest.mark.docker
def test_progress_adds_up_to_what_is_fetched(registry: Registry, client: docker.DockerClient, tmp_path: Path) -> None:
    architecture = client.version()["Arch"]
    write(tmp_path, registry.host, "django__django-1")
    layers = [layer(), layer()]
    registry.add(repository("django__django-1", architecture), layers, architecture)
    [task] = tasks_of(tmp_path)
    name = published.image_name(task, architecture)
    seen: list[tuple[int, int | None]] = []
    sizes = ask_sizes([name], architecture)
    published.pull(client, task, architecture, sizes.layers[name], lambda what, done, total: seen.append((done, total)))
    assert seen[0] == (0, sizes.download_bytes)
    assert seen[-1] == (sizes.download_bytes, sizes.download_bytes)
    assert seen == sorted(seen)


@pytest.mark.docker
def test_an_image_that_is_missing_or_refused_does_not_stop_the_others(
    registry: Registry, client: docker.DockerClient, run: Type, tmp_path: Path
) -> None:
    architecture = client.version()["Arch"]
    names = ("django__django-1", "django__django-2", "django__django-3")
    words = write(tmp_path, registry.host, *names)
    repositories = [repository(name, architecture) for name in names]
    registry.worn_out.add(repositories[1])
    digest = registry.add(repositories[2], [layer()], architecture)

    said = run(*words, "--json")
    assert said.code == 1
    rows = said.rows()
    assert [row["state"] for row in rows.values()] == ["failed", "failed", "pulled"]
    assert [row["digest"] for row in rows.values()] == [None, None, digest]
    assert [row["size_bytes"] for row in rows.values()][:2] == [None, None]
    sentences = said.err.splitlines()[-2:]
    assert sentences == [
        f"{registry.host}/{repositories[0]}:latest can't be pulled: the registry {registry.host} does not have it, "
        "or not for everybody",
        f"{registry.host}/{repositories[1]}:latest can't be pulled: the registry {registry.host} allows no more pulls "
        "for now; wait (Docker Hub counts over six hours) or `docker login`, then run the same again",
    ]
    assert [row["detail"] for row in rows.values()] == [*sentences, None]
    # A registry that has had enough of questions is asked no more of them.
    why = f"the registry {registry.host} does not say (HTTP 429)"
    assert f"3 to pull; how much that is can't be said: {why}\n" in said.err


@pytest.mark.docker
def test_a_registry_that_wants_a_token_gives_one(
    registry: Registry, client: docker.DockerClient, run: Type, tmp_path: Path
) -> None:
    architecture = client.version()["Arch"]
    words = write(tmp_path, registry.host, "django__django-1")
    registry.token = secrets.token_hex(8)
    tar = layer()
    digest = registry.add(repository("django__django-1", architecture), [tar], architecture, index=True)
    said = run(*words, "--json")
    assert said.code == 0, said.err
    assert said.rows()["django__django-1"]["digest"] == digest
    assert f"1 to pull: {decimal(packed(tar))} to download" in said.err
    ours = [path for _, path, who in registry.log if who.startswith("python-httpx")]
    assert sum(path.startswith("/token?") for path in ours) == 1  # one for the index and the manifest


@pytest.mark.docker
def test_too_little_space_is_refused_before_anything_is_pulled(
    registry: Registry, client: docker.DockerClient, run: Type, tmp_path: Path
) -> None:
    root = client.info()["DockerRootDir"]
    if not Path(root).exists():
        pytest.skip(f"Docker's disk can't be seen from here: {root}")
    architecture = client.version()["Arch"]
    names = ("django__django-1", "django__django-2")
    words = write(tmp_path, registry.host, *names)
    for name in names:
        registry.add(repository(name, architecture), [layer()], architecture)
    large = (repository(names[1], architecture), "latest")
    manifest = json.loads(registry.manifests[large])
    manifest["layers"][0]["size"] = 10**18
    registry.manifests[large] = json.dumps(manifest).encode()

    said = run(*words, "--json")
    assert (said.code, said.out) == (1, "")
    assert f"3.0 EB of disk (an estimate), and {root} has " in said.err
    assert "free: nothing was pulled; make room there" in said.err
    assert len(registry.log) == len(registry.asked("manifests")) == 2
    assert [published.find(client, task) for task in tasks_of(tmp_path)] == [None, None]


@pytest.mark.docker
def test_a_registry_that_cannot_be_reached_ends_it_at_the_first(
    registry: Registry, client: docker.DockerClient, run: Type, tmp_path: Path
) -> None:
    with closed_port() as taken:
        host = f"127.0.0.1:{taken.getsockname()[1]}"
        words = write(tmp_path, host, "django__django-1", "django__django-2")
        said = run(*words)
        listed = run(*words, "--json")
    assert said.code == listed.code == 1
    sentence = said.err.splitlines()[-1]
    assert sentence.startswith(f"harness: the registry {host} can't be reached (Docker said: ")
    assert sentence.endswith(f"or build the images here with `harness tasks build {words[0]}`")
    assert f"2 to pull; how much that is can't be said: the registry {host} does not say (" in said.err
    assert "2 of 2:" not in said.err
    assert [row["state"] for row in listed.rows().values()] == ["failed", "not_tried"]


@pytest.mark.docker
def test_an_image_of_another_architecture_is_refused(
    registry: Registry, client: docker.DockerClient, run: Type, tmp_path: Path
) -> None:
    architecture = client.version()["Arch"]
    words = write(tmp_path, registry.host, "django__django-1", "django__django-2")
    registry.add(repository("django__django-1", architecture), [layer()], "s390x")
    registry.add(repository("django__django-2", architecture), [layer()], architecture)
    for state in ("pulled", "here"):
        said = run(*words, "--json")
        assert said.code == 1
        assert [row["state"] for row in said.rows().values()] == ["failed", state]
        assert f"is for s390x, and Docker runs on {architecture} here: remove it (docker rmi " in said.err
    first, second = tasks_of(tmp_path)
    with pytest.raises(UserError, match="is for s390x"):
        published.find(client, first)
    assert published.find(client, second) is not None
