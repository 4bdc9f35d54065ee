"""Uses something up, all there is of it: python3 bombs.py WHAT. Stays until it is ended, or dies of it."""

import ctypes
import os
import pathlib
import signal
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)
OUT = pathlib.Path(os.environ.get("HARNESS_OUT_DIR", "/tmp"))


def report(what):
    (OUT / "report").write_text(f"{what}\n")


def memory():
    held = []
    while True:
        held.append(b"x" * (16 << 20))


def memory_of_many():
    """Whoever is killed is replaced."""
    while True:
        if os.fork() == 0:
            memory()
        time.sleep(0.01)


def processes():
    """Each makes more, and none heeds a request to end."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        try:
            os.fork()
        except OSError:
            time.sleep(0.001)


def files():
    """As many as may be open in each of as many processes as there may be."""
    for _ in range(1100):
        try:
            if os.fork() == 0:
                try:
                    while True:
                        os.open("/etc/hosts", os.O_RDONLY)
                except OSError:
                    time.sleep(60)
        except OSError:
            break
    time.sleep(60)


def time_itself():
    """Asked to end, it does not, and the shell that asks never comes back."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.unlink("/bin/sh")
    pathlib.Path("/bin/sh").write_text("#!/usr/bin/python3\nimport time\ntime.sleep(600)\n")
    os.chmod("/bin/sh", 0o755)
    time.sleep(600)


def disk():
    number = 0
    while True:
        number += 1
        with open(f"/root/{number}", "wb") as file:
            for _ in range(256):
                file.write(bytes(1 << 20))


def memory_as_files():
    """In every folder that is memory: it counts as the sandbox's."""
    for number in range(10_000):
        for folder in ("/tmp", "/dev/shm", "/dev"):
            try:
                with open(f"{folder}/{number}", "wb") as file:
                    file.write(bytes(16 << 20))
            except OSError:
                continue
    time.sleep(60)


def sparse():
    """Files that say they are huge, in the work directory and in the out folder."""
    for folder in ("/testbed", str(OUT)):
        for number in range(20):
            with open(f"{folder}/huge-{number}", "wb") as file:
                try:
                    file.truncate(1 << 45)
                except OSError:
                    file.truncate(2 << 30)
    pathlib.Path(os.environ["HARNESS_RESULT_FILE"]).write_text('{"status": "submitted"}')


def watches():
    """Of what inotify has for a user."""
    made = 0
    while libc.inotify_init1(0) >= 0:
        made += 1
    report(made)
    time.sleep(5)
    pathlib.Path(os.environ["HARNESS_RESULT_FILE"]).write_text('{"status": "submitted"}')


def signals():
    """Those that wait to be heard."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN])
    sent = 0
    while libc.sigqueue(os.getpid(), signal.SIGRTMIN, 0) == 0:
        sent += 1
    report(sent)
    time.sleep(2)
    pathlib.Path(os.environ["HARNESS_RESULT_FILE"]).write_text('{"status": "submitted"}')


if __name__ == "__main__":
    globals()[sys.argv[1]]()
