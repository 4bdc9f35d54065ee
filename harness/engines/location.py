"""Where a model server runs: on this machine, in a container on it, or elsewhere. Decides whose energy is measured."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

Word = Literal["local", "container", "remote", "none"]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

PROC = Path("/proc")
RESOLVE_S = 3.0
PORTS = {"http": 80, "https": 443}
_LISTENS = "0A"  # of a socket's states in /proc/net/tcp

# Docker's own names of bridges; br-lan and its like lead to other machines.
_BRIDGE = re.compile(r"docker\d+|br-[0-9a-f]{12}|podman\d+|cni-podman\d+")
# A container's part in the path of a control group. A service of the machine that is named after Docker is none.
_CONTAINER = re.compile(
    r"(?:docker|libpod|podman|containerd|crio)[-/:](?![^/\n]*\.service)[^/\n]+|kubepods[^\n]*/[^/\n]+|(?<=/)lxc(?:\.payload[./]|/)[^/\n]+"
)
# They listen on this machine's ports for a container. Their CPU time is not the server's.
_PROXIES = ("docker-proxy", "rootlessport", "rootlesskit", "slirp4netns", "pasta", "pasta.avx2", "conmon")


@dataclass(frozen=True)
class Location:
    """`reason` is a short phrase; `pids` are the server's processes where they can be seen from here."""

    word: Word
    reason: str
    pids: tuple[int, ...] = ()


class Listener(NamedTuple):
    """A socket that waits for connections. `pid` is None where this user is not shown whose it is."""

    address: str
    port: int
    pid: int | None


class Own(NamedTuple):
    """This machine's addresses, and the networks of its container bridges."""

    addresses: frozenset[Address]
    bridges: tuple[Network, ...]


def of_url(url: str, pids: Sequence[int] = ()) -> Location:
    """Where the server at a URL runs. `pids`: its processes, where the caller knows them."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port or PORTS.get(parts.scheme, 80)
    except ValueError:
        return Location("remote", "its address can't be read")
    found = resolve(parts.hostname or "")
    return of_addresses(found, port, pids) if found else Location("remote", "its name does not resolve here")


def of_addresses(addresses: Sequence[str], port: int, pids: Sequence[int] = ()) -> Location:
    """Where the server is that answers at a port of one of these addresses."""
    own = own_addresses()
    here = [address for address in addresses if is_own(address, own)]
    if here:
        return _on_this_machine(here, port, tuple(pids))
    for address in addresses:
        if any(plain(address) in network for network in own.bridges):
            known = tuple(pids) or _in_other_networks(address, port)
            return Location("container", "its address is in a container network of this machine", known)
    return Location("remote", "its address is not this machine's")


def resolve(host: str, limit_s: float = RESOLVE_S) -> list[str]:
    """A name's addresses. None are found for one that does not resolve in time."""
    found: list[str] = []

    def ask() -> None:
        with contextlib.suppress(OSError, ValueError):  # ValueError: a name that is too long to be one
            found.extend(str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))

    if not host:
        return []
    # getaddrinfo has no limit of its own, and a name server that is silent costs half a minute.
    asking = threading.Thread(target=ask, name="resolve", daemon=True)
    asking.start()
    asking.join(limit_s)
    return list(dict.fromkeys(found))


def plain(text: str) -> Address:
    """An address without its interface, and as IPv4 where that is what it stands for. Raises ValueError."""
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def own_addresses() -> Own:
    import psutil

    return own_of(
        (name, entry.address, entry.netmask)
        for name, entries in psutil.net_if_addrs().items()
        for entry in entries
        if entry.family in (socket.AF_INET, socket.AF_INET6)
    )


def own_of(entries: Iterable[tuple[str, str, str | None]]) -> Own:
    """Out of names of interfaces, their addresses and netmasks."""
    addresses, bridges = set(), []
    for name, text, netmask in entries:
        address = plain(text)
        addresses.add(address)
        if _BRIDGE.fullmatch(name) and netmask and not address.is_link_local:
            bits = int(ipaddress.ip_address(netmask)).bit_count()
            bridges.append(ipaddress.ip_network(f"{address}/{bits}", strict=False))
    return Own(frozenset(addresses), tuple(bridges))


def is_own(text: str, own: Own) -> bool:
    """Whether an address leads to this machine itself."""
    address = plain(text)
    return address.is_loopback or address.is_unspecified or address in own.addresses


def serving(listeners: Iterable[Listener], text: str, port: int) -> list[Listener]:
    """Those that a connection to an address reaches: the ones that name it, else the ones that take any."""
    wanted = plain(text)
    if wanted.is_unspecified:  # who asks for 0.0.0.0 gets loopback
        wanted = plain("127.0.0.1" if wanted.version == 4 else "::1")
    there = [listener for listener in listeners if listener.port == port]
    exact = [listener for listener in there if plain(listener.address) == wanted]
    if exact:
        return exact
    # A socket of :: takes IPv4 as well, by default.
    anything = [(listener, plain(listener.address)) for listener in there]
    return [listener for listener, address in anything if address.is_unspecified and address.version >= wanted.version]


def container_of(cgroup: str) -> str | None:
    """What of a /proc/PID/cgroup names a container (both versions of control groups); None outside of one."""
    found = _CONTAINER.search(cgroup)
    return found[0] if found else None


def proxied(command: Sequence[str]) -> tuple[str, int] | None:
    """The container's address and port behind the command line of a docker-proxy."""
    words = dict(pairwise(command))
    try:
        return words["-container-ip"], int(words["-container-port"])
    except (KeyError, ValueError):
        return None


def in_container(pid: int, proc: Path = PROC) -> bool:
    """Whether a process is in a container that this one is not in."""
    try:
        group, our_group = ((proc / who / "cgroup").read_text(encoding="utf-8") for who in (str(pid), "self"))
    except OSError:
        return False
    name = container_of(group)
    if name is not None and name != container_of(our_group):
        return True
    try:
        if (proc / str(pid) / "ns/pid").readlink() != (proc / "self/ns/pid").readlink():
            return True
        if (proc / str(pid) / "ns/mnt").readlink() == (proc / "self/ns/mnt").readlink():
            return False
        # A service that systemd shields has mounts of its own too, and still this machine's root.
        return not (proc / str(pid) / "root").samefile(proc / "self/root")
    except OSError:
        return False  # other users' namespaces are not shown to everybody


def _on_this_machine(addresses: Sequence[str], port: int, pids: tuple[int, ...]) -> Location:
    serve: list[Listener] = []
    if not pids:
        listeners = _listeners()
        serve = next((found for address in addresses if (found := serving(listeners, address, port))), [])
        pids = tuple(sorted({listener.pid for listener in serve if listener.pid is not None}))
    proxies = [pid for pid in pids if _name(pid) in _PROXIES]
    if proxies:
        return Location("container", "its port belongs to a container of this machine", _behind(proxies))
    if any(in_container(pid) for pid in pids):
        return Location("container", "its process is in a container of this machine", pids)
    if pids:
        return Location("local", "its process is on this machine", pids)
    hidden = "whose process is not shown" if serve else "where nothing is seen to listen"
    return Location("local", f"its address is this machine's, {hidden}")


def _listeners() -> list[Listener]:
    import psutil

    try:
        connections = psutil.net_connections("tcp")
    except (psutil.Error, OSError):
        return []  # not shown to everybody everywhere
    return [Listener(c.laddr.ip, c.laddr.port, c.pid) for c in connections if c.status == psutil.CONN_LISTEN]


def _name(pid: int) -> str | None:
    try:
        return (PROC / str(pid) / "comm").read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _behind(proxies: Iterable[int]) -> tuple[int, ...]:
    found: set[int] = set()
    for pid in proxies:
        try:
            command = (PROC / str(pid) / "cmdline").read_text(encoding="utf-8", errors="replace").split("\0")
        except OSError:
            continue
        if target := proxied(command):
            found.update(_in_other_networks(*target))
    return tuple(sorted(found))


def _in_other_networks(address: str, port: int, proc: Path = PROC) -> tuple[int, ...]:
    """The processes that listen there in a network namespace of their own, as far as this user is shown them."""
    found: list[int] = []
    sockets: dict[Path, set[str]] = {}  # of each namespace, those that listen there
    for folder in proc.glob("[0-9]*"):
        try:
            network = (folder / "ns/net").readlink()
            if network not in sockets:
                ours = network == (proc / "self/ns/net").readlink()
                sockets[network] = set() if ours or not _has_address(folder, address) else _waiting(folder, port)
            if sockets[network] and any(str(file.readlink()) in sockets[network] for file in (folder / "fd").iterdir()):
                found.append(int(folder.name))
        except OSError:
            continue  # it ended, or is not shown
    return tuple(sorted(found))


def _has_address(process: Path, address: str) -> bool:
    """Whether an address (IPv4) is one of a process's network's own: two containers may listen on the same port."""
    routes = (process / "net/fib_trie").read_text(encoding="utf-8")
    return bool(re.search(rf"\|-- {re.escape(address)}\n\s*/32 host LOCAL", routes))


def _waiting(process: Path, port: int) -> set[str]:
    """The sockets of a process's network that listen on a port, as links of open files name them."""
    found = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):  # no IPv6
            for line in (process / "net" / table).read_text(encoding="utf-8").splitlines()[1:]:
                words = line.split()
                if words[3] == _LISTENS and int(words[1].rpartition(":")[2], 16) == port:
                    found.add(f"socket:[{words[9]}]")
    return found
