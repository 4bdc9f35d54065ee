"""What a machine needs for sweeps that can be trusted: each check with what it found, why it matters, what mends it.

A check that fails is `missing` (no sweep goes without), or `look` (a sweep goes, and something will be worse).
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import docker
import psutil

from harness.engines import open_engine
from harness.engines.base import Engine, ModelInfo
from harness.errors import HarnessError
from harness.images import bundle
from harness.manifests import find_agents
from harness.sandbox import leftovers
from harness.sandbox.daemon import connect, elsewhere, root_folder
from harness.spec import DEFAULT_NUM_CTX
from harness.store.agreement import damaged
from harness.store.db import read_store

State = Literal["ok", "look", "missing"]
SPACE_BYTES = {"smoke": 3 << 30, "swe-bench-verified-mini": 10 << 30}
"""By suite, what images, bundles and artefacts come to in Docker's folder; what users told of others: 130 GB."""
MOST_BYTES = 130 << 30
RUNS_BYTES = 2 << 30
LOADED_BYTES = 2 << 30
"""A model is loaded to see its window if it is smaller than that: seconds."""
BUSY_S, BUSY_SHARE = 1.0, 0.25
LEAST_PYTHON = (3, 11)


@dataclass(frozen=True)
class Finding:
    """`mend` is a command, empty where none is needed or known; `fixed` says what --fix has done."""

    check: str
    state: State
    found: str
    why: str
    mend: str = ""
    fixed: str = ""


class Trouble(Exception):
    """A check failed. `fix` mends it safely, returning what it did."""

    def __init__(self, found: str, mend: str = "", fix: Callable[[], str] | None = None) -> None:
        super().__init__(found)
        self.found, self.mend, self.fix = found, mend, fix


@dataclass(frozen=True)
class Check:
    name: str
    why: str
    needed: bool
    look: Callable[[Place], str]
    """What was found. Raises Trouble, or any HarnessError."""


@dataclass(frozen=True)
class Place:
    """What is looked at."""

    database: Path
    runs_dir: Path
    suite: str

    @cached_property
    def client(self) -> docker.DockerClient:
        return connect(timeout_s=10)


def examine(place: Place, fix: bool) -> Iterator[Finding]:
    """Every check in turn; with `fix`, what is safe is mended and looked at again."""
    for check in CHECKS:
        finding, mender = _look(check, place)
        if fix and mender is not None:
            done = mender()
            finding = replace(_look(check, place)[0], fixed=done)
        yield finding


def _look(check: Check, place: Place) -> tuple[Finding, Callable[[], str] | None]:
    failed: State = "missing" if check.needed else "look"
    try:
        return Finding(check.name, "ok", check.look(place), check.why), None
    except Trouble as trouble:
        return Finding(check.name, failed, trouble.found, check.why, trouble.mend), trouble.fix
    except HarnessError as error:
        return Finding(check.name, failed, str(error), check.why), None


def _docker(place: Place) -> str:
    info = place.client.info()
    limits = [
        name for name in ("MemoryLimit", "PidsLimit", "CpuCfsQuota") if info.get(name) is False
    ]  # fmt: skip
    found = (
        f"{info['ServerVersion']}, storage {info['Driver']}, cgroup version {info.get('CgroupVersion', '1')}, "
        f"folder {info['DockerRootDir']}"
    )
    if reason := elsewhere(place.client):
        found += f"; on another machine: {reason}, so energy, memory and CPU time of sandboxes are unknown here"
    if limits:
        raise Trouble(f"{found}; its kernel can't limit {', '.join(limits)}")
    return found


def _space(place: Place) -> str:
    needed = SPACE_BYTES.get(place.suite, MOST_BYTES)
    root = root_folder(place.client)
    folders = [(_existing(place.runs_dir), RUNS_BYTES)]
    short = []
    said = []
    if root is None:
        said.append(f"Docker's folder can't be seen from here ({elsewhere(place.client) or 'it may not be looked at'})")
    else:
        folders.insert(0, (root, needed))
    for folder, bytes_ in folders:
        free = shutil.disk_usage(folder).free
        said.append(f"{free / 1e9:,.0f} GB free at {folder}")
        if free < bytes_:
            short.append(f"{folder} has {free / 1e9:,.0f} GB free, and {place.suite} needs {bytes_ / 1e9:,.0f}")
    if short:
        raise Trouble("; ".join(short), "docker system df")
    return f"{', '.join(said)}; {place.suite} needs {needed / 1e9:,.0f}"


def _existing(folder: Path) -> Path:
    return next(each for each in (folder, *folder.parents) if each.exists())


def _git(place: Place) -> str:
    where = shutil.which("git")
    if where is None:
        raise Trouble("git is not installed", "sudo apt-get install git")
    return where


def _python(place: Place) -> str:
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info < LEAST_PYTHON:
        raise Trouble(f"{found}, and the harness needs 3.11", "uv python install 3.11")
    return found


def _clock(place: Place) -> str:
    """Told by the system's own service; where there is none it is unknown, which is not a fault."""
    command = shutil.which("timedatectl")
    if command is None:
        return "nothing here says whether the clock is set by the network; runs are timed by a clock that is never set"
    said = subprocess.run(
        [command, "show", "-p", "NTPSynchronized", "--value"], capture_output=True, text=True, check=False, timeout=10
    )
    if said.returncode == 0 and said.stdout.strip() == "no":
        raise Trouble("the clock is not set by the network", "sudo timedatectl set-ntp true")
    return "set by the network" if said.stdout.strip() == "yes" else "whether it is set by the network is unknown"


def _engine(name: str, place: Place) -> str:
    with contextlib.closing(open_engine(name, [])) as engine:
        models = [info.name for info in engine.list_models()]
        return f"version {engine.version() or 'unknown'}; " + (", ".join(models) or "no model yet")


def _windows(place: Place) -> str:
    """Where no model is in memory the smallest is loaded as a sweep would, and unloaded; what somebody else has loaded
    is told and left alone."""
    said = []
    for name in ("ollama", "llamacpp"):
        with contextlib.suppress(HarnessError):  # that an engine is not here is said by its own check
            engine = open_engine(name, [])
            with contextlib.closing(engine):
                models = engine.list_models()
                said += [f"{name}: {words}" for words in (_window(engine, models) if models else ())]
    return "; ".join(said) or "no engine here has a model"


def _window(engine: Engine, models: Sequence[ModelInfo]) -> list[str]:
    """Raises Trouble for a window that is not the one asked for."""
    loaded = [(model.name, engine.loaded_context_tokens(model.name)) for model in models]
    in_memory = [f"{name} is in memory with {window:,} tokens" for name, window in loaded if window is not None]
    if in_memory:
        return in_memory
    model = min(models, key=lambda model: model.size_bytes or LOADED_BYTES)
    if (model.size_bytes or LOADED_BYTES) >= LOADED_BYTES:
        return [f"none is in memory, and {model.name}, its smallest model, is not loaded to see"]
    asked = min(DEFAULT_NUM_CTX, model.context_tokens or DEFAULT_NUM_CTX)
    try:
        told = engine.prepare(model.name, asked).loaded_context_tokens
    except HarnessError as error:
        raise Trouble(str(error)) from error
    if told is None:
        return [f"{model.name} was loaded, and the server does not tell with what window"]
    return [f"{model.name} was loaded with {told:,} tokens, as a sweep asks for"]


def _bundles(place: Place) -> str:
    agents, _ = find_agents()
    return ", ".join(
        f"{agent.name}: {'ready' if bundle.find(place.client, agent) else 'not built (the first sweep builds it)'}"
        for agent in agents
        if agent.needs_python
    )


def _instances(place: Place) -> str:
    from harness.grading.swebench import check_parsers
    from harness.images.rebuilt import REPOSITORY

    check_parsers()
    tags = [tag for image in place.client.images.list() for tag in image.tags]
    pulled = sum("/sweb.eval." in tag for tag in tags)
    built = len({tag.partition(":")[0] for tag in tags if tag.startswith(f"{REPOSITORY}/")})
    return f"official parsers; images of instances: {pulled} published, {built} rebuilt"


def _energy(place: Place) -> str:
    from harness.experiment import describe
    from harness.meter.figures import is_measured
    from harness.meter.meter import Meter

    meter = Meter()
    try:
        lines = [line.strip() for line in describe(meter)]
        grant = meter.rapl.grant
    finally:
        meter.stop()
    said = "; ".join(
        [lines[0].removeprefix("energy: "), *(line for line in lines[1:] if not line.startswith("grant:"))]
    )
    if not is_measured(meter.by_key):
        raise Trouble(said, grant or "")
    return said


def _quiet(place: Place) -> str:
    busy = psutil.cpu_percent(BUSY_S) / 100
    if busy > BUSY_SHARE:
        time.sleep(0.1)  # so that the second look is a new one
        by_cpu = sorted(psutil.process_iter(["name", "pid", "cpu_percent"]), key=_cpu, reverse=True)
        names = ", ".join(f"{each.info['name']} ({each.info['pid']})" for each in by_cpu[:3] if each.pid != os.getpid())
        raise Trouble(f"{busy:.0%} of the processors are busy with something else, first of all {names}")
    return f"{busy:.0%} of the processors are busy"


def _cpu(process: psutil.Process) -> float:
    return float(process.info["cpu_percent"] or 0.0)


def _leftovers(place: Place) -> str:
    found = leftovers.find(place.client, place.runs_dir)
    if not found:
        return "none"

    def clean() -> str:
        leftovers.remove(place.client, found)
        bundles = bundle.remove_leftovers(place.client)
        return (
            f"removed {len(found.containers)} containers, {len(found.files)} unfinished files and folders, and "
            f"{len(bundles)} half-built bundles"
        )

    raise Trouble(
        f"a killed harness left {len(found.containers)} containers and {len(found.files)} unfinished files and folders",
        "harness clean",
        clean,
    )


def _database(place: Place) -> str:
    with contextlib.closing(read_store(place.database)) as store:
        [(state,)] = store.execute("PRAGMA quick_check(1)").fetchall()
        if state != "ok":
            raise Trouble(f"{place.database} is damaged: {state}", f"sqlite3 {place.database} .recover")
        if broken := store.execute("PRAGMA foreign_key_check").fetchone():
            raise Trouble(f"{place.database}: a row of {broken[0]} belongs to none of {broken[2]}")
        runs = store.table("runs").count
        files = store.table("artefacts").count
        for (sweep_id,) in store.execute("SELECT sweep_id FROM sweeps").fetchall():
            if wrong := damaged(store, place.runs_dir, sweep_id):
                raise Trouble(
                    f"files of {len(wrong):,} runs of sweep {sweep_id} are not what was stored in {place.runs_dir}, "
                    f"first: {next(iter(wrong.values()))}",
                    f"harness sweep --resume {sweep_id}",
                )
    return f"{place.database}: whole, {runs:,} runs, {files:,} files, each as it was stored"


CHECKS = (
    Check("docker", "every run has a container of its own, whose limits are the kernel's", True, _docker),
    Check("space", "images and bundles lie in Docker's folder; a full disk spoils runs", True, _space),
    Check("git", "patches are taken by it", True, _git),
    Check("python", "the harness runs in it; agents bring their own", True, _python),
    Check("clock", "rows carry the time; seconds and joules do not depend on it", False, _clock),
    Check("ollama", "models without a prefix are served by it", False, partial(_engine, "ollama")),
    Check(
        "llama.cpp", "models as llamacpp/... are served by it, without a server", False, partial(_engine, "llamacpp")
    ),
    Check("window", "a model whose window is smaller than it seems forgets the issue in silence", False, _windows),
    Check("bundles", "an agent's framework is built once, which takes minutes", False, _bundles),
    Check("swe-bench", "its instances are graded by the official parsers in their own images", False, _instances),
    Check("energy", "without counters most of an energy is a constant times seconds", False, _energy),
    Check("quiet", "what else runs is in the counters, and slows runs", False, _quiet),
    Check("leftovers", "they hold memory and disk", False, _leftovers),
    Check("database", "it is the record of all that was measured", False, _database),
)
