"""Memory and CPU time of a container, read from the kernel's control groups (versions 1 and 2).

The files are world-readable, so this works for a plain user. Where they are not to be seen (a remote engine, a
virtual machine as in Docker Desktop) every reading is None.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Cgroup:
    """Where a container's figures lie: one folder in version 2, one for each controller in version 1."""

    memory: Path | None
    cpu: Path | None
    version: int


def of_process(pid: int) -> Cgroup:
    """The control groups of a process on this host."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return Cgroup(None, None, 0)
    groups = {}
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            groups[controller] = path
    if "memory" in groups:
        memory = ROOT / "memory" / groups["memory"].lstrip("/")
        cpu = ROOT / "cpuacct" / groups.get("cpuacct", "/").lstrip("/")
        return Cgroup(memory if memory.is_dir() else None, cpu if cpu.is_dir() else None, 1)
    unified = ROOT / groups.get("", "/").lstrip("/")
    found = unified if unified.is_dir() and unified != ROOT else None
    return Cgroup(found, found, 2)


def of_container(pid: int, container_id: str) -> Cgroup:
    """The control groups of a container's process, if that is what the number means on this host. Where Docker lives in
    a machine or a namespace of its own another process may have it: the container's groups bear its id."""
    found = of_process(pid)
    if any(container_id in str(folder) for folder in (found.memory, found.cpu)):
        return found
    return Cgroup(None, None, found.version)


def anonymous_bytes(group: Cgroup) -> int | None:
    """Memory that no file backs: what the processes themselves hold."""
    key = "total_rss" if group.version == 1 else "anon"
    return _field(group.memory, "memory.stat", key)


def shared_bytes(group: Cgroup) -> int | None:
    """What lies in file systems that are memory, a container's /tmp above all."""
    return _field(group.memory, "memory.stat", "total_shmem" if group.version == 1 else "shmem")


def peak_bytes(group: Cgroup) -> int | None:
    """The kernel's own peak, page cache included; None on kernels that do not keep it."""
    return _number(group.memory, "memory.max_usage_in_bytes" if group.version == 1 else "memory.peak")


def oom_kills(group: Cgroup) -> int | None:
    """How many processes the kernel killed because the container was out of memory."""
    if group.version == 1:
        return _field(group.memory, "memory.oom_control", "oom_kill")
    return _field(group.memory, "memory.events", "oom_kill")


def cpu_file(group: Cgroup) -> Path | None:
    """The file that tells the CPU time used so far: nanoseconds, or in version 2 a line of microseconds at its top."""
    if group.cpu is None:
        return None
    return group.cpu / ("cpuacct.usage" if group.version == 1 else "cpu.stat")


def cpu_s(group: Cgroup) -> float | None:
    """CPU seconds used so far, user and system."""
    if group.version == 1:
        nanoseconds = _number(group.cpu, "cpuacct.usage")
        return None if nanoseconds is None else nanoseconds / 1e9
    microseconds = _field(group.cpu, "cpu.stat", "usage_usec")
    return None if microseconds is None else microseconds / 1e6


def _number(folder: Path | None, name: str) -> int | None:
    if folder is None:
        return None
    try:
        return int((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _field(folder: Path | None, name: str, key: str) -> int | None:
    if folder is None:
        return None
    try:
        for line in (folder / name).read_text(encoding="utf-8").splitlines():
            word, _, value = line.partition(" ")
            if word == key:
                return int(value)
    except (OSError, ValueError):
        return None
    return None
