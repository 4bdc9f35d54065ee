"""The database and the files beside it."""

from __future__ import annotations

import sys

if "pandas" not in sys.modules:
    # sqlite-utils looks whether pandas and numpy are there by importing them, which would cost every command half a
    # second; nothing here hands it a frame.
    for _name in ("pandas", "numpy"):
        sys.modules.setdefault(_name, None)  # type: ignore[arg-type]
    import sqlite_utils  # noqa: F401

    for _name in ("pandas", "numpy"):
        if sys.modules[_name] is None:
            del sys.modules[_name]
