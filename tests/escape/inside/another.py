"""What another run's sandbox could be known by. facts.json says its marks."""

import ctypes
import itertools
import pathlib
import socket

from attempts import FACTS, Refused, attempt
from network import addresses, first_of, heard, process

libc = ctypes.CDLL(None, use_errno=True)


@attempt
def the_port_of_another_sandbox():
    """At its address, if it has any, and at every address that is near."""
    near = [str(at) for own in addresses() if not own.is_loopback for at in itertools.islice(own.network.hosts(), 8)]
    every = [*FACTS["other_addresses"], *near]
    port = FACTS["other_port"]
    return first_of((address, lambda address=address: heard(address, port)) for address in every)


@attempt
def the_socket_of_another_sandbox_without_a_file():
    with socket.socket(socket.AF_UNIX) as any_socket:
        any_socket.connect(f"\0{FACTS['other_mark']}")
        return any_socket.recv(100).decode()


@attempt
def memory_that_another_sandbox_shares():
    """As a file in /dev/shm, and by the key of a segment."""
    if pathlib.Path("/dev/shm", FACTS["other_mark"]).exists():
        return "its file"
    if libc.shmget(FACTS["other_key"], 4096, 0) >= 0:
        return "its segment"
    raise Refused("no file, no segment")


@attempt
def a_process_of_another_sandbox():
    return process(FACTS["other_mark"])


@attempt
def a_file_of_another_run():
    """Wherever both can write: nowhere."""
    for folder in ("/tmp", "/dev/shm", "/run/harness", "/opt/agent", "/opt/harness", "/root", "/var/tmp"):
        if pathlib.Path(folder, FACTS["other_mark"]).exists():
            return folder
    raise Refused("none")


@attempt
def leaving_a_file_for_the_next_run():
    """In what outlives this one."""
    for folder in ("/run/harness", "/opt/agent"):
        try:
            pathlib.Path(folder, "left-for-the-next").touch()
            return folder
        except OSError as error:
            came = error
    raise came
