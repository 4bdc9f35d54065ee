"""Sends the harness a signal at a chosen moment: Python reads this file at its start when its folder is in PYTHONPATH.

FAULTS_AT is the number of an event, or a text: at the first event that holds it the signal FAULTS_SIGNAL comes (SIGKILL
if none is named). FAULTS_COUNT names a file that is told, at the end, how many events there were. Events are what
touches the world outside: files, folders, sockets, processes, locks, and every statement of SQL.
"""

from __future__ import annotations

import atexit
import itertools
import os
import signal
import sqlite3
import sys
from typing import Any

WORDS = ("open", "os.", "shutil.", "socket.", "subprocess.", "tempfile.", "fcntl.", "sqlite3.")


def watch(at: str | None, name: str, counted: str | None) -> None:
    number = itertools.count(1)
    last = [0]
    sent: list[str] = []

    def seen(text: str) -> None:
        last[0] = next(number)
        if at is not None and not sent and (last[0] == int(at) if at.isdigit() else at in text):
            sent.append(text)
            os.kill(os.getpid(), signal.Signals[name])

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event.startswith(WORDS):
            about = " ".join(map(str, arguments[:2]))
            if not (event == "open" and str(arguments[0]).endswith((".py", ".pyc", ".so"))):
                seen(f"{event} {about}")

    connect = sqlite3.connect

    def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.set_trace_callback(lambda statement: seen(f"sql {statement}"))
        return connection

    sqlite3.connect = traced
    sys.addaudithook(hook)
    if counted is not None:
        atexit.register(lambda: os.write(os.open(counted, os.O_WRONLY | os.O_CREAT), str(last[0]).encode()))


if sys.orig_argv[1:3] == ["-m", "harness"]:  # its children are left alone
    watch(os.environ.get("FAULTS_AT"), os.environ.get("FAULTS_SIGNAL", "SIGKILL"), os.environ.get("FAULTS_COUNT"))
