"""What a network would give, the internet and the host's services, and the host's processes. facts.json says where
the host listens."""

import contextlib
import fcntl
import ipaddress
import os
import pathlib
import random
import socket
import struct

from attempts import FACTS, Refused, attempt

PATIENCE_S = 2.0


def heard(address, port):
    """What somebody who listens there says."""
    with socket.create_connection((address, port), timeout=PATIENCE_S) as connection:
        return connection.recv(100).decode()


def routed(family, address):
    """A datagram is addressed, which takes a route and sends nothing."""
    with socket.socket(family, socket.SOCK_DGRAM) as any_socket:
        any_socket.connect((address, 53))
        return f"from {any_socket.getsockname()[0]}"


def first_of(tries):
    """What the first of some tries got that got anything."""
    came = []
    for what, function in tries:
        try:
            return f"{what}: {function()}"
        except (OSError, Refused) as error:
            came.append(f"{what}: {error}")
    raise Refused("; ".join(came) or "there is nothing to try")


@attempt
def a_route_to_the_internet():
    return routed(socket.AF_INET, "192.88.99.1")


@attempt
def a_route_to_the_internet_by_ipv6():
    return routed(socket.AF_INET6, "2001:db8::1")


@attempt
def a_route_to_the_metadata_of_a_cloud():
    return routed(socket.AF_INET, "169.254.169.254")


@attempt
def names_of_the_internet():
    """Whether anybody answers a question for a name, at the servers that are named here and at Docker's own."""
    lines = pathlib.Path("/etc/resolv.conf").read_text().splitlines()
    servers = {line.split()[1] for line in lines if line.startswith("nameserver") and len(line.split()) > 1}
    number = random.randrange(1 << 16)
    question = struct.pack(">6H", number, 0x100, 1, 0, 0, 0) + b"\x07example\x03com\x00\x00\x01\x00\x01"

    def ask(server):
        with socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            any_socket.settimeout(PATIENCE_S)
            any_socket.connect((server, 53))
            any_socket.send(question)
            answer = any_socket.recv(512)
            # Docker's server of an internal network says "no such name" by itself: nothing has left.
            if answer[3] & 15 or not struct.unpack(">H", answer[6:8])[0]:
                raise Refused(f"answered without an address (code {answer[3] & 15})")
            return f"{len(answer)} bytes"

    return first_of((server, lambda server=server: ask(server)) for server in sorted(servers | {"127.0.0.11"}))


def addresses():
    """Those of this place's own interfaces, with their networks."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):
                asked = struct.pack("256s", name.encode())
                own = fcntl.ioctl(any_socket, 0x8915, asked)[20:24]
                mask = fcntl.ioctl(any_socket, 0x891B, asked)[20:24]
                found.append(ipaddress.ip_interface(f"{socket.inet_ntoa(own)}/{socket.inet_ntoa(mask)}"))
    return found


@attempt
def a_service_of_the_host():
    """One that listens on all of the host's addresses: at those, and at the first address of every network here, which
    is where Docker puts the host."""
    near = [str(own.network.network_address + 1) for own in addresses() if not own.is_loopback]
    every = [*FACTS["host_addresses"], *near]
    port = FACTS["host_port"]
    return first_of((address, lambda address=address: heard(address, port)) for address in every)


@attempt
def a_service_on_the_loopback_of_the_host():
    port = FACTS["host_loopback_port"]
    return first_of((address, lambda address=address: heard(address, port)) for address in ("127.0.0.1", "::1"))


@attempt
def a_unix_socket_of_the_host_without_a_file():
    with socket.socket(socket.AF_UNIX) as any_socket:
        any_socket.settimeout(PATIENCE_S)
        any_socket.connect(f"\0{FACTS['host_abstract']}")
        return any_socket.recv(100).decode()


@attempt
def the_socket_of_docker():
    """Any socket but the gateway's: there is a daemon behind each."""
    found = []
    for folder, folders, files in os.walk("/"):
        folders[:] = [name for name in folders if os.path.join(folder, name) not in ("/proc", "/sys")]
        found += [
            path
            for path in (os.path.join(folder, name) for name in files)
            if pathlib.Path(path).is_socket() and path != "/run/harness/gateway.sock"
        ]
    if not found:
        raise Refused("there is none")

    def ask(path):
        with socket.socket(socket.AF_UNIX) as any_socket:
            any_socket.settimeout(PATIENCE_S)
            any_socket.connect(path)
            any_socket.send(b"GET /_ping HTTP/1.0\r\n\r\n")
            return any_socket.recv(100).decode(errors="replace").splitlines()[0]

    return first_of((path, lambda path=path: ask(path)) for path in found)


def process(mark):
    looked = 0
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            looked += 1
            if int(folder.name) != os.getpid() and mark.encode() in (folder / "cmdline").read_bytes():
                return f"process {folder.name}"
    raise Refused(f"{looked} processes, none of them")


@attempt
def a_process_of_the_host():
    return process(FACTS["host_mark"])
