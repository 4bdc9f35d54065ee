"""Images of SWE-bench instances made here: from Debian's packages, the package index, and a release or a commit.

Three images, each a layer on the one before: the system (shared by all), an environment (shared by the instances of
a release series), an instance. Each is made in a container whose state is kept, by a script beside this module, and
has a tag made of the hash of what went into it. What makes an instance is in no layer: the fix and the tests that are
taken off a release are inputs of the container, removed before its state is kept.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import docker
import uv
from docker.errors import ImageNotFound
from docker.models.images import Image

from harness import paths
from harness.errors import MachineError, UserError
from harness.images import archives, commits, prepare
from harness.images.bases import Say, ensure_base
from harness.images.network import build_environment, build_network, host_certificates
from harness.images.recipes import Recipe
from harness.sandbox.container import Limits, running, tar_of
from harness.sandbox.daemon import KIND, OWNER, RUN, SWEEP, DockerFault, root_folder
from harness.suites.base import TarEntry
from harness.suites.swebench import SweBenchTask

RECIPES = Path(__file__).parent
INPUTS = "/harness"  # in the container; removed by each script
SYSTEM, ENVIRONMENT, INSTANCE = "rebuild_system.sh", "rebuild_environment.sh", "rebuild_instance.sh"

DEFAULT_PYTHON = "3.9"  # Debian 11's own serves every environment
BASE = "debian:bullseye-slim"
DEBIAN_PYTHON = "/usr/bin/python3.9"
DEBIAN_PACKAGES: tuple[str, ...] = ("python3", "python3-distutils", "python3-venv")

# A Python that the user names was built for a system of theirs: on Debian this one's libraries, else bookworm's.
FOREIGN_BASE = "debian:bookworm-slim"
FOREIGN_PACKAGES = (
    "libssl3",
    "libffi8",
    "libsqlite3-0",
    "libbz2-1.0",
    "liblzma5",
    "libreadline8",
    "zlib1g",
    "libncursesw6",
)

MEMORY_BYTES, DISK_BYTES, LIMIT_S = 4 << 30, 4 << 30, 1800.0

REPOSITORY = "harness-rebuilt"
INSTANCE_LABEL = "harness.instance"
SOURCE_LABEL = "harness.source"  # archive or commit
ORIGIN_LABEL = "harness.origin"  # which
PYTHON_LABEL = "harness.python"
ROW_LABEL = "harness.row"  # hash of what of the data set's row the image depends on

# Measured over the fifty: what is asked for beforehand, not what is promised.
SYSTEM_BYTES, ENVIRONMENT_BYTES, INSTANCE_BYTES, SPARE_BYTES = 320 << 20, 120 << 20, 80 << 20, 1 << 30


@dataclass(frozen=True)
class Rebuilt:
    """An instance's image that is here."""

    image: str  # id
    source: str  # archive or commit
    origin: str
    python: str


@dataclass(frozen=True)
class Pythons:
    """Prefixes of Python installations that the user provides, by version."""

    prefixes: Mapping[str, Path]

    def choose(self, recipe: Recipe) -> tuple[str, Path | None]:
        """The version for an environment and, where it is the user's, its prefix."""
        for version in recipe.pythons():
            if version in self.prefixes:
                return version, self.prefixes[version]
        return DEFAULT_PYTHON, None


def read_pythons(words: Sequence[str], recipes: Mapping[str, Recipe]) -> Pythons:
    """`3.6=PREFIX` as the user typed it. Raises UserError for one that is no Python, or that no environment is for."""
    prefixes: dict[str, Path] = {}
    known = sorted({version for recipe in recipes.values() for version in recipe.pythons()})
    for word in words:
        version, equals, prefix = word.partition("=")
        if not equals or not re.fullmatch(r"3\.\d+", version):
            raise UserError(f"--python {word!r}: expected VERSION=PREFIX, such as 3.6=/opt/python3.6")
        if version not in known:
            raise UserError(
                f"--python {word}: no environment of this suite is for Python {version}: {' and '.join(known)} are"
            )
        path = Path(prefix).expanduser().absolute()
        if not os.access(path / "bin" / f"python{version}", os.X_OK):
            raise UserError(f"--python {word}: there is no {path}/bin/python{version} that can be run")
        prefixes[version] = path
    return Pythons(prefixes)


def find(client: docker.DockerClient, task: SweBenchTask) -> Rebuilt | None:
    """The image of an instance that was made here: from its commit if there is one, else from a release."""
    images = client.images.list(name=_repository(task.name), filters={"label": f"{ROW_LABEL}={task.image_hash}"})
    found = [_describe(image) for image in images if image.labels.get(INSTANCE_LABEL) == task.name]
    return min(found, key=lambda rebuilt: rebuilt.source != "commit", default=None)


def _describe(image: Image) -> Rebuilt:
    labels = image.labels
    return Rebuilt(str(image.id), labels[SOURCE_LABEL], labels[ORIGIN_LABEL], labels[PYTHON_LABEL])


def build(
    client: docker.DockerClient,
    task: SweBenchTask,
    recipe: Recipe | None,
    say: Say,
    *,
    source: str | None = None,
    pythons: Pythons = Pythons({}),
) -> Rebuilt:
    """Make the image of an instance, unless the same one is here. `source` names a git server; None means a release.

    Raises UserError when it can't be made from what was named, MachineError when something can't be fetched, a script
    fails (the end of its log, and where all of it is) or Docker does.
    """
    if recipe is None:
        raise UserError(f"{task.name} has no recipe: its suite has only published images (harness tasks pull)")
    if source is None and recipe.archive is None:
        raise UserError(
            f"{task.name} can't be built from a release ({recipe.only_from_commit}): "
            "name a git server with its commit, such as --from github"
        )
    try:
        with paths.lock(f"rebuild-{task.name}"):
            return _build(client, task, recipe, say, source, pythons)
    except DockerFault as error:
        raise MachineError(f"the image of {task.name} can't be built: Docker said: {error}") from error


def _build(
    client: docker.DockerClient,
    task: SweBenchTask,
    recipe: Recipe,
    say: Say,
    source: str | None,
    pythons: Pythons,
) -> Rebuilt:
    environment, python = _environment(client, recipe, pythons, say)
    inputs: dict[str, TarEntry] = {}
    if source is not None:
        kind, what, arguments = "commit", task.base_commit, ["exact"]
        fetch = partial(commits.fetch, task.repo, what, commits.GITHUB if source == "github" else source)
        tag = _key(INSTANCE, environment, task.image_hash, what)
    else:
        assert recipe.archive is not None
        assert recipe.sha256 is not None
        kind, what = "archive", recipe.archive
        fetch = partial(archives.fetch, what, recipe.sha256)
        tag = _key(INSTANCE, environment, task.image_hash, recipe.sha256, str(recipe.undo), str(recipe.fuzz))
        arguments = ["archive", *(["fuzz"] if recipe.fuzz else [])]
        if recipe.undo:
            inputs |= {
                f"{INPUTS}/fix.patch": task.gold_patch.encode(),
                f"{INPUTS}/tests.patch": task.test_patch.encode(),
            }
    name = f"{_repository(task.name)}:{tag}"
    if (found := _image(client, name)) is not None:
        return _describe(found)
    say(f"{task.name}: building from {what if kind == 'archive' else f'commit {what[:12]}'}")
    inputs[f"{INPUTS}/source.tar"] = fetch().read_bytes()
    labels = {
        INSTANCE_LABEL: task.name,
        SOURCE_LABEL: kind,
        ORIGIN_LABEL: what,
        PYTHON_LABEL: python,
        ROW_LABEL: task.image_hash,
    }
    _made(client, environment, name, INSTANCE, arguments, inputs, log=task.name, labels=labels, workdir="/testbed")
    _forget_older(client, task, name, kind)
    return _describe(client.images.get(name))


def _environment(client: docker.DockerClient, recipe: Recipe, pythons: Pythons, say: Say) -> tuple[str, str]:
    """The id of an environment's image, made if need be, and its Python's version."""
    version, prefix = pythons.choose(recipe)
    lock = recipe.lock(version)
    base, interpreter, packages = BASE, DEBIAN_PYTHON, DEBIAN_PACKAGES
    if prefix is not None:
        base, interpreter, packages = FOREIGN_BASE, f"{prefix}/bin/python{version}", FOREIGN_PACKAGES
    with paths.lock(f"rebuild-environment-{recipe.environment}"):
        system = _system(client, base, packages, say)
        inputs: dict[str, TarEntry] = {
            f"{INPUTS}/uv": (Path(uv.find_uv_bin()).read_bytes(), 0o755),
            f"{INPUTS}/requirements.lock": lock,
        }
        if prefix is not None:
            inputs[str(prefix)] = prefix
        key = _key(ENVIRONMENT, system, recipe.lock_hash(version), interpreter)
        name = f"harness-environment/{recipe.environment}:{key}"
        if (found := _image(client, name)) is not None:
            return str(found.id), version
        say(f"environment {recipe.environment}: installing the packages for Python {version}")
        log = f"environment-{recipe.environment}-py{version}"
        return _made(client, system, name, ENVIRONMENT, [interpreter], inputs, log=log, network=True), version


def _system(client: docker.DockerClient, base: str, packages: Sequence[str], say: Say) -> str:
    """The id of the image of the system, made if need be."""
    with paths.lock("rebuild-system"):
        name = f"harness-environment/system:{_key(SYSTEM, base, *packages)}"
        if (found := _image(client, name)) is not None:
            return str(found.id)
        ensure_base(client, base, say)
        say(f"the system: installing Debian's packages on {base}")
        image = str(client.images.get(base).id)
        return _made(client, image, name, SYSTEM, packages, {}, log="system", network=True)


def _image(client: docker.DockerClient, name: str) -> Image | None:
    try:
        return client.images.get(name)
    except ImageNotFound:
        return None


def _made(
    client: docker.DockerClient,
    image: str,
    name: str,
    script: str,
    arguments: Sequence[str],
    inputs: Mapping[str, TarEntry],
    *,
    log: str,
    network: bool = False,
    labels: Mapping[str, str] = {},
    workdir: str = "/",
) -> str:
    """Run a script in a container of `image` and keep its state as `name`. Returns the new image's id."""
    files: dict[str, TarEntry] = {f"{INPUTS}/{script}": RECIPES / script, **inputs}
    environment: dict[str, str] = {}
    if network:
        certificates = host_certificates()
        if certificates is not None:
            files[f"{INPUTS}/certificates.pem"] = certificates.read_bytes()
        environment = build_environment(f"{INPUTS}/certificates.pem" if certificates else None)
    limits = Limits(float(client.info()["NCPU"]), MEMORY_BYTES, DISK_BYTES, LIMIT_S)
    path = paths.cache() / "builds" / f"{log}.log"
    path.parent.mkdir(exist_ok=True)
    with (
        path.open("wb") as file,
        running(
            client, image, kind="build", limits=limits, files=tar_of(files), hardened=False,
            network=build_network(environment) if network else "none",
        ) as container,
    ):  # fmt: skip

        def keep(chunk: bytes) -> None:
            file.write(chunk)

        # Settings of this host's network are the command's, so that no image keeps them.
        command = container.begin(["sh", f"{INPUTS}/{script}", *arguments], env=environment, sink=keep)
        while not command.wait(1.0):
            pass
        code = command.exit().code
        if code != 0:
            file.flush()
            said = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
            how = "its container was ended" if code is None else f"exit code {code}"
            raise MachineError(f"{log} does not build ({how}): {' / '.join(said[-3:])[-600:]} (all of it: {path})")
        repository, _, tag = name.partition(":")
        conf = {
            "Cmd": ["bash"],
            "Entrypoint": [],
            "WorkingDir": workdir,
            # The container's labels pass on to the image, and from there to a container that anyone starts.
            "Labels": {KIND: "", OWNER: "", RUN: "", SWEEP: "", **labels},
        }
        return str(client.api.commit(container.id, repository, tag, conf=conf)["Id"])


def _forget_older(client: docker.DockerClient, task: SweBenchTask, name: str, kind: str) -> None:
    """Remove the tags of images of the same instance that this one replaces."""
    for image in client.images.list(name=_repository(task.name)):
        mine = (image.labels.get(INSTANCE_LABEL), image.labels.get(SOURCE_LABEL)) == (task.name, kind)
        if mine and name not in image.tags:
            prepare.forget(client, str(image.id))
            for tag in image.tags:
                client.images.remove(tag)


def check_space(client: docker.DockerClient, tasks: Sequence[SweBenchTask], recipes: Mapping[str, Recipe]) -> None:
    """Raises MachineError when Docker has less room than the images of `tasks` that are not here yet will take."""
    root = root_folder(client)
    if root is None:
        return
    needed, free = missing_bytes(client, tasks, recipes), shutil.disk_usage(root).free
    if needed + SPARE_BYTES > free:
        raise MachineError(
            f"{root} has {free >> 20} MB left, and the images will take about {needed >> 20} MB: "
            "make room, or build fewer with --only"
        )


def missing_bytes(client: docker.DockerClient, tasks: Sequence[SweBenchTask], recipes: Mapping[str, Recipe]) -> int:
    """About how much disk the images of `tasks` will take that are not here yet."""
    environments = {recipes[task.name].environment for task in tasks if task.name in recipes}
    built = {name for name in environments if client.images.list(name=f"harness-environment/{name}")}
    system = 0 if client.images.list(name="harness-environment/system") else SYSTEM_BYTES
    instances = sum(find(client, task) is None for task in tasks)
    return system + len(environments - built) * ENVIRONMENT_BYTES + instances * INSTANCE_BYTES


def _repository(instance: str) -> str:
    return f"{REPOSITORY}/{instance.lower()}"


def _key(script: str, *parts: str) -> str:
    content = (RECIPES / script).read_bytes()
    return hashlib.sha256(b"\0".join([content, *(part.encode() for part in parts)])).hexdigest()[:20]
