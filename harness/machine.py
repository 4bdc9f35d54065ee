"""What machine this is, so that rows of different machines are never pooled."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def _cpu_model() -> str | None:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("model name", "Model")):
                return line.split(":", 1)[1].strip()
    except OSError:
        return None
    return None


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _gpus() -> list[str]:
    """NVIDIA GPUs as their driver names them; empty without its tool."""
    if shutil.which("nvidia-smi") is None:
        return []
    listing = subprocess.run(
        ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return [line.strip() for line in listing.stdout.splitlines() if line.strip()]


def facts(docker: Mapping[str, Any]) -> dict[str, Any]:
    """CPU, memory, GPUs, kernel, operating system, Docker (as `sandbox.daemon.facts` tells it). None of it names
    a person or an address."""
    release = platform.freedesktop_os_release()
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_bytes": _memory_bytes(),
        "architecture": platform.machine(),
        "gpus": _gpus(),
        "kernel": platform.release(),
        "os": release.get("PRETTY_NAME"),
        "cgroup": 2 if Path("/sys/fs/cgroup/cgroup.controllers").exists() else 1,
        **docker,
    }


def machine_id(known: dict[str, Any]) -> str:
    """A short hash of the facts; another kernel or Docker makes another machine."""
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:12]
