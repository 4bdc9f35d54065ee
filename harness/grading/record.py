"""The record that the test runner keeps of itself, and whether it bears out what the log says.

The official verdict is read from a log, and a patch may print what it likes into a log. So the runner is made to keep
a record of its own (inside/harness_record.py), and a test counts as passed only where both say so.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = "/opt/harness/grading"
SCRIPT = Path(__file__).with_name("inside") / "harness_record.py"

UNITTEST = re.compile(r"^\./(\S*runtests\.py)(?= )")
TOX = re.compile(r"^tox\b.*? -- ")
PYTEST = re.compile(r"^(?:\S+=\S+ )*(?:python\d? (?:-\S+(?: \S+)? )*-m )?pytest\b")

PASSED, KEPT = ("passed", "xfailed"), ("passed", "xfailed", "skipped")


@dataclass(frozen=True)
class Record:
    """What the runner noted: (name, title, status) of each test, and the (hook, file) of those that could change it."""

    tests: tuple[tuple[str, str | None, str], ...]
    hooks: tuple[tuple[str, str], ...]


def with_record(command: str) -> str | None:
    """The command with the recorder in it; None for a runner that it does not know."""
    if UNITTEST.match(command):
        return f"python {FOLDER}/{SCRIPT.name} {command}"
    for pattern in (TOX, PYTEST):
        if found := pattern.match(command):
            return f"{command[: found.end()].rstrip()} -p {SCRIPT.stem} {command[found.end() :].lstrip()}"
    return None


def read(content: bytes, key: str) -> Record | None:
    """The record in a file that the container left; None for one that the runner did not seal."""
    seal, _, body = content.partition(b"\n")
    if not hmac.compare_digest(seal, hmac.new(key.encode(), body, hashlib.sha256).hexdigest().encode()):
        return None
    found = json.loads(body)
    return Record(
        tuple((str(name), title, str(status)) for name, title, status in found["tests"]),
        tuple((str(hook), str(file)) for hook, file in found["hooks"]),
    )


def contradiction(
    record: Record, fail_to_pass: Sequence[str], pass_to_pass: Sequence[str], changed: Collection[str], workdir: str
) -> str | None:
    """Why a log in which all tests pass can't be believed, or None. `changed` are the files of the patch."""
    for hook, file in record.hooks:
        if file.removeprefix(f"{workdir}/") in changed:
            return f"{file.removeprefix(workdir + '/')}, which the patch changes, takes part in the reports ({hook})"
    statuses: dict[str, set[str]] = {}
    for name, title, status in record.tests:
        for known in (_plain(name), _plain(title or "")):
            if known:
                statuses.setdefault(known, set()).add(status)
    for wanted, tests in ((PASSED, fail_to_pass), (KEPT, pass_to_pass)):
        for test in tests:
            found = _statuses(statuses, _plain(test))
            if not found & set(wanted):
                said = " and ".join(sorted(found)) or "not run"
                return f"the log says that {test} passed, the runner's own record says {said}"
    return None


def _statuses(statuses: dict[str, set[str]], test: str) -> set[str]:
    """Those of a test, or, for a name that was published cut off in its parameters, of all that begin like it."""
    if test in statuses or test.count("[") <= test.count("]"):
        return statuses.get(test, set())
    return {status for name, found in statuses.items() if name.startswith(test) for status in found}


def _plain(name: str) -> str:
    return " ".join(name.split())
