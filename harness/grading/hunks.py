"""A known solution with hunks taken off: a patch that is nearly right, to prove that the tests notice."""

from __future__ import annotations

import re

FILE = re.compile(rb"^diff --git ", re.MULTILINE)
HUNK = re.compile(rb"^@@ ", re.MULTILINE)


def count(patch: bytes) -> int:
    """The hunks of a git patch."""
    return len(HUNK.findall(patch))


def without_last(patch: bytes, number: int) -> bytes:
    """The patch without its last `number` hunks; a file of which none is left goes with them."""
    kept = count(patch) - number
    result = b""
    for section in _split(FILE, patch):
        head, *hunks = _split(HUNK, section)
        hunks, kept = hunks[: max(kept, 0)], kept - len(hunks)
        if hunks:
            result += head + b"".join(hunks)
    return result


def _split(pattern: re.Pattern[bytes], text: bytes) -> list[bytes]:
    """Text cut before each match; the part before the first match comes first unless it is a file's beginning."""
    starts = [found.start() for found in pattern.finditer(text)]
    if pattern is HUNK:
        starts = [0, *starts]
    return [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]
