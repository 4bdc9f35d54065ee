"""Suites whose tasks are rows of a SWE-bench data set: pinned in suite.toml, fetched by `datasets` or read from a file.

A row is one issue with the fields that SWE-bench publishes. Newer data sets also carry `image`, `eval_script` and
`log_parser`; where a row has none, they follow from its repository.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from harness.errors import UserError, nearest
from harness.suites.base import CommonTask, TarEntry
from harness.suites.rows import rows_of
from harness.toml import read_toml

FILE = "suite.toml"
TEST_TIMEOUT_S = 1800.0  # the official harness's
WORKDIR = "/testbed"

FIELDS = (
    "instance_id",
    "repo",
    "version",
    "base_commit",
    "patch",
    "test_patch",
    "problem_statement",
    "FAIL_TO_PASS",
    "PASS_TO_PASS",
)

# Files of a test patch that are data and no tests, by the ends of their names.
NO_TEST_ENDS = (".json", ".png", "csv", ".txt", ".md", ".jpg", ".jpeg", ".pkl", ".yml", ".yaml", ".toml")

# It becomes the name of files, images and folders.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")

# Both reach git's command line, and the first the path of a mirror.
PATTERNS = {"repo": r"[\w-][\w.-]*/[\w-][\w.-]*", "base_commit": r"[0-9a-f]{40}"}
WORDS = {"repo": "owner/name", "base_commit": "a full commit id"}

START, END = ">>>>> Start Test Output", ">>>>> End Test Output"

PATCHED_FILE = re.compile(r"^diff --git a/.* b/(.*)$", re.MULTILINE)

SOLVE = """#!/bin/sh
# Applies the known solution to the work directory.
set -e
here=$(dirname "$0")
git apply --whitespace=nowarn "$here/fix.patch" || patch --batch --forward --fuzz=5 -p1 -i "$here/fix.patch"
"""


@dataclass(frozen=True)
class Repository:
    """How the tests of a repository are run and read, for rows that do not say it."""

    log_parser: str
    before: tuple[str, ...]
    command: str
    dotted: bool = False  # tests are named as modules, not as files


# The locale is made where the image lacks it.
ENGLISH = (
    "locale -a | grep -qi '^en_US.utf-\\?8$' || { sed -i '/en_US.UTF-8/s/^# //g' /etc/locale.gen && locale-gen; }",
    "export LANG=en_US.UTF-8 LANGUAGE=en_US:en LC_ALL=en_US.UTF-8",
)

REPOSITORIES: dict[str, Repository] = {
    "django/django": Repository(
        "parse_log_django",
        ENGLISH,
        "./tests/runtests.py --verbosity 2 --settings=test_sqlite --parallel 1",
        dotted=True,
    ),
    # A published image's tox.ini says -rA already; a rebuilt one's is as it was. Twice does no harm.
    "sphinx-doc/sphinx": Repository("parse_log_sphinx", (), "tox --current-env -epy39 -v -- -rA"),
}


@dataclass(frozen=True)
class SweBenchTask(CommonTask):
    """One row of a data set."""

    repo: str
    version: str
    base_commit: str
    gold_patch: str
    test_patch: str
    fail_to_pass: tuple[str, ...]
    pass_to_pass: tuple[str, ...]
    published_image: str
    log_parser: str
    before: tuple[str, ...]  # shell lines before the tests
    command: str  # the shell line that runs them
    hosts: tuple[str, ...]  # that the tests reach on the internet
    content_hash: str

    @property
    def image_hash(self) -> str:
        """A hash of what an image of it depends on."""
        parts = (self.repo, self.base_commit, self.gold_patch, self.test_patch)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    def solution_files(self, folder: str) -> dict[str, TarEntry]:
        """What `oracle` is handed, to lie in `folder`."""
        return {f"{folder}/solve.sh": (SOLVE.encode(), 0o755), f"{folder}/fix.patch": self.gold_patch.encode()}


class _File(BaseModel):
    """The fields of a suite.toml; any other is refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    dataset: Annotated[str, Field(min_length=1)]
    """On the Hugging Face hub."""
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    split: str = "test"
    count: Annotated[int, Field(ge=1)]
    ids: list[str] | None = None
    """In order; None where every row of the split belongs."""
    ids_sha256: str | None = None
    """Of the ids, each followed by a line feed."""
    image: Annotated[str, Field(min_length=1)]
    """Name of a published image; {arch} and {id} are filled in."""
    test_timeout_s: Annotated[float, Field(gt=0, le=86400, allow_inf_nan=False)] = TEST_TIMEOUT_S
    network: dict[str, list[str]] = {}
    """Ids whose tests reach the internet, with the hosts."""
    summary: str = ""


def is_suite(folder: Path) -> bool:
    return (folder / FILE).is_file()


def read_file(folder: Path) -> _File:
    """A suite.toml, checked. Raises UserError that names file, field and what was expected."""
    path = folder / FILE
    file = read_toml(path, TypeAdapter(_File))
    if file.ids is not None:
        found = ids_hash(file.ids)
        if len(file.ids) != file.count or (file.ids_sha256 or found) != found:
            raise UserError(
                f"{path}: ids: they are {len(file.ids)} with hash {found}, count and ids_sha256 say otherwise"
            )
    if file.ids is not None and len(set(file.ids)) < len(file.ids):
        raise UserError(f"{path}: ids: {next(name for name in file.ids if file.ids.count(name) > 1)} is there twice")
    for name in file.network:
        if file.ids is not None and name not in file.ids:
            raise UserError(f"{path}: network: {name!r} is not in ids; {nearest(name, file.ids)}")
    return file


def ids_hash(ids: Iterable[str]) -> str:
    return hashlib.sha256("".join(f"{name}\n" for name in ids).encode()).hexdigest()


def load(folder: Path, data: Path | None = None) -> tuple[SweBenchTask, ...]:
    """The tasks of a suite, in its order; rows from `data`, else from HARNESS_DATA, else from the hub or its cache.

    Raises UserError for rows that are not the suite's, MachineError when they can't be fetched.
    """
    file = read_file(folder)
    source, rows = rows_of(file.dataset, file.revision, file.split, data)
    by_id: dict[str, Mapping[str, Any]] = {}
    for number, row in enumerate(rows, 1):
        name = row.get("instance_id")
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise UserError(f"{source}: row {number}: expected an instance_id, found {name!r}")
        if name in by_id:
            raise UserError(f"{source}: row {number}: {name} is there twice")
        by_id[name] = row
    wanted = file.ids if file.ids is not None else list(by_id)
    missing = [name for name in wanted if name not in by_id]
    if missing:
        held = f"{len(wanted) - len(missing)} of the {file.count} instances of {folder.name}"
        raise UserError(f"{source}: holds {held}: {missing[0]} is missing")
    if len(wanted) != file.count:
        raise UserError(f"{source}: holds {len(wanted)} instances, and {folder.name} has {file.count}")
    return tuple(_task(folder.name, file, by_id[name], source) for name in wanted)


def _task(suite: str, file: _File, row: Mapping[str, Any], source: str) -> SweBenchTask:
    name = str(row["instance_id"])
    for field in FIELDS:
        if row.get(field) in (None, ""):
            raise UserError(f"{source}: {name}: the field {field} is missing")
    before, command, parser = _how_to_test(row, source)
    for field, pattern in PATTERNS.items():
        if not re.fullmatch(pattern, _text(row, field, source)):
            raise UserError(f"{source}: {name}: {field}: expected {WORDS[field]}, found {row[field]!r}")
    fail_to_pass = _names(row, "FAIL_TO_PASS", source)
    if not fail_to_pass:
        raise UserError(
            f"{source}: {name}: FAIL_TO_PASS: expected at least one test: without, anything would resolve it"
        )
    decisive = {field: row[field] for field in FIELDS} | {"before": before, "command": command, "parser": parser}
    return SweBenchTask(
        suite=suite,
        name=name,
        instruction=_text(row, "problem_statement", source),
        test_timeout_s=file.test_timeout_s,
        cpus=None,
        memory_bytes=None,
        storage_bytes=None,
        workdir=WORKDIR,
        solution_env={},
        metadata={"difficulty": row.get("difficulty"), "tags": [str(row["repo"]), str(row["version"])]},
        repo=_text(row, "repo", source),
        version=str(row["version"]),
        base_commit=_text(row, "base_commit", source),
        gold_patch=_text(row, "patch", source),
        test_patch=_text(row, "test_patch", source),
        fail_to_pass=fail_to_pass,
        pass_to_pass=_names(row, "PASS_TO_PASS", source),
        published_image=str(row.get("image") or file.image),
        log_parser=parser,
        before=before,
        command=command,
        hosts=tuple(file.network.get(name, ())),
        content_hash=hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16],
    )


def _text(row: Mapping[str, Any], field: str, source: str) -> str:
    value = row[field]
    if not isinstance(value, str):
        raise UserError(f"{source}: {row['instance_id']}: {field}: expected a text, found {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair, which JSON can name
        raise UserError(f"{source}: {row['instance_id']}: {field}: expected Unicode text ({error.reason})") from error
    return value


def _names(row: Mapping[str, Any], field: str, source: str) -> tuple[str, ...]:
    """A list of tests, which some data sets hold as a list and some as its JSON."""
    value = row[field]
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except (ValueError, TypeError):
        found = None
    if not isinstance(found, list) or not all(isinstance(test, str) for test in found):
        raise UserError(f"{source}: {row['instance_id']}: {field}: expected a list of tests, found {str(value)[:40]!r}")
    return tuple(found)


def _how_to_test(row: Mapping[str, Any], source: str) -> tuple[tuple[str, ...], str, str]:
    """Shell lines before the tests, the line that runs them, and the name of the official parser."""
    name, repo = row["instance_id"], row["repo"]
    if row.get("eval_script") and row.get("log_parser"):
        try:
            return *read_eval_script(str(row["eval_script"])), str(row["log_parser"])
        except ValueError as error:
            raise UserError(f"{source}: {name}: eval_script: {error}") from error
    known = REPOSITORIES.get(str(repo))
    if known is None:
        raise UserError(
            f"{source}: {name}: the field eval_script is missing, and how the tests of {repo} are run is known only "
            f"for {' and '.join(REPOSITORIES)}"
        )
    labels = [shlex.quote(label) for label in test_labels(str(row["test_patch"]), known.dotted)]
    return known.before, " ".join([known.command, *labels]), known.log_parser


def test_labels(test_patch: str, dotted: bool) -> list[str]:
    """The tests that a test patch touches, as the repository's runner names them."""
    files = [path for path in PATCHED_FILE.findall(test_patch) if not path.endswith(NO_TEST_ENDS)]
    if dotted:
        files = [path.removesuffix(".py").removeprefix("tests/").replace("/", ".") for path in files]
    return list(dict.fromkeys(files))


def read_eval_script(script: str) -> tuple[tuple[str, ...], str]:
    """What is left of an official evaluation script when image and grader do their part: lines before, and the tests.

    Activating the environment is the image's part; putting the tests in place is the grader's, which has no commits
    to check them out from. Raises ValueError when there is no test command between its marks.
    """
    before: list[str] = []
    command: list[str] | None = None
    heredoc: str | None = None
    for line in script.splitlines():
        if heredoc is not None:
            heredoc = None if line == heredoc else heredoc
        elif END in line:
            break
        elif START in line:
            command = []
        elif command is not None:
            command.append(line)
        elif opened := re.search(r"<<-?\s*'?(\w+)'?\s*$", line):
            heredoc = opened[1]
        elif not re.match(r"\s*(#!|set -|source \S*activate|conda activate|cd /testbed|git\s|$)", line):
            before.append(line)
    if not command or not "".join(command).strip():
        raise ValueError(f"there is no test command between {START!r} and {END!r}")
    return tuple(before), "\n".join(command)


def patched_files(patch: str) -> Sequence[str]:
    """The paths that a git patch names, after it is applied."""
    return PATCHED_FILE.findall(patch)
