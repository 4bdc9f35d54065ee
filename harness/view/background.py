"""What takes longer than a page may: made once in a thread beside the pages, and kept until the store changes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

WAIT_S = 0.06  # that the page waits which asked for it first; those that come while it is made are shown without
MOST_KEPT = 64  # the oldest go first

State = tuple[int, ...]
T = TypeVar("T")


class Kept:
    """One for a server; `get` is called from any thread."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[State, Future[Any]]] = {}
        self._lock = Lock()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="view")

    def get(self, key: str, state: State, make: Callable[[], T]) -> T | None:
        """What `make` gives for this state of the store; None while it is still being made. Raises what it raises."""
        with self._lock:
            before = self._made.pop(key, None)
            if before is not None and before[0] == state:
                future, wait_s = before[1], 0.0
            else:
                if before is not None:
                    before[1].cancel()
                future, wait_s = self._pool.submit(make), WAIT_S
            self._made[key] = state, future
            for old in list(self._made)[:-MOST_KEPT]:
                self._made.pop(old)[1].cancel()
        try:
            made: T = future.result(wait_s)
        except (NotYet, CancelledError):  # cancelled by a page that saw a newer state
            return None
        except Exception:
            with self._lock:
                self._made.pop(key, None)  # what failed is tried again by the next page
            raise
        return made


def state_of(database: Path) -> State:
    """Something that is another whenever the database was written."""
    found: list[int] = []
    for path in (database, database.with_name(database.name + "-wal")):
        try:
            facts = path.stat()
        except FileNotFoundError:
            continue
        found += [facts.st_mtime_ns, facts.st_size]
    return tuple(found)
