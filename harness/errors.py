"""The two ways a command can end badly, each with the exit code that the command line gives it.

Everything a person should read is one sentence: what is wrong, where, and what to do about it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from harness.secrets import hidden


class HarnessError(Exception):
    """Base of the errors that are shown without a traceback. No secret of the environment is in its words."""

    exit_code = 1

    def __init__(self, sentence: str = "") -> None:
        super().__init__(hidden(sentence))


class UserError(HarnessError):
    """The user's mistake: an unknown name, a malformed file, a flag that does not fit. Exit code 2."""

    exit_code = 2


class MachineError(HarnessError):
    """The machine's fault or ours: Docker is not running, the disk is full, an engine died. Exit code 1."""

    exit_code = 1


def nearest(word: str, known: Iterable[str], label: str = "known") -> str:
    """A tail for an "unknown X" sentence: the nearest names, or all of them when none is near."""
    names = sorted(set(known))
    if not names:
        return f"none is {label}"
    close = difflib.get_close_matches(word, names, n=3, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(close) + "?"
    shown = ", ".join(names[:12])
    return f"{label}: {shown}" + (", ..." if len(names) > 12 else "")
