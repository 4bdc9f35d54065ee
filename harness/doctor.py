"""What a machine needs for sweeps that can be trusted: each check with what it found, why it matters, what mends it.

A check that fails is `missing` (no sweep goes without), or `look` (a sweep goes, and something will be worse).
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil

from harness import paths
from harness.checkup import Check, Finding, Place, Trouble, look_at
from harness.engines import open_engine
from harness.engines.base import Engine, ModelInfo
from harness.errors import HarnessError, MachineError, UserError
from harness.images import bundle
from harness.manifests import find_agents
from harness.sandbox import leftovers
from harness.sandbox.daemon import elsewhere, root_folder
from harness.spec import DEFAULT_NUM_CTX
from harness.store.agreement import damaged
from harness.store.db import damage, read_store

SPACE_BYTES = {"smoke": 3 << 30, "swe-bench-verified-mini": 10 << 30}
"""By suite, what images, bundles and artefacts come to in Docker's folder; what users told of others: 130 GB."""
MOST_BYTES = 130 << 30
RUNS_BYTES = 2 << 30
LOADED_BYTES = 2 << 30
"""A model is loaded to see its window if it is smaller than that: seconds."""
BUSY_S, BUSY_SHARE = 1.0, 0.25
LEAST_PYTHON = (3, 11)


def examine(place: Place, fix: bool, checks: Sequence[Check] | None = None) -> Iterator[Finding]:
    """Every check in turn; with `fix`, what is safe is mended and looked at again."""
    for check in checks or CHECKS:
        finding, mender = look_at(check, place)
        if fix and mender is not None:
            done = mender()
            finding = replace(look_at(check, place)[0], fixed=done)
        yield finding


def _mend_docker(said: str) -> str:
    if "usermod" in said:
        return "sudo usermod -aG docker $USER"
    if os.environ.get("DOCKER_HOST"):
        return "unset DOCKER_HOST"
    if shutil.which("dockerd") is None:
        return "make setup" if (paths.PACKAGE.parent / "Makefile").is_file() else "sudo apt-get install docker.io"
    return "sudo systemctl start docker"


def _docker(place: Place) -> str:
    if isinstance(place.reached, HarnessError):
        raise Trouble(str(place.reached), _mend_docker(str(place.reached)))
    info = place.client.info()
    limits = [
        name for name in ("MemoryLimit", "PidsLimit", "CpuCfsQuota") if info.get(name) is False
    ]  # fmt: skip
    found = (
        f"{info['ServerVersion']}, storage {info['Driver']}, cgroup version {info.get('CgroupVersion', '1')}, "
        f"folder {info['DockerRootDir']}"
    )
    options = " ".join(info.get("SecurityOptions") or [])
    if "name=rootless" in options:
        found += "; rootless: its control groups are the user's own"
    if "name=userns" in options:
        found += "; user namespaces are remapped: a sandbox's root is nobody here"
    if info.get("CgroupDriver") == "none":
        raise Trouble(
            f"{found}; it has no control groups: nothing limits memory, processes and cores of a sandbox, and its "
            "memory and CPU time are unknown",
            "sudo systemctl set-property user@$(id -u).service Delegate=yes",
        )
    if reason := elsewhere(place.client):
        found += f"; on another machine: {reason}, so energy, memory and CPU time of sandboxes are unknown here"
    if limits:
        raise Trouble(f"{found}; its kernel can't limit {', '.join(limits)}")
    if not any("name=seccomp" in option for option in info["SecurityOptions"]):
        raise Trouble(f"{found}; it has no seccomp, so no sandbox starts, whose system calls have to be filtered")
    return found


def _space(place: Place) -> str:
    needed = SPACE_BYTES.get(place.suite, MOST_BYTES)
    root = root_folder(place.client)
    folders = [(_existing(place.runs_dir), RUNS_BYTES)]
    short = []
    said = []
    mend = "docker system prune"
    if root is None:
        said.append(f"Docker's folder can't be seen from here ({elsewhere(place.client) or 'it may not be looked at'})")
    else:
        folders.insert(0, (root, needed))
    for folder, bytes_ in folders:
        free = shutil.disk_usage(folder).free
        said.append(f"{free / 1e9:,.0f} GB free at {folder}")
        if free < bytes_:
            short.append(f"{folder} has {free / 1e9:,.1f} GB free, and {place.suite} needs {bytes_ / 1e9:,.0f}")
            mend = mend if folder == root else "harness sweep --runs-dir FOLDER-ON-A-LARGER-DISK"
    if short:
        raise Trouble("; ".join(short), mend)
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
        found = f"version {engine.version() or 'unknown'}"
    if not models:
        model = "smollm2:135m" if name == "ollama" else f"{name}/smollm2:135m"
        raise Trouble(f"{found}; no model yet", f"harness models pull {model}")
    return f"{found}; {', '.join(models)}"


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
    with_bundle = [agent for agent in agents if agent.needs_python]
    missing = [agent.name for agent in with_bundle if bundle.find(place.client, agent) is None]
    ready = [agent.name for agent in with_bundle if agent.name not in missing]
    found = f"ready: {', '.join(ready) or 'none'}"
    if missing:
        raise Trouble(
            f"{found}; not built, which the first sweep with one does: {', '.join(missing)}",
            f"harness agents build {','.join(missing)}",
        )
    return found


def _instances(place: Place) -> str:
    from harness.grading.swebench import check_parsers
    from harness.images.rebuilt import REPOSITORY

    try:
        check_parsers()
    except UserError as error:
        raise Trouble(str(error), "pip install 'agent-energy-harness[swebench]'") from error
    tags = [tag for image in place.client.images.list() for tag in image.tags]
    pulled = sum("/sweb.eval." in tag for tag in tags)
    built = len({tag.partition(":")[0] for tag in tags if tag.startswith(f"{REPOSITORY}/")})
    found = f"official parsers; images of instances: {pulled} published, {built} rebuilt"
    if place.suite.startswith("swe-bench") and not pulled + built:
        raise Trouble(f"{found}, and a sweep fetches none", f"harness tasks pull {place.suite}")
    return found


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
        install = re.search(r"pip install '[^']+'", said)
        mend = grant or (install[0] if install else "harness sweep --meter 'command:WHAT-READS-YOUR-METER'")
        raise Trouble(said, mend)
    return said


def _quiet(place: Place) -> str:
    for _ in psutil.process_iter(["cpu_percent"]):
        pass  # the first look at a process is what the next one is compared with
    busy = psutil.cpu_percent(BUSY_S) / 100
    if busy > BUSY_SHARE:
        others = [each for each in psutil.process_iter(["name", "cpu_percent"]) if each.pid != os.getpid()]
        names = ", ".join(
            f"{each.info['name']} ({each.pid})"
            for each in sorted(others, key=lambda each: -(each.info["cpu_percent"] or 0.0))[:3]
        )
        raise Trouble(
            f"{busy:.0%} of the processors are busy with something else, first of all {names}",
            "harness sweep --when-busy wait",
        )
    return f"{busy:.0%} of the processors are busy"


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
    path = place.database
    # Not .recover, which Debian's has not.
    rescue = f"sqlite3 {path} '.clone {path.with_suffix('.recovered.db')}'"
    if shutil.which("sqlite3") is None:
        rescue = f"sudo apt-get install sqlite3 && {rescue}"
    if not path.exists():
        return f"none yet at {path}: the first sweep makes it"
    try:
        with contextlib.closing(read_store(path)) as store:
            if wrong_pages := damage(store):
                raise Trouble(f"{path} is damaged: {wrong_pages}", rescue)
            if broken := store.execute("PRAGMA foreign_key_check").fetchone():
                raise Trouble(f"{path}: a row of {broken[0]} belongs to none of {broken[2]}", rescue)
            runs = store.table("runs").count
            files = store.table("artefacts").count
            for (sweep_id,) in store.execute("SELECT sweep_id FROM sweeps").fetchall():
                try:
                    wrong = damaged(store, place.runs_dir, sweep_id)
                except UserError as error:
                    raise Trouble(str(error), f"sudo chown -R $(id -u) {place.runs_dir}") from error
                if wrong:
                    raise Trouble(
                        f"files of {len(wrong):,} runs of sweep {sweep_id} are not what was stored in "
                        f"{place.runs_dir}, first: {next(iter(wrong.values()))}",
                        f"harness sweep --resume {sweep_id}",
                    )
    except (sqlite3.DatabaseError, MachineError) as error:
        raise Trouble(f"{path} can't be read: {error}", rescue) from error
    except UserError as error:
        newer = "newer harness" in str(error)
        mend = "pip install --upgrade agent-energy-harness" if newer else "harness doctor --db THE-DATABASE"
        raise Trouble(str(error), mend) from error
    return f"{path}: whole, {runs:,} runs, {files:,} files, each as it was stored"


CHECKS = (
    Check("docker", "every run has a container of its own, whose limits are the kernel's", True, _docker),
    Check("space", "images and bundles lie in Docker's folder; a full disk spoils runs", True, _space),
    Check("git", "patches are taken by it", True, _git),
    Check("python", "the harness runs in it; agents bring their own", True, _python),
    Check("clock", "rows carry the time; seconds and joules do not depend on it", False, _clock),
    Check("ollama", "models without a prefix are served by it", False, partial(_engine, "ollama"), "ollama serve"),
    Check(
        "llama.cpp",
        "models as llamacpp/... are served by it, without a server",
        False,
        partial(_engine, "llamacpp"),
        "pip install 'agent-energy-harness[llamacpp]'",
    ),
    Check(
        "window",
        "a model whose window is smaller than it seems forgets the issue in silence",
        False,
        _windows,
        "sudo systemctl restart ollama",
    ),
    Check("bundles", "an agent's framework is built once, which takes minutes", False, _bundles),
    Check("swe-bench", "its instances are graded by the official parsers in their own images", False, _instances),
    Check("energy", "without counters most of an energy is a constant times seconds", False, _energy),
    Check("quiet", "what else runs is in the counters, and slows runs", False, _quiet),
    Check("leftovers", "they hold memory and disk", False, _leftovers),
    Check("database", "it is the record of all that was measured", False, _database),
)
