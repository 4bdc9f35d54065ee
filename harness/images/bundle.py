"""Agent bundles: a framework with its own Python, built once, mounted read-only at /opt/agent in every run.

A bundle is a Docker volume, filled in a throw-away container (bundle_build.sh), so that nothing of it needs
root or a path on the host. It is finished when a second, empty volume exists whose name is made of the hash
of its inputs and whose labels say where it is and what is in it: Docker can't label or rename a volume
afterwards, and creating one is atomic.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import docker
import uv
from docker.errors import NotFound
from docker.models.containers import Container
from docker.models.volumes import Volume

from harness import paths
from harness.errors import MachineError
from harness.images import bases, commits
from harness.images.network import build_environment, build_network, host_certificates
from harness.manifests import PYTHON_RANGE, Agent
from harness.sandbox.daemon import KIND, OWNER, DockerFault, owner, owner_lives

MOUNT = "/opt/agent"
PYTHON = f"{MOUNT}/venv/bin/python"

RECIPE = Path(__file__).with_name("bundle_build.sh")
BUILD_LOCK = Path(__file__).with_name("bundle_build.lock")  # what packages are built with that have no wheel
SAYS = "harness: "  # how the recipe begins the lines that are meant for this module
BUILD_LIMIT_S = 1800

KEY = "harness.bundle.key"
VOLUME = "harness.bundle.volume"
FACTS = "harness.bundle.facts"

PREFERRED_PYTHONS = (13, 12, 11, 14, 10)  # minor versions: where wheels are surest to exist comes first
DEBIAN_PYTHONS = {13: "trixie", 11: "bookworm"}  # the fallback's


@dataclass(frozen=True)
class Bundle:
    """A finished bundle. Mount `volume` read-only at MOUNT; its Python is then PYTHON."""

    key: str
    volume: str
    runtime: str  # "python-build-standalone" or "debian"
    python_version: str
    packages: Mapping[str, str]  # name to version
    size_bytes: int
    digest: str  # SHA-256 of all that is in it but bytecode: a key is of what goes in

    @property
    def python(self) -> str:
        return PYTHON


def ensure(
    client: docker.DockerClient,
    agent: Agent,
    progress: Callable[[str], None],
    *,
    checkout: str | None = None,
    wheels: Path | None = None,
) -> Bundle | None:
    """The agent's bundle, built now if it is not there. None for an agent that needs no Python.

    `checkout` is where its repository is to be had, if not at the address of its manifest; `wheels` a folder to take
    the packages from instead of an index.

    Raises UserError when its repository can't be had, MachineError when the bundle can't be built: the end of the
    log, and where all of it is. Nothing of a build that failed is left in Docker.
    """
    if not agent.needs_python:
        return None
    try:
        key = bundle_key(client, agent)
        ready = _find(client, key)
        if ready is None:
            with _lock(key, lambda: progress(f"{agent.name}: waiting for another harness that builds its bundle")):
                ready = _find(client, key) or _build(client, agent, key, progress, checkout, wheels)
    except DockerFault as error:
        raise MachineError(f"the bundle of {agent.name} can't be built: Docker said: {error}") from error
    return ready


def packages_in(folder: Path) -> list[Path]:
    """The packages of a folder: wheels, and sources to make wheels of."""
    return sorted(path for path in folder.glob("*") if path.name.endswith((".whl", ".tar.gz")) and path.is_file())


def find(client: docker.DockerClient, agent: Agent) -> Bundle | None:
    """The agent's bundle if it is built already. Takes milliseconds."""
    return _find(client, bundle_key(client, agent)) if agent.needs_python else None


def bundle_key(client: docker.DockerClient, agent: Agent) -> str:
    """The hash of what goes into a bundle. Agents without packages share one; the runner is no part of it."""
    inputs = [
        hashlib.sha256(RECIPE.read_bytes() + BUILD_LOCK.read_bytes()).hexdigest(),
        hashlib.sha256(agent.lock.read_bytes()).hexdigest() if agent.lock else None,
        agent.manifest.source.model_dump() if agent.manifest.source else None,
        choose_python(agent.manifest.python),
        client.version()["Arch"],
    ]
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]


def choose_python(wanted: str) -> tuple[str, str, str]:
    """For a manifest's range: the version to ask python-build-standalone for, the fallback's ("" when no
    Debian has one that fits), and the Debian suite to build in."""
    match = PYTHON_RANGE.fullmatch(wanted)
    assert match is not None, wanted
    first, end = int(match[1]), int(match[2] or 1000)
    standalone = next((minor for minor in PREFERRED_PYTHONS if first <= minor < end), first)
    debian = next((minor for minor in DEBIAN_PYTHONS if first <= minor < end), None)
    if debian is None:
        return f"3.{standalone}", "", "trixie"
    return f"3.{standalone}", f"3.{debian}", DEBIAN_PYTHONS[debian]


def remove_leftovers(client: docker.DockerClient) -> list[str]:
    """Remove what builds have left whose harness was killed; returns the names. Finished bundles stay."""
    removed = []
    ours = {"label": f"{KIND}=bundle"}
    for container in client.containers.list(all=True, filters=ours):
        if not owner_lives(container.labels.get(OWNER)):
            _remove(container)
            removed.append(container.name)
    volumes = client.volumes.list(filters=ours)
    in_use = {_labels(volume).get(VOLUME) for volume in volumes}
    for volume in volumes:
        labels = _labels(volume)
        if FACTS not in labels and volume.name not in in_use and not owner_lives(labels.get(OWNER)):
            _remove(volume)
            removed.append(volume.name)
    return removed


def _marker(key: str) -> str:
    return f"harness-bundle-{key}"


def _labels(volume: Volume) -> dict[str, str]:
    return volume.attrs.get("Labels") or {}


def _find(client: docker.DockerClient, key: str) -> Bundle | None:
    try:
        labels = _labels(client.volumes.get(_marker(key)))
        client.volumes.get(labels[VOLUME])
    except NotFound:
        return None
    return Bundle(key=key, volume=labels[VOLUME], **json.loads(labels[FACTS]))


@contextmanager
def _lock(key: str, say_waiting: Callable[[], None]) -> Iterator[None]:
    name = f"bundle-{key}"
    with paths.lock_if_free(name) as free:
        if free:
            yield
            return
    say_waiting()
    with paths.lock(name):
        yield


def _build(
    client: docker.DockerClient,
    agent: Agent,
    key: str,
    progress: Callable[[str], None],
    checkout: str | None,
    wheels: Path | None,
) -> Bundle:
    source = agent.manifest.source
    files = {RECIPE.name: RECIPE, BUILD_LOCK.name: BUILD_LOCK, "uv": Path(uv.find_uv_bin())}
    if source is not None:
        progress(f"{agent.name}: fetching {checkout or source.repository} at {source.commit[:12]}")
        files["source.tar"] = commits.fetch(source.name, source.commit, checkout or source.repository, source.paths)
    if agent.lock is not None:
        files["requirements.lock"] = agent.lock
    if wheels is not None:
        files |= {f"wheels/{package.name}": package for package in packages_in(wheels)}
    standalone, debian, suite = choose_python(agent.manifest.python)
    base = f"debian:{suite}-slim"
    bases.ensure_base(client, base, progress)
    remove_leftovers(client)

    ours = {KIND: "bundle", KEY: key, OWNER: owner()}
    certificates = host_certificates()
    if certificates is not None:
        files["certificates.pem"] = certificates
    environment = build_environment("/harness/certificates.pem" if certificates else None)
    volume = client.volumes.create(f"{_marker(key)}-{secrets.token_hex(4)}", labels=ours)
    container = None
    bundle = None
    try:
        # The time limit is for the case that this process is killed: nobody else would stop the container.
        container = client.containers.create(
            base,
            ["timeout", str(BUILD_LIMIT_S), "sh", "/harness/bundle_build.sh", standalone, debian],
            environment=environment,
            init=True,
            labels=ours,
            network_mode=build_network(environment),
            volumes={volume.name: {"bind": MOUNT, "mode": "rw"}},
        )
        with _build_inputs(files) as archive:
            container.put_archive("/", archive)
        facts = _run(container, agent.name, paths.cache() / "bundles" / f"{agent.name}-{key}.log", progress)
        bundle = _publish(client, key, volume.name, facts)
    finally:
        if container is not None:
            _remove(container)
        if bundle is None or bundle.volume != volume.name:
            _remove(volume)
    return bundle


def _run(container: Container, name: str, log: Path, progress: Callable[[str], None]) -> dict[str, object]:
    """Run the build to its end; returns the facts that it printed. Raises MachineError."""
    facts: dict[str, object] = {}
    step: list[str] = []  # what the step under way has printed
    container.start()
    log.parent.mkdir(exist_ok=True)
    with log.open("w", encoding="utf-8") as file:
        for line in _lines(container.logs(stream=True, follow=True)):
            print(line, file=file, flush=True)
            if not line.startswith(SAYS):
                step += [line.strip()] if line.strip() else []
                continue
            word, _, rest = line.removeprefix(SAYS).partition(" ")
            if word != "giving":  # its reason comes by another pipe, and may have come before
                step.clear()
            if word == "built":
                facts |= json.loads(rest)
            elif word == "runtime":
                facts["runtime"] = rest
            else:
                progress(f"{name}: {word} {rest}")
    status = container.wait()["StatusCode"]
    if status != 0 or "size_bytes" not in facts:
        # uv puts the reason first and apt last; both are brief where they have failed.
        why = " ".join(step[-10:])[:600] or "it gave no reason"
        if status == 124:
            why = f"it took more than {BUILD_LIMIT_S} s"
        raise MachineError(f"the bundle of {name} can't be built (exit code {status}): {why}; all of the log: {log}")
    return facts


def _publish(client: docker.DockerClient, key: str, volume: str, facts: dict[str, object]) -> Bundle:
    """Make a filled volume the bundle of its key, unless somebody with another cache was faster."""
    if _find(client, key) is None:
        with suppress(NotFound):  # a marker whose volume was pruned
            client.volumes.get(_marker(key)).remove()
        client.volumes.create(_marker(key), labels={KIND: "bundle", KEY: key, VOLUME: volume, FACTS: json.dumps(facts)})
    bundle = _find(client, key)
    if bundle is None:
        raise MachineError(f"the volume {volume} disappeared while it was built: is something pruning volumes?")
    return bundle


def _remove(thing: Container | Volume) -> None:
    with suppress(NotFound):
        if isinstance(thing, Container):
            thing.remove(force=True, v=True)
        else:
            thing.remove(force=True)


def _lines(chunks: Iterator[bytes]) -> Iterator[str]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace").rstrip("\r")
    if rest:
        yield rest.decode(errors="replace")


@contextmanager
def _build_inputs(files: Mapping[str, Path]) -> Iterator[BytesIO]:
    """A tar archive of the folder /harness of the build container. A file: uv alone has 60 MB."""
    with tempfile.TemporaryFile() as spool:
        with tarfile.open(fileobj=spool, mode="w") as archive:
            for name, path in files.items():
                member = archive.gettarinfo(path.resolve(), f"harness/{name}")
                member.uid = member.gid = 0
                member.mode = 0o755
                with path.open("rb") as content:
                    archive.addfile(member, content)
        spool.seek(0)
        yield spool  # type: ignore[misc]
