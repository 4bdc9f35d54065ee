"""Where things lie: the folders of data that travel with the package, the user's cache and configuration."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).parent


def builtin(folder: str) -> Path:
    """A folder of data that ships with the harness ("agents", "tasks").

    In a wheel it lies inside the package; in a checkout beside it.
    """
    inside = PACKAGE / "_data" / folder
    return inside if inside.is_dir() else PACKAGE.parent / folder


def cache() -> Path:
    """What can be made again: weights, bases of task repositories. Created when asked for."""
    root = os.environ.get("HARNESS_CACHE") or (
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agent-energy-harness"
    )
    path = Path(root)
    path.mkdir(parents=True, exist_ok=True)
    return path


def config() -> Path:
    """The user's own folder, where `agents/` may hold frameworks of their own. Not created."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "harness"


def runs_dir() -> Path:
    """HARNESS_RUNS, or `runs/` in the working directory."""
    return Path(os.environ.get("HARNESS_RUNS") or "runs")


def db_path() -> Path:
    """HARNESS_DB, or `harness.db` in the runs folder."""
    explicit = os.environ.get("HARNESS_DB")
    return Path(explicit) if explicit else runs_dir() / "harness.db"
