"""How a command hears that it is to end: by Ctrl-C, by SIGTERM, by the SIGHUP of a terminal that is closed."""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SAYING_S = 1.0  # for a last word to be printed
CLEANING_S = 10.0  # in which nobody can disturb the cleaning up
# Asked as the command begins: a terminal that is gone does not say any more that it was one.
TERMINALS = tuple(stream for stream in (1, 2) if os.isatty(stream))

heard: list[float] = []  # when the command was told to end at once


def at_once(number: int, frame: FrameType | None) -> None:
    """End the command by a KeyboardInterrupt, and let it clean up; after a while another request ends the process."""
    heard.append(time.monotonic())
    if len(heard) == 1:
        raise KeyboardInterrupt
    if heard[-1] - heard[0] > CLEANING_S:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)


def leave_terminal() -> None:
    """What is printed goes nowhere from now on: a terminal that is closed fails whoever writes to it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in TERMINALS:
        os.dup2(nowhere, stream)
    os.close(nowhere)


@contextlib.contextmanager
def _answered_by(answer: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Have this handler called for each of the requests. When it is the terminal that was closed, what is printed goes
    nowhere from then on. `nohup` has that one ignored, and so it stays."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            leave_terminal()
        answer(number, frame)

    before = {n: signal.signal(n, on_signal) for n in NUMBERS if signal.getsignal(n) is not signal.SIG_IGN}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def first_asking(give_up: Callable[[], None], ready: Callable[[], bool]) -> Iterator[None]:
    """The first of the requests calls `give_up` if what it gives up is `ready`; any other ends what goes on in here at
    once.

    A thread of its own calls it: a handler interrupts whoever holds a lock, and printing and setting an event want one.
    """
    asked: list[int] = []
    reading, waking = os.pipe()

    def answer(number: int, frame: FrameType | None) -> None:
        if asked or not ready():
            at_once(number, frame)
            return
        asked.append(number)
        os.write(waking, b"\n")

    def wait_for_it() -> None:
        if os.read(reading, 1):
            give_up()

    waiter = threading.Thread(target=wait_for_it, name="interrupts", daemon=True)
    waiter.start()
    try:
        with _answered_by(answer):
            yield
    finally:
        os.close(waking)
        waiter.join(SAYING_S)
        os.close(reading)


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Any of the requests ends what goes on in here."""

    def unraisable(lost: sys.UnraisableHookArgs) -> None:
        if lost.exc_type is KeyboardInterrupt:  # it came where Python can't raise it: once more, then
            heard.clear()
            _thread.interrupt_main()
        else:
            hook(lost)

    heard.clear()
    with _answered_by(at_once):
        hook, sys.unraisablehook = sys.unraisablehook, unraisable
        try:
            yield
        finally:
            sys.unraisablehook = hook
