"""What a page is made of: the store, open for reading, and what is made of it beside the pages."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sqlite_utils import Database

from harness.store.db import look_into
from harness.view.background import Kept, state_of

T = TypeVar("T")


class Unknown(Exception):
    """There is no such thing in the store. The message is a sentence."""


@dataclass(frozen=True)
class Reading:
    """The store for one answer."""

    db: Database
    database: Path
    runs_dir: Path
    kept: Kept

    def aside(self, key: str, make: Callable[[Database], T]) -> T | None:
        """What `make` reads out of the store, in a thread beside the pages; None while that goes on."""

        def read() -> T:
            with contextlib.closing(look_into(self.database)) as db:
                return make(db)

        return self.kept.get(key, state_of(self.database), read)
