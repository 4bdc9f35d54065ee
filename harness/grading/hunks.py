"""A known solution with hunks taken off: a patch that is nearly right, to prove that the tests notice."""

from __future__ import annotations

import itertools
import re

FILE = re.compile(rb"^diff --git ", re.MULTILINE)
HUNK = re.compile(rb"^@@ ", re.MULTILINE)


def count(patch: bytes) -> int:
    """The hunks of a git patch."""
    return len(HUNK.findall(patch))


def without_last(patch: bytes, number: int) -> bytes:
    """The patch without its last `number` hunks; a file of which none is left goes with them."""
    return _kept(patch, 0, count(patch) - number)


def without_first(patch: bytes, number: int) -> bytes:
    """The same without its first ones."""
    return _kept(patch, number, count(patch))


def _kept(patch: bytes, first: int, end: int) -> bytes:
    result = b""
    passed = 0
    for section in _split(FILE, patch):
        head, *hunks = _split(HUNK, section)
        kept = [hunk for number, hunk in enumerate(hunks, passed) if first <= number < end]
        passed += len(hunks)
        if kept:
            result += head + b"".join(kept)
    return result


def _split(pattern: re.Pattern[bytes], text: bytes) -> list[bytes]:
    """Text cut before each match; the part before the first match comes first unless it is a file's beginning."""
    starts = [found.start() for found in pattern.finditer(text)]
    if pattern is HUNK:
        starts = [0, *starts]
    return [text[start:end] for start, end in itertools.pairwise([*starts, len(text)])]
