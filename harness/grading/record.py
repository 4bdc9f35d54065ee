"""The record that the test runner keeps of itself, and whether it bears out what the log says.

The official verdict is read from a log, and a patch may print what it likes into a log. So the runner is made to keep
a record of its own (inside/harness_record.py), and a test counts as passed only where both say so, and only if no file
of the patch took part in running or reporting tests.
"""

from __future__ import annotations

import ast
import hashlib
import hmac
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = "/opt/harness/grading"
SCRIPT = Path(__file__).with_name("inside") / "harness_record.py"

UNITTEST = re.compile(r"^\./(\S*runtests\.py)(?= )")
TOX = re.compile(r"^tox\b.*? -- ")
PYTEST = re.compile(r"^(?:\S+=\S+ )*(?:python\d? (?:-\S+(?: \S+)? )*-m )?pytest\b")

# The official reader takes a test that fails as expected for a passed one. A patch can have any test "expected" to
# fail while it runs, so that is no proof of a fix unless it was expected beforehand.
PASSED = ("passed", "xfailed")
KEPT = (*PASSED, "xfailed_unexpected", "skipped")
REFUTED = ("failed", "altered")  # whatever else is said of the same test

UNKNOWN = "?"  # in place of a file: code that is from none


@dataclass(frozen=True)
class Record:
    """What the runner noted: (name, title, status) of tests, and (what it did, file) of code that took part in them
    besides the runner's own."""

    tests: tuple[tuple[str, str | None, str], ...]
    parts: tuple[tuple[str, str], ...]


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
    entries = [ast.literal_eval(line) for line in body.decode().splitlines()]
    return Record(
        tuple((name, title, status) for kind, name, title, status in (e for e in entries if e[0] == "test")),
        tuple((what, file) for kind, what, file in (e for e in entries if e[0] == "part")),
    )


def contradiction(
    record: Record, fail_to_pass: Sequence[str], pass_to_pass: Sequence[str], changed: Collection[str], workdir: str
) -> str | None:
    """Why a log in which all tests pass can't be believed, or None. `changed` are the files that are the patch's."""
    for what, file in record.parts:
        if file == UNKNOWN:
            return f"code that is from no file takes part in the tests ({what})"
        if file.removeprefix(f"{workdir}/") in changed:
            return f"{file.removeprefix(f'{workdir}/')}, which the patch changes, takes part in the tests ({what})"
    statuses: dict[str, set[str]] = {}
    for name, title, status in record.tests:
        for known in (_plain(name), _plain(title or "")):
            if known:
                statuses.setdefault(known, set()).add(status)
    for wanted, tests in ((PASSED, fail_to_pass), (KEPT, pass_to_pass)):
        for test in tests:
            found = _statuses(statuses, _plain(test))
            if not found & set(wanted) or found & set(REFUTED):
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
