"""Where a model server runs: on this machine, in a container on it, or elsewhere. Decides whose energy is measured."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import psutil

Word = Literal["local", "container", "remote"]

_CONTAINER = re.compile(r"docker|containerd|libpod|kubepods|lxc|podman")
_BRIDGE = re.compile(r"^(docker\d|br-|podman\d|cni-podman)")


@dataclass(frozen=True)
class Location:
    """`reason` is a short phrase; `pids` are the server's processes where they can be seen from here."""

    word: Word
    reason: str
    pids: tuple[int, ...] = ()


def of_url(url: str) -> Location:
    """Where the server at a URL runs. A name that does not resolve is elsewhere."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(parts.hostname or "", port, type=socket.SOCK_STREAM)
    except OSError:
        return Location("remote", "its name does not resolve here")
    return of_addresses([str(info[4][0]) for info in found], port)


def of_addresses(addresses: Sequence[str], port: int) -> Location:
    """Where a server is that answers at one of these addresses."""
    own, bridges = _interfaces()
    for text in addresses:
        address = ipaddress.ip_address(text.partition("%")[0])
        if address.is_loopback or text in own:
            return _of_listener(port)
        if any(address in network for network in bridges):
            return Location("container", "its address is in a container network of this machine")
    return Location("remote", "its address is not this machine's")


def in_container(cgroup: str) -> bool:
    """Whether a process's /proc/PID/cgroup names a container."""
    return bool(_CONTAINER.search(cgroup))


def _of_listener(port: int) -> Location:
    pids = _listeners(port)
    for pid in pids:
        with contextlib.suppress(OSError, psutil.Error):
            cgroup = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8")
            if psutil.Process(pid).name() == "docker-proxy" or (in_container(cgroup) and not _same_group(cgroup)):
                return Location("container", "its port belongs to a container of this machine", pids)
    return Location("local", "its address is this machine's", pids)


def _same_group(cgroup: str) -> bool:
    """Whether it is the container that the harness itself is in."""
    try:
        return Path("/proc/self/cgroup").read_text(encoding="utf-8") == cgroup
    except OSError:
        return False


def _listeners(port: int) -> tuple[int, ...]:
    try:
        connections = psutil.net_connections("tcp")
    except (psutil.Error, OSError):
        return ()  # other users' are not shown to everybody
    return tuple(sorted({c.pid for c in connections if c.pid and c.status == "LISTEN" and c.laddr.port == port}))


def _interfaces() -> tuple[set[str], list[ipaddress.IPv4Network | ipaddress.IPv6Network]]:
    """This machine's own addresses, and the networks of its container bridges."""
    own: set[str] = set()
    bridges: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
    for name, addresses in psutil.net_if_addrs().items():
        for entry in addresses:
            if entry.family not in (socket.AF_INET, socket.AF_INET6):
                continue
            own.add(entry.address.partition("%")[0])
            if _BRIDGE.match(name) and entry.netmask and entry.family == socket.AF_INET:
                bridges.append(ipaddress.ip_network(f"{entry.address}/{entry.netmask}", strict=False))
    return own, bridges
