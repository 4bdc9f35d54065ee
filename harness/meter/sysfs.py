"""Files of the kernel that hold a word or a number."""

from __future__ import annotations

from pathlib import Path


def text(path: Path) -> str | None:
    """What a file says, or None when it can't be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def number(path: Path) -> int | None:
    """The number in a file, or None when there is none or it can't be read."""
    try:
        return int(text(path) or "")
    except ValueError:
        return None
